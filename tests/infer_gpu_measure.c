/* infer_gpu_measure PLUGIN CASE [--quick]: everything that issue and documentation promise of a card, measured on the
 * one at hand with the plugin and a case of tests/infer_gpu_pack.c. Prints a report in Markdown.
 *
 * Exit status: 0 every goal reached; 1 something failed or missed its goal; 77 there is no card (the reason is
 * printed).
 * --quick: parity only, once; for compute-sanitizer, which makes everything slow. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "infer/cuda/device_plan.h"
#include "infer/cuda/plugin.h"
#include "phantom/phantom.h"
#include "tests/infer_gpu_case.h"
#include "volume/volume.h"

#define ROUNDS 7
#define GOAL_PROBABILITY 1e-3
#define GOAL_BUSY 0.92
#define GOAL_PEAK 0.50
#define GOAL_STUDY_MS 500.0
#define LARGE_LAYER 5e9 /* operations of a batch, from which a layer counts as large */

struct measure {
    const struct cuda_plugin *table;
    struct cuda_device *device;
    struct cuda_program *detector, *candidate;
    struct bytes plans[2], block; /* detector, candidate; the case */
    const struct gpu_case *it;
    const struct gpu_case_mark *marks;
    const float *logits;
    struct phantom phantom;
    struct volume *iso;
    struct mask *lungs;
    struct cuda_mark *found;
    int32_t found_count, (*starts)[3], tile_count;
    struct cuda_timing detect, candidates; /* of the last run */
    float *outputs[DEVICE_PORTS_MAX];
    int missed;
};

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static void line(struct measure *measure, bool reached, const char *what, const char *figure, const char *goal) {
    printf("| %s | %s | %s | %s |\n", what, figure, goal, reached ? "reached" : "**missed**");
    measure->missed += !reached;
}

/* ---- the case ------------------------------------------------------------------------------------------------------
 */

static bool part_read(const char *folder, const char *name, struct bytes *out, struct err *err) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return bytes_read_file(path, (size_t)1 << 30, out, err);
}

static bool case_read(struct measure *measure, const char *folder, struct err *err) {
    if (!part_read(folder, "detector.plan", &measure->plans[0], err) ||
        !part_read(folder, "candidate.plan", &measure->plans[1], err) ||
        !part_read(folder, "case.bin", &measure->block, err))
        return false;
    const struct gpu_case *it = measure->it = (const struct gpu_case *)(const void *)measure->block.data;
    bool good = measure->block.size >= sizeof *it && it->magic == GPU_CASE_MAGIC && it->mark_count > 0 &&
                it->mark_count <= GPU_CASE_MARKS_MAX && it->passes > 0;
    size_t marks = good ? (size_t)it->mark_count : 0;
    if (!good ||
        measure->block.size != sizeof *it + marks * (sizeof(struct gpu_case_mark) + (size_t)it->passes * sizeof(float)))
        return err_set(err, ERR_INPUT, "%s/case.bin is no case of this version", folder);
    measure->marks = (const struct gpu_case_mark *)(const void *)(it + 1);
    measure->logits = (const float *)(const void *)(measure->marks + marks);
    return true;
}

static bool is_empty(const struct volume *iso, const int32_t start[3], int32_t side) {
    const int32_t *size = iso->grid.size_ijk;
    for (int32_t k = start[2] < 0 ? 0 : start[2]; k < start[2] + side && k < size[2]; k++)
        for (int32_t j = start[1] < 0 ? 0 : start[1]; j < start[1] + side && j < size[1]; j++)
            for (int32_t i = start[0] < 0 ? 0 : start[0]; i < start[0] + side && i < size[0]; i++)
                if (iso->hu[((int64_t)k * size[1] + j) * size[0] + i] > -1024)
                    return false;
    return true;
}

