/* `pulmo bench engine`: the detector on a batch of tiles, as a share of what a matrix product reaches on the same
 * processors in the same round, both by processor time; and where the time goes, layer by layer. What is by the clock
 * says so. bench/engine.bench.mjs sets it beside its peers. */
#include "app/analysis.h"
#include "app/bench.h"
#include "workers.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

struct bench {
    struct engine engine;
    int64_t tiles, rounds;
    struct infer_session *session;
    double operations; /* of a tile */
    unsigned threads;
    struct infer_step_figures *layers;
    int steps;
    double (*step_s)[BENCH_ROUNDS_MAX];
    double peak_one[BENCH_ROUNDS_MAX], peak_all[BENCH_ROUNDS_MAX]; /* operations a second */
    double tile_s[BENCH_ROUNDS_MAX], tiles_per_s[BENCH_ROUNDS_MAX], processor_s[BENCH_ROUNDS_MAX];
};

static void bench_end_at(struct bench **pointer) {
    struct bench *bench = *pointer;
    if (!bench)
        return;
    engine_close(&bench->engine);
    free(bench->layers);
    free(bench->step_s);
    free(bench);
}

static bool begin(struct bench *bench, struct err *err) {
    bench->session = bench->engine.session;
    bench->threads = infer_session_threads(bench->session);
    bench->steps = infer_detector_steps(bench->session);
    bench->layers = pulmo_alloc((size_t)bench->steps, sizeof *bench->layers, err);
    bench->step_s = pulmo_alloc((size_t)bench->steps, sizeof *bench->step_s, err);
    for (int step = 0; bench->layers && step < bench->steps; step++) {
        infer_detector_step(bench->session, step, &bench->layers[step]);
        bench->operations += bench->layers[step].operations;
    }
    return bench->layers && bench->step_s;
}

/* ---- one round -------------------------------------------------------------------------------------------- */

static bool peak_job(void *context, unsigned worker, size_t index, struct err *err) {
    (void)worker;
    return infer_backend_peak((double *)context + index, err);
}

static bool peaks_measure(struct bench *bench, int64_t round, struct err *err) {
    double peaks[WORKERS_MAX] = {0};
    if (!infer_backend_peak(&bench->peak_one[round], err) ||
        !workers_run(bench->threads, bench->threads, peak_job, peaks, err))
        return false;
    for (unsigned worker = 0; worker < bench->threads; worker++)
        bench->peak_all[round] += peaks[worker];
    return true;
}

static bool tile_job(void *context, unsigned worker, size_t index, struct err *err) {
    const struct bench *bench = context;
    (void)index;
    return infer_detector_run(bench->session, worker, NULL, err);
}

static bool layers_measure(struct bench *bench, int64_t round, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) uint64_t *step_ns = pulmo_alloc((size_t)bench->steps, sizeof *step_ns, err);
    if (!step_ns)
        return false;
    for (int64_t tile = 0; tile < bench->tiles; tile++)
        if (!infer_detector_run(bench->session, 0, step_ns, err))
            return false;
    for (int step = 0; step < bench->steps; step++) {
        bench->step_s[step][round] = (double)step_ns[step] / 1e9 / (double)bench->tiles;
        bench->tile_s[round] += bench->step_s[step][round];
    }
    return true;
}

static bool round_run(struct bench *bench, int64_t round, struct err *err) {
    size_t tiles = (size_t)bench->tiles * bench->threads;
    if (!peaks_measure(bench, round, err))
        return false;
    double start_s = bench_wall_s(), processor_s = bench_processor_s();
    if (!workers_run(bench->threads, tiles, tile_job, bench, err))
        return false;
    bench->tiles_per_s[round] = (double)tiles / (bench_wall_s() - start_s);
    bench->processor_s[round] = (bench_processor_s() - processor_s) / (double)tiles;
    return layers_measure(bench, round, err);
}

static bool measure(struct bench *bench, struct err *err) {
    if (!begin(bench, err) || !workers_run(bench->threads, bench->threads, tile_job, bench, err))
        return false; /* the first runs touch the arenas */
    for (int64_t round = 0; round < bench->rounds; round++)
        if (!round_run(bench, round, err))
            return false;
    return true;
}

