/* `pulmo bench attention`: the candidate network's Top-K attention beside dense attention of the same shape, three
 * primitives of oneDNN: operations and processor time of the block, and what it is of a tile of the detector. */
#include "app/analysis.h"
#include "app/bench.h"

#include <stdio.h>

#define TILES 3

static bool tile_measure(struct infer_session *session, double *best_s, struct err *err) {
    for (int tile = 0; tile < TILES; tile++) {
        double start_s = bench_processor_s();
        if (!infer_detector_run(session, 0, NULL, err))
            return false;
        double taken_s = bench_processor_s() - start_s;
        *best_s = tile == 0 || taken_s < *best_s ? taken_s : *best_s;
    }
    return true;
}

static void print(const struct infer_attention_figures *figures, double tile_s, bool json) {
    double operations = figures->sparse_operations / figures->dense_operations;
    double time = figures->dense_s / figures->sparse_s;
    if (json) {
        printf("{\"bench\": \"attention\", \"library\": \"%s\", \"instruction_set\": \"%s\", \"heads\": %lld, "
               "\"tokens\": %lld, \"depth\": %lld, \"keep\": %lld, \"dense_mflop\": %.3f, \"sparse_mflop\": %.3f, "
               "\"operations_ratio\": %.4f, \"dense_ms\": %.4f, \"sparse_ms\": %.4f, \"speed_ratio\": %.3f, "
               "\"tile_ms\": %.1f, \"share_of_a_tile\": %.6f}\n",
               infer_backend_library(), infer_backend_instruction_set(), (long long)figures->heads,
               (long long)figures->tokens, (long long)figures->depth, (long long)figures->keep,
               figures->dense_operations / 1e6, figures->sparse_operations / 1e6, operations, 1e3 * figures->dense_s,
               1e3 * figures->sparse_s, time, 1e3 * tile_s, figures->sparse_s / tile_s);
        return;
    }
    printf("%s, %s; attention of %lld heads over %lld tokens of %lld, the best %lld a query\n", infer_backend_library(),
           infer_backend_instruction_set(), (long long)figures->heads, (long long)figures->tokens,
           (long long)figures->depth, (long long)figures->keep);
    printf("operations: %.2f of %.2f million, %.0f %% fewer, the choice of the keys among them\n",
           figures->sparse_operations / 1e6, figures->dense_operations / 1e6, 100 - 100 * operations);
    printf("processor time of the block: %.3f ms, dense by oneDNN %.3f ms: %.2f times as fast\n",
           1e3 * figures->sparse_s, 1e3 * figures->dense_s, time);
    printf("it runs once a candidate, whatever the passes: %.4f %% of a tile of the detector (%.0f ms)\n",
           100 * figures->sparse_s / tile_s, 1e3 * tile_s);
}

static int run(int argc, char **argv) {
    const char *rounds = "200", *model = "";
    int64_t round_count = 0;
    bool json = false;
    const struct command_option options[] = {
        {"--rounds", &rounds, NULL}, {"--model", &model, NULL}, {"--json", NULL, &json}};
    struct err err = {0};
    struct config config;
    struct engine engine;
    struct infer_attention_figures figures;
    double tile_s = 0;
    if (command_options(argc, argv, options, sizeof options / sizeof *options) != 0 ||
        !command_integer(rounds, 1, 100000, &round_count))
        return command_usage(&bench_attention);
    config_defaults(&config);
    if (!config_set(&config, "backend", "cpu", &err) || (*model && !config_set(&config, "model", model, &err)) ||
        !engine_open(&config, &engine, &err))
        return command_fail(&bench_attention, &err);
    bool good = infer_attention_measure(engine.session, (int)round_count, &figures, &err) &&
                tile_measure(engine.session, &tile_s, &err);
    if (good)
        print(&figures, tile_s, json);
    engine_close(&engine);
    return good ? EXIT_DONE : command_fail(&bench_attention, &err);
}

const struct command bench_attention = {"attention", "bench attention [--rounds N] [--model FILE] [--json]",
                                        "Top-K attention beside dense attention", run};