static bool tiles_make(struct measure *measure, struct err *err) {
    const struct gpu_case *it = measure->it;
    int32_t inner = it->tile - 2 * it->margin, tiles[3];
    for (int axis = 0; axis < 3; axis++)
        tiles[axis] = (measure->iso->grid.size_ijk[axis] + inner - 1) / inner;
    measure->starts = pulmo_alloc((size_t)(tiles[0] * tiles[1] * tiles[2]), sizeof *measure->starts, err);
    for (int32_t n = 0; measure->starts && n < tiles[0] * tiles[1] * tiles[2]; n++) {
        int32_t *start = measure->starts[measure->tile_count];
        start[0] = n % tiles[0] * inner - it->margin;
        start[1] = n / tiles[0] % tiles[1] * inner - it->margin;
        start[2] = n / tiles[0] / tiles[1] * inner - it->margin;
        measure->tile_count += !is_empty(measure->iso, start, it->tile);
    }
    return measure->starts != NULL;
}

/* The card's resampling gives the processor's bytes. */
static bool resample_check(struct measure *measure, struct err *err) {
    const struct grid *from = &measure->phantom.volume->grid, *to = &measure->iso->grid;
    size_t voxels = grid_voxels(to);
    PULMO_SCOPED(pulmo_free_at) int16_t *out = pulmo_alloc(voxels, sizeof *out, err);
    struct cuda_resample how = {{0}, {0}, {0}, {0}};
    for (int axis = 0; axis < 3; axis++) {
        how.source_size[axis] = from->size_ijk[axis];
        how.size[axis] = to->size_ijk[axis];
        how.step[axis] = 1.0 / from->spacing_mm[axis];
    }
    double start = now_ms();
    if (!out || !measure->table->resample(measure->device, &how, measure->phantom.volume->hu, out, err))
        return false;
    bool same = memcmp(out, measure->iso->hu, voxels * sizeof *out) == 0;
    printf("- resampling on the card, both copies included: %.1f ms, %s\n", now_ms() - start,
           same ? "the processor's bytes" : "**other bytes than the processor's**");
    measure->missed += !same;
    return true;
}

static bool volume_make(struct measure *measure, struct err *err) {
    const struct gpu_case *it = measure->it;
    const struct phantom_config make = {
        .seed = it->phantom_seed, .slices = it->slices, .nodules = 6, .spacing_mm = it->spacing_mm};
    if (!phantom_make(&make, &measure->phantom, err))
        return false;
    double start = now_ms();
    measure->iso = volume_resample_iso(measure->phantom.volume, 1.0, err);
    double resampled = now_ms();
    if (!measure->iso || !resample_check(measure, err))
        return false;
    double checked = now_ms();
    measure->lungs = measure->iso ? volume_lungs(measure->iso, err) : NULL;
    if (!measure->lungs || !volume_mask_outside(measure->iso, measure->lungs, 15.0, err))
        return false;
    printf("- processor's part of a study (not the card's): resampling %.0f ms, lungs and margin %.0f ms\n",
           resampled - start, now_ms() - checked);
    return tiles_make(measure, err);
}

static bool table_open(struct measure *measure, const char *path, struct err *err) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return err_set(err, ERR_UNSUPPORTED, "the plugin cannot be loaded: %s", dlerror());
    void *symbol = dlsym(library, CUDA_PLUGIN_SYMBOL);
    cuda_plugin_entry *entry = NULL;
    memcpy(&entry, &symbol, sizeof entry);
    measure->table = entry ? entry() : NULL;
    if (!measure->table || measure->table->version != CUDA_PLUGIN_VERSION ||
        measure->table->size != sizeof *measure->table)
        return err_set(err, ERR_INPUT, "the plugin is of another version");
    measure->device = measure->table->device_open(0, NULL, err);
    return measure->device != NULL;
}

/* ---- one study -----------------------------------------------------------------------------------------------------
 */