/* ---- what came out ------------------------------------------------------------------------------------------ */

/* Of each round the share of that round's product, and the median of these. */
static double share_one(const struct bench *bench, double operations, const double *taken_s) {
    double shares[BENCH_ROUNDS_MAX];
    for (int64_t round = 0; round < bench->rounds; round++)
        shares[round] = taken_s[round] > 0 ? operations / taken_s[round] / bench->peak_one[round] : 0;
    return bench_median(shares, (size_t)bench->rounds);
}

/* All threads at once, by their processor time: what the machine does beside is not the engine's. */
static double share_all(const struct bench *bench) {
    double shares[BENCH_ROUNDS_MAX];
    for (int64_t round = 0; round < bench->rounds; round++)
        shares[round] =
            bench->operations / bench->processor_s[round] / (bench->peak_all[round] / (double)bench->threads);
    return bench_median(shares, (size_t)bench->rounds);
}

/* Of all layers of 3 x 3 x 3 and stride 1 together. */
static double share_large(const struct bench *bench) {
    double operations = 0, taken_s[BENCH_ROUNDS_MAX] = {0};
    for (int step = 0; step < bench->steps; step++) {
        if (!bench->layers[step].large)
            continue;
        operations += bench->layers[step].operations;
        for (int64_t round = 0; round < bench->rounds; round++)
            taken_s[round] += bench->step_s[step][round];
    }
    return share_one(bench, operations, taken_s);
}

static cJSON *layer_json(const struct bench *bench, int step) {
    const struct infer_step_figures *layer = &bench->layers[step];
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "layer", layer->layer);
    cJSON_AddStringToObject(object, "operator", layer->operation);
    cJSON_AddNumberToObject(object, "gflop", layer->operations / 1e9);
    cJSON_AddNumberToObject(object, "ms", 1e3 * bench_median(bench->step_s[step], (size_t)bench->rounds));
    cJSON_AddBoolToObject(object, "large", layer->large);
    if (layer->operations > 0)
        cJSON_AddNumberToObject(object, "share_of_peak", share_one(bench, layer->operations, bench->step_s[step]));
    return object;
}

static cJSON *document_make(const struct bench *bench) {
    cJSON *document = cJSON_CreateObject();
    size_t rounds = (size_t)bench->rounds;
    double median_all = bench_median(bench->tiles_per_s, rounds);
    cJSON_AddStringToObject(document, "bench", "engine");
    cJSON_AddStringToObject(document, "library", infer_backend_library());
    cJSON_AddStringToObject(document, "instruction_set", infer_backend_instruction_set());
    cJSON_AddNumberToObject(document, "threads", bench->threads);
    cJSON_AddNumberToObject(document, "rounds", (double)bench->rounds);
    cJSON_AddNumberToObject(document, "tile_gflop", bench->operations / 1e9);
    cJSON_AddNumberToObject(document, "peak_one_gflops", bench_median(bench->peak_one, rounds) / 1e9);
    cJSON_AddNumberToObject(document, "peak_all_gflops", bench_median(bench->peak_all, rounds) / 1e9);
    cJSON_AddNumberToObject(document, "tile_ms_one_thread", 1e3 * bench_median(bench->tile_s, rounds));
    cJSON_AddNumberToObject(document, "tiles_per_s", median_all);
    cJSON_AddNumberToObject(document, "processor_ms_a_tile", 1e3 * bench_median(bench->processor_s, rounds));
    cJSON_AddNumberToObject(document, "share_of_peak_one", share_one(bench, bench->operations, bench->tile_s));
    cJSON_AddNumberToObject(document, "share_of_peak_all", share_all(bench));
    cJSON_AddNumberToObject(document, "share_of_peak_3x3x3", share_large(bench));
    cJSON *layers = cJSON_AddArrayToObject(document, "layers");
    for (int step = 0; step < bench->steps; step++)
        cJSON_AddItemToArray(layers, layer_json(bench, step));
    return document;
}

