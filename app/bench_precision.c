/* `pulmo bench precision`: the detector in each precision that the processor offers, on the same tiles of the phantom
 * by turns: time, memory, and error. Two baselines: fp32 by the library alone, every convolution one primitive with its
 * sum and Relu; and fp32 as it runs, with fewer products. */
#include "app/analysis.h"
#include "app/bench.h"
#include "app/precision.h"

#include <stdio.h>

struct bench {
    int64_t rounds;
    double tile_s[INFER_WAYS][BENCH_ROUNDS_MAX];
    struct infer_way_figures figures[INFER_WAYS];
};

static const struct {
    const char *name, *key;
} ways[INFER_WAYS] = {{"fp32, sums in order", "fp32_in_order"},
                      {"fp32, as it runs", "fp32"},
                      {"bf16 where possible", "bf16"},
                      {"int8 where possible", "int8"},
                      {"as calibration chooses", "chosen"}};

static bool measure(const struct config *config, struct bench *bench, struct err *err) {
    struct engine engine;
    PULMO_SCOPED(volume_free_at) struct volume *chest = precision_chest(err);
    if (!chest || !engine_open(config, &engine, err))
        return false;
    struct infer_ways *measured = infer_ways_new(engine.model, chest, err);
    bool good = measured != NULL;
    for (int64_t round = 0; good && round < bench->rounds; round++) {
        double tile_s[INFER_WAYS];
        good = infer_ways_round(measured, tile_s, err);
        for (int way = 0; good && way < INFER_WAYS; way++)
            bench->tile_s[way][round] = tile_s[way];
    }
    for (int way = 0; good && way < INFER_WAYS; way++)
        bench->figures[way] = *infer_ways_figures(measured, (enum infer_way)way);
    infer_ways_free(measured);
    engine_close(&engine);
    return good;
}

/* Median of the rounds' own ratios. */
static double faster(const struct bench *bench, int way, int than) {
    double ratios[BENCH_ROUNDS_MAX];
    for (int64_t round = 0; round < bench->rounds; round++)
        ratios[round] = bench->tile_s[than][round] / bench->tile_s[way][round];
    return bench_median(ratios, (size_t)bench->rounds);
}

static double milliseconds(const struct bench *bench, int way) {
    double values[BENCH_ROUNDS_MAX];
    for (int64_t round = 0; round < bench->rounds; round++)
        values[round] = 1e3 * bench->tile_s[way][round];
    return bench_median(values, (size_t)bench->rounds);
}

static double smaller_percent(const struct bench *bench, int way, int than) {
    const struct infer_way_figures *one = &bench->figures[way], *other = &bench->figures[than];
    return 100 -
           100 * (double)(one->arena_bytes + one->weight_bytes) / (double)(other->arena_bytes + other->weight_bytes);
}

static void print_table(const struct bench *bench) {
    printf("%s, %s; a tile of the phantom, one thread, processor time, medians of %lld rounds\n",
           infer_backend_library(), infer_backend_instruction_set(), (long long)bench->rounds);
    printf("%-24s %14s %8s %10s %10s %8s %8s %10s %10s %7s\n", "precision", "fp32/bf16/int8", "ms", "x in order",
           "x fp32", "arena MB", "weights", "< in order", "< fp32", "error");
    for (int way = 0; way < INFER_WAYS; way++) {
        const struct infer_way_figures *figures = &bench->figures[way];
        char layers[24];
        if (!figures->offered) {
            printf("%-24s this processor does not compute it\n", ways[way].name);
            continue;
        }
        snprintf(layers, sizeof layers, "%d/%d/%d", figures->layers[0], figures->layers[1], figures->layers[2]);
        printf("%-24s %14s %8.1f %9.2fx %9.2fx %8.1f %8.1f %9.0f%% %9.0f%% %7.2f\n", ways[way].name, layers,
               milliseconds(bench, way), faster(bench, way, INFER_WAY_IN_ORDER), faster(bench, way, INFER_WAY_FP32),
               (double)figures->arena_bytes / 1e6, (double)figures->weight_bytes / 1e6,
               smaller_percent(bench, way, INFER_WAY_IN_ORDER), smaller_percent(bench, way, INFER_WAY_FP32),
               figures->error);
    }
    printf(
        "layers by precision; arena of one worker, weights packed once; <: memory of both less than; error: greatest "
        "of the tiles against fp32, 1 = what calibration allows\n");
}

static void print_json(const struct bench *bench) {
    printf("{\"bench\": \"precision\", \"library\": \"%s\", \"instruction_set\": \"%s\", \"rounds\": %lld, "
           "\"ways\": [",
           infer_backend_library(), infer_backend_instruction_set(), (long long)bench->rounds);
    const char *separator = "";
    for (int way = 0; way < INFER_WAYS; way++) {
        const struct infer_way_figures *figures = &bench->figures[way];
        if (!figures->offered)
            continue;
        printf("%s\n {\"way\": \"%s\", \"layers_fp32\": %d, \"layers_bf16\": %d, \"layers_int8\": %d, "
               "\"tile_ms\": %.3f, \"faster_than_in_order\": %.3f, \"faster_than_fp32\": %.3f, \"arena_bytes\": %zu, "
               "\"weight_bytes\": %zu, \"smaller_than_in_order_percent\": %.2f, \"smaller_than_fp32_percent\": %.2f, "
               "\"error\": %.4f}",
               separator, ways[way].key, figures->layers[0], figures->layers[1], figures->layers[2],
               milliseconds(bench, way), faster(bench, way, INFER_WAY_IN_ORDER), faster(bench, way, INFER_WAY_FP32),
               figures->arena_bytes, figures->weight_bytes, smaller_percent(bench, way, INFER_WAY_IN_ORDER),
               smaller_percent(bench, way, INFER_WAY_FP32), figures->error);
        separator = ",";
    }
    printf("]}\n");
}

static int run(int argc, char **argv) {
    const char *rounds = "5", *model = "";
    bool json = false;
    const struct command_option options[] = {
        {"--rounds", &rounds, NULL}, {"--model", &model, NULL}, {"--json", NULL, &json}};
    struct bench bench = {0};
    struct err err = {0};
    struct config config;
    config_defaults(&config);
    if (command_options(argc, argv, options, sizeof options / sizeof *options) != 0 ||
        !command_integer(rounds, 1, BENCH_ROUNDS_MAX, &bench.rounds))
        return command_usage(&bench_precision);
    if ((*model && !config_set(&config, "model", model, &err)) || !config_set(&config, "backend", "cpu", &err) ||
        !config_set(&config, "precision", "fp32", &err) || !measure(&config, &bench, &err))
        return command_fail(&bench_precision, &err);
    json ? print_json(&bench) : print_table(&bench);
    return EXIT_DONE;
}

const struct command bench_precision = {"precision", "bench precision [--rounds N] [--model FILE] [--json]",
                                        "the detector in each precision: time, memory, error", run};