static bool detect_run(struct measure *measure, struct err *err) {
    const struct gpu_case *it = measure->it;
    struct cuda_detect request = {.hu = measure->iso->hu,
                                  .lungs = measure->lungs->voxel,
                                  .tile = it->tile,
                                  .margin = it->margin,
                                  .logit_min = it->logit_min,
                                  .candidates_max = it->candidates_max,
                                  .starts = (const int32_t(*)[3])measure->starts,
                                  .tile_count = measure->tile_count};
    for (int axis = 0; axis < 3; axis++) {
        request.size_ijk[axis] = measure->iso->grid.size_ijk[axis];
        request.cells[2 - axis] = (request.size_ijk[axis] + 3) / 4;
        request.outputs[axis] = it->outputs[axis];
    }
    return measure->table->detect(measure->detector, &request, measure->found, &measure->found_count, NULL,
                                  &measure->detect, err);
}

/* The crops of the case's own marks, so that the logits belong to each other whatever the card has found. */
static bool candidates_run(struct measure *measure, struct err *err) {
    const struct gpu_case *it = measure->it;
    int32_t starts[GPU_CASE_MARKS_MAX][3];
    for (int32_t n = 0; n < it->mark_count; n++) {
        double ijk[3];
        if (!grid_to_ijk(&measure->iso->grid, measure->marks[n].center_lps_mm, ijk))
            return err_set(err, ERR_INTERNAL, "the grid is singular");
        for (int axis = 0; axis < 3; axis++)
            starts[n][axis] = (int32_t)floor(ijk[axis] + 1e-6) - (it->side / 2 - 1);
    }
    struct cuda_crops request = {
        .hu = measure->iso->hu, .starts = (const int32_t(*)[3])starts, .count = it->mark_count};
    memcpy(request.size_ijk, measure->iso->grid.size_ijk, sizeof request.size_ijk);
    const struct cuda_keys keys = {.active = true, .seed = it->dropout_seed, .rate = -1};
    return measure->table->candidates(measure->candidate, &request, &keys, measure->outputs, &measure->candidates, err);
}

static bool programs_make(struct measure *measure, struct err *err) {
    const struct bytes *plans = measure->plans;
    measure->found = pulmo_alloc(1024, sizeof *measure->found, err);
    double start = now_ms();
    measure->detector =
        measure->found ? measure->table->program_new(measure->device, plans[0].data, plans[0].size, err) : NULL;
    measure->candidate =
        measure->detector ? measure->table->program_new(measure->device, plans[1].data, plans[1].size, err) : NULL;
    if (!measure->candidate)
        return false;
    struct cuda_figures figures = measure->table->program_figures(measure->detector);
    printf(
        "- made ready in %.0f ms; detector: %d convolutions, %d of them one kernel of cuDNN with bias, sum and Relu; "
        "arena %.1f MiB, constants %.1f MiB, workspace %.1f MiB\n",
        now_ms() - start, figures.convolutions, figures.fused, (double)figures.arena_bytes / 1048576,
        (double)figures.constant_bytes / 1048576, (double)figures.workspace_bytes / 1048576);
    const struct device_plan *plan = (const struct device_plan *)(const void *)plans[1].data;
    for (int i = 0; i < plan->output_count; i++) {
        const struct device_tensor *tensor = &device_plan_tensors(plan)[plan->outputs[i]];
        const struct device_tensor *input = &device_plan_tensors(plan)[plan->inputs[0]];
        size_t part = (size_t)(tensor->size / input->dims[0]);
        measure->outputs[i] = pulmo_alloc((size_t)measure->it->mark_count, part, err);
        if (!measure->outputs[i])
            return false;
    }
    return true;
}