static void print_layers(const struct bench *bench) {
    printf("%-44s %-9s %7s %8s %6s %6s\n", "step, one thread", "operator", "GFLOP", "ms", "time", "peak");
    double tile_s = bench_median(bench->tile_s, (size_t)bench->rounds);
    for (int step = 0; step < bench->steps; step++) {
        const struct infer_step_figures *layer = &bench->layers[step];
        double taken_s = bench_median(bench->step_s[step], (size_t)bench->rounds);
        printf("%-44.44s %-9.9s %7.2f %8.2f %5.1f%% %5.1f%%%s\n", layer->layer, layer->operation,
               layer->operations / 1e9, 1e3 * taken_s, 100 * taken_s / tile_s,
               100 * share_one(bench, layer->operations, bench->step_s[step]), layer->large ? " *" : "");
    }
}

static void print_table(const struct bench *bench) {
    size_t rounds = (size_t)bench->rounds;
    double peak_one = bench_median(bench->peak_one, rounds) / 1e9,
           peak_all = bench_median(bench->peak_all, rounds) / 1e9;
    printf(
        "%s, %s; medians of %lld rounds; peak: a product of 1024 x 1024 floats in the same round; by processor time\n",
        infer_backend_library(), infer_backend_instruction_set(), (long long)bench->rounds);
    print_layers(bench);
    printf("one thread: a tile of %.2f GFLOP in %.1f ms, %.1f %% of %.1f GFLOP/s; the layers of 3 x 3 x 3 and stride 1 "
           "(*) %.1f %%\n",
           bench->operations / 1e9, 1e3 * bench_median(bench->tile_s, rounds),
           100 * share_one(bench, bench->operations, bench->tile_s), peak_one, 100 * share_large(bench));
    printf("%u threads: %.1f %% of %.1f GFLOP/s; %.2f tiles a second by the clock\n", bench->threads,
           100 * share_all(bench), peak_all, bench_median(bench->tiles_per_s, rounds));
}

static bool report(const struct bench *bench, bool json, struct err *err) {
    if (!json) {
        print_table(bench);
        return true;
    }
    cJSON *document = document_make(bench);
    char *text = cJSON_PrintUnformatted(document);
    cJSON_Delete(document);
    if (!text)
        return err_set(err, ERR_MEMORY, "out of memory for the figures");
    puts(text);
    free(text);
    return true;
}

static int run(int argc, char **argv) {
    const char *tiles = "2", *rounds = "5", *model = "", *threads = "0", *precision = "fp32";
    bool json = false;
    const struct command_option options[] = {{"--tiles", &tiles, NULL},         {"--rounds", &rounds, NULL},
                                             {"--model", &model, NULL},         {"--threads", &threads, NULL},
                                             {"--precision", &precision, NULL}, {"--json", NULL, &json}};
    struct err err = {0};
    struct config config;
    config_defaults(&config);
    PULMO_SCOPED(bench_end_at) struct bench *bench = pulmo_alloc(1, sizeof *bench, &err);
    if (!bench)
        return command_fail(&bench_engine, &err);
    if (command_options(argc, argv, options, sizeof options / sizeof *options) != 0 ||
        !command_integer(tiles, 1, 1000, &bench->tiles) ||
        !command_integer(rounds, 1, BENCH_ROUNDS_MAX, &bench->rounds))
        return command_usage(&bench_engine);
    if ((*model && !config_set(&config, "model", model, &err)) || !config_set(&config, "threads", threads, &err) ||
        !config_set(&config, "backend", "cpu", &err) || !config_set(&config, "precision", precision, &err) ||
        !engine_open(&config, &bench->engine, &err) || !measure(bench, &err) || !report(bench, json, &err))
        return command_fail(&bench_engine, &err);
    return EXIT_DONE;
}

const struct command bench_engine = {
    "engine", "bench engine [--tiles N] [--rounds N] [--threads N] [--precision fp32|auto] [--model FILE] [--json]",
    "the detector on tiles: share of what a matrix product reaches, layer by layer", run};
