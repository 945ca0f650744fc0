/* `pulmo bench attention`: the candidate network's attention beside dense attention of the same shape, three primitives
 * of oneDNN, on crops of the phantom: its nodules and other places in its lungs. Operations and processor time of the
 * block, how many keys it keeps, and what it is of all that runs once a crop. */
#include "app/analysis.h"
#include "app/bench.h"
#include "phantom/phantom.h"
#include "random.h"

#include <stdio.h>

#define CROPS 64
#define SPACING_MM 1.0
#define MARGIN_MM 15.0

struct scene {
    struct phantom phantom;
    struct volume *iso;
    struct mask *lungs;
    int32_t centers[CROPS][3];
};

static void scene_free(struct scene *scene) {
    phantom_free(&scene->phantom);
    volume_free(scene->iso);
    mask_free(scene->lungs);
}

/* The same places everywhere: each nodule, then voxels of the lungs by chance. */
static bool centers_choose(struct scene *scene, struct err *err) {
    const struct grid *grid = &scene->iso->grid;
    const uint32_t key[2] = {1, 0};
    size_t count = 0, voxels = grid_voxels(grid);
    for (; count < scene->phantom.nodule_count; count++) {
        double ijk[3];
        if (!grid_to_ijk(grid, scene->phantom.nodules[count].center_lps_mm, ijk))
            return err_set(err, ERR_INTERNAL, "the phantom's grid is singular");
        for (int axis = 0; axis < 3; axis++)
            scene->centers[count][axis] = (int32_t)ijk[axis];
    }
    for (uint32_t draw = 0; count < CROPS && draw < 1000000; draw++) {
        uint32_t bits[4];
        random_philox(key, (const uint32_t[4]){draw, 0, 0, 0}, bits);
        size_t voxel = (size_t)((double)random_uniform(bits[0]) * (double)voxels), row = (size_t)grid->size_ijk[0];
        if (!scene->lungs->voxel[voxel])
            continue;
        scene->centers[count][0] = (int32_t)(voxel % row);
        scene->centers[count][1] = (int32_t)(voxel / row % (size_t)grid->size_ijk[1]);
        scene->centers[count++][2] = (int32_t)(voxel / row / (size_t)grid->size_ijk[1]);
    }
    return count == CROPS || err_set(err, ERR_INTERNAL, "the phantom has no lungs");
}

static bool scene_make(struct scene *scene, struct err *err) {
    const struct phantom_config chest = {.seed = 1, .nodules = PHANTOM_NODULES_MAX, .spacing_mm = 2.5};
    if (!phantom_make(&chest, &scene->phantom, err))
        return false;
    scene->iso = volume_resample_iso(scene->phantom.volume, SPACING_MM, err);
    scene->lungs = scene->iso ? volume_lungs(scene->iso, err) : NULL;
    return scene->lungs && volume_mask_outside(scene->iso, scene->lungs, MARGIN_MM, err) && centers_choose(scene, err);
}

static void print_json(const struct infer_attention_figures *figures) {
    printf(
        "{\"bench\": \"attention\", \"library\": \"%s\", \"instruction_set\": \"%s\", \"gated\": %s, \"heads\": %lld, "
        "\"tokens\": %lld, \"depth\": %lld, \"crops\": %d, \"kept\": %.2f, \"kept_min\": %lld, \"kept_max\": %lld, "
        "\"dense_mflop\": %.3f, \"sparse_mflop\": %.3f, \"gate_mflop\": %.4f, \"operations_ratio\": %.4f, "
        "\"dense_ms\": %.4f, \"sparse_ms\": %.4f, \"speed_ratio\": %.3f, \"trunk_ms\": %.3f, "
        "\"share_of_trunk\": %.5f}\n",
        infer_backend_library(), infer_backend_instruction_set(), figures->gated ? "true" : "false",
        (long long)figures->heads, (long long)figures->tokens, (long long)figures->depth, CROPS, figures->kept,
        (long long)figures->kept_min, (long long)figures->kept_max, figures->dense_operations / 1e6,
        figures->sparse_operations / 1e6, figures->gate_operations / 1e6,
        figures->sparse_operations / figures->dense_operations, 1e3 * figures->dense_s, 1e3 * figures->sparse_s,
        figures->dense_s / figures->sparse_s, 1e3 * figures->trunk_s, figures->sparse_s / figures->trunk_s);
}

static void print(const struct infer_attention_figures *figures) {
    printf("%s, %s; attention of %lld heads over %lld tokens of %lld, keys chosen by %s\n", infer_backend_library(),
           infer_backend_instruction_set(), (long long)figures->heads, (long long)figures->tokens,
           (long long)figures->depth, figures->gated ? "a gate" : "the scores of each query");
    printf("a query attends to %.1f keys, %lld to %lld, on %d crops of the phantom\n", figures->kept,
           (long long)figures->kept_min, (long long)figures->kept_max, CROPS);
    printf("operations: %.2f of %.2f million, %.0f %% fewer; %.3f million of them in the gate\n",
           figures->sparse_operations / 1e6, figures->dense_operations / 1e6,
           100 - 100 * figures->sparse_operations / figures->dense_operations, figures->gate_operations / 1e6);
    printf("processor time of the block: %.4f ms, dense by oneDNN %.4f ms: %.2f times as fast\n",
           1e3 * figures->sparse_s, 1e3 * figures->dense_s, figures->dense_s / figures->sparse_s);
    printf("it runs once a crop, whatever the passes: %.2f %% of the trunk (%.2f ms)\n",
           100 * figures->sparse_s / figures->trunk_s, 1e3 * figures->trunk_s);
}

static bool measure(const struct config *config, int rounds, struct infer_attention_figures *out, struct err *err) {
    PULMO_SCOPED(scene_free) struct scene scene = {0};
    struct engine engine;
    if (!scene_make(&scene, err) || !engine_open(config, &engine, err))
        return false;
    const struct infer_attention_crops crops = {
        .iso = scene.iso, .centers_ijk = (const int32_t(*)[3])scene.centers, .count = CROPS, .rounds = rounds};
    bool good = infer_attention_measure(engine.session, &crops, out, err);
    engine_close(&engine);
    return good;
}

static int run(int argc, char **argv) {
    const char *rounds = "50", *model = "";
    int64_t round_count = 0;
    bool json = false;
    const struct command_option options[] = {
        {"--rounds", &rounds, NULL}, {"--model", &model, NULL}, {"--json", NULL, &json}};
    struct err err = {0};
    struct config config;
    struct infer_attention_figures figures;
    if (command_options(argc, argv, options, sizeof options / sizeof *options) != 0 ||
        !command_integer(rounds, 1, 100000, &round_count))
        return command_usage(&bench_attention);
    config_defaults(&config);
    if (!config_set(&config, "backend", "cpu", &err) || (*model && !config_set(&config, "model", model, &err)) ||
        !measure(&config, (int)round_count, &figures, &err))
        return command_fail(&bench_attention, &err);
    if (json)
        print_json(&figures);
    else
        print(&figures);
    return EXIT_DONE;
}

const struct command bench_attention = {"attention", "bench attention [--rounds N] [--model FILE] [--json]",
                                        "sparse attention beside dense attention", run};