/* ---- figures -------------------------------------------------------------------------------------------------------
 */

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static void parity_print(struct measure *measure) {
    const struct gpu_case *it = measure->it;
    int32_t lost = 0;
    double worst = 0, passes = 0;
    char figure[128];
    for (int32_t n = 0; n < it->mark_count; n++) {
        double nearest = INFINITY, apart = 1;
        for (int32_t m = 0; m < measure->found_count; m++) {
            const struct cuda_mark *mark = &measure->found[m];
            double ijk[3] = {mark->at[2], mark->at[1], mark->at[0]}, lps[3], square = 0;
            grid_to_lps(&measure->iso->grid, ijk, lps);
            for (int axis = 0; axis < 3; axis++)
                square += pow(lps[axis] - measure->marks[n].center_lps_mm[axis], 2);
            if (square < nearest) {
                nearest = square;
                apart = fabs(sigmoid(mark->logit) - sigmoid(measure->marks[n].logit));
            }
        }
        lost += nearest > 0.25;
        worst = nearest > 0.25 ? worst : fmax(worst, apart);
    }
    const float *logits = measure->outputs[it->logit_port];
    for (int32_t n = 0; n < it->mark_count * it->passes; n++)
        passes = fmax(passes, fabs(sigmoid((double)logits[n]) - sigmoid((double)measure->logits[n])));
    snprintf(figure, sizeof figure, "%d of %d found again, %d by the card", it->mark_count - lost, it->mark_count,
             measure->found_count);
    line(measure, lost == 0 && measure->found_count == it->mark_count, "findings, against the CPU", figure, "the same");
    snprintf(figure, sizeof figure, "%.2g", worst);
    line(measure, worst <= GOAL_PROBABILITY, "greatest difference of a detector's probability", figure, "1e-3");
    snprintf(figure, sizeof figure, "%.2g over %d x %d passes", passes, it->mark_count, it->passes);
    line(measure, passes <= GOAL_PROBABILITY, "greatest difference of a pass' probability, same masks", figure, "1e-3");
}

