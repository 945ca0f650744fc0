/* `pulmo bench plan`: what the planner made of the model's graphs: the arena against the most that is alive at once,
 * packed weights, what was fused, and where a layout still changes. A property of the model and the instruction set:
 * nothing is timed. */
#include "app/analysis.h"
#include "app/bench.h"

#include <stdio.h>

#define PASSES 30
#define MIB 1048576.0

static double over_percent(const struct infer_plan_figures *plan) {
    return plan->least_bytes ? 100.0 * (double)plan->arena_bytes / (double)plan->least_bytes - 100 : 0;
}

static void print_table(const struct infer_plan_figures *plans, size_t count) {
    printf("%-20s %9s %9s %6s %9s %9s %6s %5s %5s %5s %6s %5s %8s %8s %8s\n", "stage", "arena MiB", "bound MiB", "over",
           "apart MiB", "weights", "nodes", "convs", "+relu", "+sum", "joined", "attn", "winograd", "kernels",
           "reorders");
    for (size_t index = 0; index < count; index++) {
        const struct infer_plan_figures *plan = &plans[index];
        printf("%-20s %9.2f %9.2f %5.1f%% %9.2f %9.2f %6d %5d %5d %5d %6d %5d %8d %8d %8d\n", plan->stage,
               (double)plan->arena_bytes / MIB, (double)plan->least_bytes / MIB, over_percent(plan),
               (double)plan->separate_bytes / MIB, (double)plan->weight_bytes / MIB, plan->nodes, plan->convolutions,
               plan->relus, plan->residuals, plan->parts_in_place, plan->attentions, plan->winograds, plan->kernels,
               plan->reorders);
    }
    printf(
        "bound: the most that is alive in one step; apart: every buffer by itself; joined: inputs of Concat that are "
        "written where they join; weights: packed once, MiB, for "
        "all workers (%u), each of which has an arena\n",
        plans[0].workers);
}

static void print_json(const struct infer_plan_figures *plans, size_t count) {
    printf("{\"bench\": \"plan\", \"library\": \"%s\", \"instruction_set\": \"%s\", \"stages\": [",
           infer_backend_library(), infer_backend_instruction_set());
    for (size_t index = 0; index < count; index++) {
        const struct infer_plan_figures *plan = &plans[index];
        printf("%s\n {\"stage\": \"%s\", \"workers\": %u, \"arena_bytes\": %zu, \"bound_bytes\": %zu, "
               "\"over_percent\": %.2f, \"separate_bytes\": %zu, \"weight_bytes\": %zu, \"nodes\": %d, "
               "\"convolutions\": %d, \"relus_fused\": %d, \"residuals_fused\": %d, \"sums_in_place\": %d, "
               "\"parts_in_place\": %d, "
               "\"attentions_fused\": %d, \"primitives\": %d, \"winograds\": %d, \"kernels\": %d, \"reorders\": %d}",
               index ? "," : "", plan->stage, plan->workers, plan->arena_bytes, plan->least_bytes, over_percent(plan),
               plan->separate_bytes, plan->weight_bytes, plan->nodes, plan->convolutions, plan->relus, plan->residuals,
               plan->sums_in_place, plan->parts_in_place, plan->attentions, plan->primitives, plan->winograds,
               plan->kernels, plan->reorders);
    }
    printf("]}\n");
}

static bool measure(struct engine *engine, bool json, struct err *err) {
    struct infer_plan_figures plans[INFER_STAGES];
    size_t count = 0;
    if (!infer_session_prepare(engine->session, 1, err) || !infer_session_prepare(engine->session, PASSES, err))
        return false;
    for (int stage = 0; stage < INFER_STAGES; stage++)
        count += infer_session_plan(engine->session, stage, &plans[count]);
    (json ? print_json : print_table)(plans, count);
    return true;
}

static int run(int argc, char **argv) {
    const char *model = "", *precision = "fp32";
    bool json = false;
    const struct command_option options[] = {
        {"--model", &model, NULL}, {"--precision", &precision, NULL}, {"--json", NULL, &json}};
    struct err err = {0};
    struct config config;
    struct engine engine;
    if (command_options(argc, argv, options, sizeof options / sizeof *options) != 0)
        return command_usage(&bench_plan);
    config_defaults(&config);
    if (!config_set(&config, "backend", "cpu", &err) || (*model && !config_set(&config, "model", model, &err)) ||
        !config_set(&config, "precision", precision, &err) || !engine_open(&config, &engine, &err))
        return command_fail(&bench_plan, &err);
    bool good = measure(&engine, json, &err);
    engine_close(&engine);
    return good ? EXIT_DONE : command_fail(&bench_plan, &err);
}

const struct command bench_plan = {"plan", "bench plan [--precision fp32|auto] [--model FILE] [--json]",
                                   "memory plan, fusion and layouts of the model's graphs", run};
