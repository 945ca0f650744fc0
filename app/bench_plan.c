/* `pulmo bench plan`: what the planner made of the model's graphs: the arena against the most that is alive at once,
 * packed weights, what was fused, and where a layout still changes. A property of the model and the instruction set:
 * nothing is timed. */
#include "app/analysis.h"
#include "app/bench.h"
#include "infer/session.h"

#include <stdio.h>

#define PASSES 30
#define MIB 1048576.0

struct plan_row {
    const char *name;
    const struct program *program; /* of the session; NULL = the model has no such stage */
};

struct fused { /* nodes of a graph, and what fusion put into them */
    int nodes, convolutions, relus, residuals, attentions;
};

static struct fused count_fused(const struct graph *graph) {
    struct fused fused = {.nodes = graph->node_count};
    for (int index = 0; index < graph->node_count; index++) {
        const struct graph_node *node = &graph->nodes[index];
        fused.convolutions += node->operation->kind == OPERATOR_CONV;
        fused.relus += node->relu;
        fused.residuals += node->residual >= 0;
        fused.attentions +=
            node->operation == &infer_operator_topk_attention || node->operation == &infer_operator_topk_softmax;
    }
    return fused;
}

static double over_percent(const struct plan_figures *memory) {
    return memory->least ? 100.0 * (double)memory->arena / (double)memory->least - 100 : 0;
}

static void print_table(const struct plan_row *rows, size_t count, unsigned workers) {
    printf("%-20s %9s %9s %6s %9s %9s %6s %5s %5s %5s %5s %8s %8s\n", "stage", "arena MiB", "bound MiB", "over",
           "apart MiB", "weights", "nodes", "convs", "+relu", "+sum", "topk", "kernels", "reorders");
    for (size_t index = 0; index < count; index++) {
        const struct program_figures *figures = infer_program_figures(rows[index].program);
        const struct fused fused = count_fused(infer_program_graph(rows[index].program));
        printf("%-20s %9.2f %9.2f %5.1f%% %9.2f %9.2f %6d %5d %5d %5d %5d %8d %8d\n", rows[index].name,
               (double)figures->memory.arena / MIB, (double)figures->memory.least / MIB, over_percent(&figures->memory),
               (double)figures->memory.separate / MIB, (double)figures->weight_bytes / MIB, fused.nodes,
               fused.convolutions, fused.relus, fused.residuals, fused.attentions, figures->kernels, figures->reorders);
    }
    printf(
        "bound: the most that is alive in one step; apart: every buffer by itself; weights: packed once, MiB, for all "
        "%u workers, each of which has an arena\n",
        workers);
}

static void print_json(const struct plan_row *rows, size_t count, unsigned workers) {
    printf("{\"library\": \"%s\", \"instruction_set\": \"%s\", \"workers\": %u, \"stages\": [", infer_backend_library(),
           infer_backend_instruction_set(), workers);
    for (size_t index = 0; index < count; index++) {
        const struct program_figures *figures = infer_program_figures(rows[index].program);
        const struct fused fused = count_fused(infer_program_graph(rows[index].program));
        printf("%s\n {\"name\": \"%s\", \"arena_bytes\": %zu, \"bound_bytes\": %zu, \"over_percent\": %.2f, "
               "\"separate_bytes\": %zu, \"weight_bytes\": %zu, \"nodes\": %d, \"convolutions\": %d, "
               "\"relus_fused\": %d, \"residuals_fused\": %d, \"sums_in_place\": %d, \"attentions_fused\": %d, "
               "\"primitives\": %d, \"kernels\": %d, \"reorders\": %d}",
               index ? "," : "", rows[index].name, figures->memory.arena, figures->memory.least,
               over_percent(&figures->memory), figures->memory.separate, figures->weight_bytes, fused.nodes,
               fused.convolutions, fused.relus, fused.residuals, figures->sums_in_place, fused.attentions,
               figures->primitives, figures->kernels, figures->reorders);
    }
    printf("]}\n");
}

static bool measure(struct engine *engine, bool json, struct err *err) {
    struct infer_session *session = engine->session;
    if (!infer_session_tail(session, 1, err) || !infer_session_tail(session, PASSES, err))
        return false;
    const struct plan_row all[] = {{"detector, a tile", session->detector.program},
                                   {"candidate, trunk", session->trunk.program},
                                   {"candidate, 1 pass", infer_session_tail_of(session, 1)->program},
                                   {"candidate, 30 passes", infer_session_tail_of(session, PASSES)->program},
                                   {"quality gate", session->gate.program}};
    struct plan_row rows[sizeof all / sizeof *all];
    size_t count = 0;
    for (size_t index = 0; index < sizeof all / sizeof *all; index++)
        if (all[index].program)
            rows[count++] = all[index];
    (json ? print_json : print_table)(rows, count, session->threads);
    return true;
}

static int run(int argc, char **argv) {
    const char *model = "";
    bool json = false;
    const struct command_option options[] = {{"--model", &model, NULL}, {"--json", NULL, &json}};
    struct err err = {0};
    struct config config;
    struct engine engine;
    if (command_options(argc, argv, options, 2) != 0)
        return command_usage(&bench_plan);
    config_defaults(&config);
    if ((*model && !config_set(&config, "model", model, &err)) || !engine_open(&config, &engine, &err))
        return command_fail(&bench_plan, &err);
    bool good = measure(&engine, json, &err);
    engine_close(&engine);
    return good ? EXIT_DONE : command_fail(&bench_plan, &err);
}

const struct command bench_plan = {"plan", "bench plan [--model FILE] [--json]",
                                   "memory plan, fusion and layouts of the model's graphs", run};