static int by_value(const void *left, const void *right) {
    const double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

/* Medians of whole runs. */
static bool time_print(struct measure *measure, struct err *err) {
    double detect[ROUNDS], candidates[ROUNDS], study[ROUNDS], busy[ROUNDS];
    char figure[128];
    for (int round = 0; round < ROUNDS; round++) {
        double start = now_ms();
        if (!detect_run(measure, err) || !candidates_run(measure, err))
            return false;
        study[round] = now_ms() - start;
        detect[round] = measure->detect.wall_ms;
        candidates[round] = measure->candidates.wall_ms;
        busy[round] = measure->detect.device_ms / measure->detect.wall_ms;
    }
    qsort(detect, ROUNDS, sizeof *detect, by_value);
    qsort(candidates, ROUNDS, sizeof *candidates, by_value);
    qsort(study, ROUNDS, sizeof *study, by_value);
    qsort(busy, ROUNDS, sizeof *busy, by_value);
    snprintf(figure, sizeof figure, "%.1f ms (detection %.1f, candidates %.1f; median of %d)", study[ROUNDS / 2],
             detect[ROUNDS / 2], candidates[ROUNDS / 2], ROUNDS);
    line(measure, study[ROUNDS / 2] < GOAL_STUDY_MS, "volume to findings with passes, upload included", figure,
         "under 500 ms");
    snprintf(figure, sizeof figure, "%.1f %% (%d tiles in %d batches)", 100 * busy[ROUNDS / 2], measure->tile_count,
             measure->detect.batches);
    line(measure, busy[ROUNDS / 2] >= GOAL_BUSY, "card busy with tiles during the detection", figure, "at least 92 %");
    printf("\nOne batch of the detector on the card: %.3f ms.\n", measure->detect.device_ms / measure->detect.batches);
    printf("\nOn the processors that wrote the case (%s, all of them): detection %.0f ms, candidates %.0f ms.\n",
           measure->it->cpu, measure->it->cpu_ms[0], measure->it->cpu_ms[1]);
    return true;
}

/* Each step of the detector alone, with what it reaches of the card's tensor peak. */
static bool layers_print(struct measure *measure, struct err *err) {
    const struct device_plan *plan = (const struct device_plan *)(const void *)measure->plans[0].data;
    double peak = measure->table->device_peak(measure->device), worst = INFINITY, all = 0, total_ms = 0;
    PULMO_SCOPED(pulmo_free_at) float *ms = pulmo_alloc((size_t)plan->step_count, sizeof *ms, err);
    if (!ms || !measure->table->program_profile(measure->detector, 21, ms, err))
        return false;
    printf("\n## Layers of the detector, a batch at a time\n\n| layer | GFLOP | ms | TFLOP/s | of the peak "
           "|\n|---|---|---|---|---|\n");
    for (int i = 0; i < plan->step_count; i++) {
        double operations = device_step_operations(plan, i), rate = ms[i] > 0 ? operations / (double)ms[i] * 1e3 : 0;
        printf("| %s | %.2f | %.3f | %.1f | %.1f %% |\n", device_plan_steps(plan)[i].name, operations / 1e9,
               (double)ms[i], rate / 1e12, peak > 0 ? 100 * rate / peak : 0.0);
        all += operations;
        total_ms += (double)ms[i];
        if (operations >= LARGE_LAYER && peak > 0)
            worst = fmin(worst, rate / peak);
    }
    printf("| all | %.2f | %.3f | %.1f | %.1f %% |\n", all / 1e9, total_ms, total_ms > 0 ? all / total_ms / 1e9 : 0.0,
           peak > 0 && total_ms > 0 ? 100 * all / total_ms * 1e3 / peak : 0.0);
    char figure[128];
    snprintf(figure, sizeof figure, "%.1f %% in the slowest of them, peak %.0f TFLOP/s", 100 * worst, peak / 1e12);
    printf("\n| what | measured | goal | |\n|---|---|---|---|\n");
    line(measure, isfinite(worst) && worst >= GOAL_PEAK, "tensor peak on the large layers",
         peak > 0 ? figure : "the card is not in the table of peaks", "at least 50 %");
    return true;
}

static bool measure_all(struct measure *measure, const char *folder, bool quick, struct err *err) {
    printf("- card: %s\n", measure->table->device_text(measure->device));
    if (!case_read(measure, folder, err))
        return false;
    printf("- case: phantom of %d slices, model %.16s\n", measure->it->slices, measure->it->model);
    if (!volume_make(measure, err) || !programs_make(measure, err) || !detect_run(measure, err) ||
        !candidates_run(measure, err))
        return false;
    printf("\n| what | measured | goal | |\n|---|---|---|---|\n");
    parity_print(measure);
    return quick || (time_print(measure, err) && layers_print(measure, err));
}

static void measure_clear(struct measure *measure) {
    if (measure->device) {
        measure->table->program_free(measure->detector);
        measure->table->program_free(measure->candidate);
        measure->table->device_close(measure->device);
    }
    for (int i = 0; i < DEVICE_PORTS_MAX; i++)
        free(measure->outputs[i]);
    free(measure->found);
    free(measure->starts);
    mask_free(measure->lungs);
    volume_free(measure->iso);
    phantom_free(&measure->phantom);
    bytes_free(&measure->plans[0]);
    bytes_free(&measure->plans[1]);
    bytes_free(&measure->block);
}

int main(int argc, char **argv) {
    PULMO_SCOPED(measure_clear) struct measure measure = {0};
    struct err err = {0};
    if (argc < 3) {
        fprintf(stderr, "usage: infer_gpu_measure PLUGIN CASE [--quick]\n");
        return 2;
    }
    if (!table_open(&measure, argv[1], &err)) {
        printf("no card: %s\n", err.text);
        return 77;
    }
    if (!measure_all(&measure, argv[2], argc > 3 && strcmp(argv[3], "--quick") == 0, &err)) {
        printf("\nfailed: %s\n", err.text);
        return 1;
    }
    return measure.missed ? 1 : 0;
}
