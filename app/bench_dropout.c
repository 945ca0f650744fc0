/* `pulmo bench dropout`: the whole study, from files to maps and reports, with 1, 30 and 100 Monte-Carlo passes, in
 * turns. Ratios are of one round, by the clock and by processor time, which shows the same on a busy machine. */
#include "app/artifacts.h"
#include "app/bench.h"

#include <stdio.h>
#include <stdlib.h>

static const uint32_t passes[] = {1, 30, 100};
#define WAYS (sizeof passes / sizeof *passes)
#define ONE 0

struct cost { /* of the study; of the stage that runs the passes, by processor time */
    double wall_s, processor_s, stage_s;
};
struct bench {
    int64_t slices, nodules, rounds;
    struct engine engine;
    struct bench_phantom phantom;
    struct cost costs[WAYS][BENCH_ROUNDS_MAX];
    size_t candidates, reported;
};

static void bench_end_at(struct bench **pointer) {
    if (!*pointer)
        return;
    engine_close(&(*pointer)->engine);
    bench_phantom_free(&(*pointer)->phantom);
    free(*pointer);
}

static bool study_run(struct bench *bench, uint32_t pass_count, struct cost *out, struct err *err) {
    PULMO_SCOPED(analysis_free) struct analysis analysis = {0};
    PULMO_SCOPED(artifacts_free) struct artifacts artifacts = {0};
    struct config config;
    config_defaults(&config);
    struct analysis_run run = analysis_run_configured(&config, bench->engine.model);
    run.passes = pass_count;
    const struct file_list *files = &bench->phantom.files;
    double wall_s = bench_wall_s(), processor_s = bench_processor_s();
    if (!analysis_make(&bench->engine, (const char *const *)files->items, files->count, &run, &analysis, err))
        return false;
    if (analysis.refusals.count)
        return err_set(err, ERR_INPUT, "the phantom is refused: %s", analysis.refusals.items[0].text);
    if (!artifacts_make(&analysis, &bench->engine, "2.25.1", &artifacts, err))
        return false;
    *out = (struct cost){bench_wall_s() - wall_s, bench_processor_s() - processor_s,
                         (double)analysis.processor.uncertainty / 1000};
    bench->candidates = analysis.findings.count;
    bench->reported = 0;
    for (size_t index = 0; index < analysis.findings.count; index++)
        bench->reported += analysis.findings.items[index].reported;
    return true;
}

/* Each round begins with another number of passes. The first study of all does not count: it compiles. */
static bool measure(struct bench *bench, struct err *err) {
    struct cost ignored;
    for (size_t way = 0; way < WAYS; way++)
        if (!infer_session_prepare(bench->engine.session, passes[way], err))
            return false;
    if (!study_run(bench, 1, &ignored, err))
        return false;
    for (int64_t round = 0; round < bench->rounds; round++)
        for (size_t turn = 0; turn < WAYS; turn++) {
            size_t way = (turn + (size_t)round) % WAYS;
            if (!study_run(bench, passes[way], &bench->costs[way][round], err))
                return false;
        }
    return true;
}

static double ratio(const struct bench *bench, size_t way, bool processor) {
    double ratios[BENCH_ROUNDS_MAX];
    for (int64_t round = 0; round < bench->rounds; round++) {
        const struct cost *cost = &bench->costs[way][round], *one = &bench->costs[ONE][round];
        ratios[round] = processor ? cost->processor_s / one->processor_s : cost->wall_s / one->wall_s;
    }
    return bench_median(ratios, (size_t)bench->rounds);
}

static struct cost medians(const struct bench *bench, size_t way) {
    double wall_s[BENCH_ROUNDS_MAX], processor_s[BENCH_ROUNDS_MAX], stage_s[BENCH_ROUNDS_MAX];
    for (int64_t round = 0; round < bench->rounds; round++) {
        wall_s[round] = bench->costs[way][round].wall_s;
        processor_s[round] = bench->costs[way][round].processor_s;
        stage_s[round] = bench->costs[way][round].stage_s;
    }
    size_t count = (size_t)bench->rounds;
    return (struct cost){bench_median(wall_s, count), bench_median(processor_s, count), bench_median(stage_s, count)};
}

static void print_table(const struct bench *bench) {
    printf("%s, %s; the whole study of %lld slices, %zu candidates, %zu reported; medians of %lld rounds\n",
           infer_backend_library(), infer_backend_instruction_set(), (long long)bench->slices, bench->candidates,
           bench->reported, (long long)bench->rounds);
    printf("%7s %10s %7s %12s %7s %18s\n", "passes", "clock s", "of one", "processor s", "of one", "in the passes, s");
    for (size_t way = 0; way < WAYS; way++) {
        struct cost cost = medians(bench, way);
        printf("%7u %10.2f %6.3fx %12.2f %6.3fx %18.3f\n", passes[way], cost.wall_s, ratio(bench, way, false),
               cost.processor_s, ratio(bench, way, true), cost.stage_s);
    }
}

static void print_json(const struct bench *bench) {
    printf("{\"bench\": \"dropout\", \"library\": \"%s\", \"instruction_set\": \"%s\", \"slices\": %lld, "
           "\"candidates\": %zu, \"reported\": %zu, \"rounds\": %lld, \"ways\": [",
           infer_backend_library(), infer_backend_instruction_set(), (long long)bench->slices, bench->candidates,
           bench->reported, (long long)bench->rounds);
    for (size_t way = 0; way < WAYS; way++) {
        struct cost cost = medians(bench, way);
        printf("%s\n {\"passes\": %u, \"wall_s\": %.3f, \"processor_s\": %.3f, \"stage_processor_s\": %.3f, "
               "\"wall_ratio\": %.4f, \"processor_ratio\": %.4f}",
               way ? "," : "", passes[way], cost.wall_s, cost.processor_s, cost.stage_s, ratio(bench, way, false),
               ratio(bench, way, true));
    }
    printf("]}\n");
}

static int run(int argc, char **argv) {
    const char *slices = "300", *nodules = "10", *rounds = "2", *folder = "/var/tmp";
    bool json = false;
    const struct command_option options[] = {{"--slices", &slices, NULL},
                                             {"--nodules", &nodules, NULL},
                                             {"--rounds", &rounds, NULL},
                                             {"--folder", &folder, NULL},
                                             {"--json", NULL, &json}};
    struct err err = {0};
    struct config config;
    config_defaults(&config);
    PULMO_SCOPED(bench_end_at) struct bench *bench = pulmo_alloc(1, sizeof *bench, &err);
    if (!bench)
        return command_fail(&bench_dropout, &err);
    if (command_options(argc, argv, options, sizeof options / sizeof *options) != 0 ||
        !command_integer(slices, 50, 1200, &bench->slices) || !command_integer(nodules, 1, 16, &bench->nodules) ||
        !command_integer(rounds, 1, BENCH_ROUNDS_MAX, &bench->rounds))
        return command_usage(&bench_dropout);
    const struct bench_phantom_config phantom = {folder, bench->slices, bench->nodules};
    if (!config_set(&config, "backend", "cpu", &err) || !engine_open(&config, &bench->engine, &err) ||
        !bench_phantom_make(&phantom, &bench->phantom, &err) || !measure(bench, &err))
        return command_fail(&bench_dropout, &err);
    (json ? print_json : print_table)(bench);
    return EXIT_DONE;
}

const struct command bench_dropout = {"dropout",
                                      "bench dropout [--slices N] [--nodules N] [--rounds N] [--folder DIR] [--json]",
                                      "the whole study with 1, 30 and 100 Monte-Carlo passes", run};
