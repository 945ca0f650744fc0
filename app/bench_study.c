/* `pulmo bench study`: one study as `pulmo analyze` sees it, each in a process of its own, for its peak memory is the
 * process's. Of 300 slices; with --sweep also of 50 to 1,200, and of 300 with more and fewer candidates. */
#include "app/bench.h"

#include "app/bench_study.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB 1048576.0
#define CASES_MAX 16

static const char *const stages[BENCH_STAGES] = {"read",    "resample", "detect", "uncertainty",
                                                 "segment", "explain",  "total"};

struct bench {
    const char *folder, *plots; /* plots: a folder, or NULL */
    int64_t threads, rounds;
    struct bench_study_row rows[CASES_MAX];
    size_t count;
};

static void json_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

/* ---- one study -------------------------------------------------------------------------------------------- */

static double number_of(const cJSON *object, const char *name) {
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static bool row_read(const cJSON *document, struct bench_study_row *out, struct err *err) {
    const char *status = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "status"));
    const cJSON *wall = cJSON_GetObjectItemCaseSensitive(document, "timings_ms");
    const cJSON *processor = cJSON_GetObjectItemCaseSensitive(document, "processor_ms");
    const cJSON *work = cJSON_GetObjectItemCaseSensitive(document, "work");
    const cJSON *findings = cJSON_GetObjectItemCaseSensitive(document, "findings"), *finding = NULL;
    if (!status || strcmp(status, "analysed") != 0)
        return err_set(err, ERR_INPUT, "a phantom of %lld slices was not analysed: %s", (long long)out->slices,
                       status ? status : "no status");
    for (int stage = 0; stage < BENCH_STAGES; stage++) {
        out->wall_s[stage] = number_of(wall, stages[stage]) / 1000;
        out->processor_s[stage] = number_of(processor, stages[stage]) / 1000;
    }
    out->peak_mib = number_of(document, "peak_rss_bytes") / MIB;
    out->busy_share = number_of(work, "busy_share");
    out->tiles = (int)number_of(work, "tiles");
    out->tiles_run = (int)number_of(work, "tiles_run");
    const char *precision = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "precision"));
    snprintf(out->precision, sizeof out->precision, "%s", precision ? precision : "");
    bool again = cJSON_HasObjectItem(work, "recompute_ms");
    out->again_s = again ? number_of(work, "recompute_ms") / 1000 : 0;
    out->again_processor_s = again ? number_of(work, "recompute_processor_ms") / 1000 : 0;
    out->candidates = cJSON_GetArraySize(findings);
    out->reported = 0;
    cJSON_ArrayForEach(finding, findings) {
        out->reported += cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(finding, "reported"));
    }
    return true;
}

static bool analyse(const struct bench *bench, const struct bench_phantom *phantom, struct bench_study_row *out,
                    struct err *err) {
    char program[4096], log[2100], threads[24];
    ssize_t size = readlink("/proc/self/exe", program, sizeof program - 1);
    if (size < 0)
        return err_set(err, ERR_IO, "cannot find the program itself");
    program[size] = '\0';
    snprintf(log, sizeof log, "%s.json", phantom->folder);
    snprintf(threads, sizeof threads, "%lld", (long long)bench->threads);
    const char *const arguments[] = {program, "analyze", phantom->folder, "--json", "--threads", threads, NULL};
    const struct bench_run run = {.arguments = arguments, .log = log};
    pid_t process = 0;
    PULMO_SCOPED(bytes_free) struct bytes text = {0};
    bool good = bench_spawn(&run, &process, err);
    int status = good ? bench_wait(process) : -1;
    good = good && bytes_read_file(log, (size_t)64 << 20, &text, err);
    unlink(log);
    if (!good)
        return false;
    PULMO_SCOPED(json_free_at) cJSON *document = cJSON_ParseWithLength((const char *)text.data, text.size);
    if (!document)
        return err_set(err, ERR_INTERNAL, "analyze ended with status %d and no document", status);
    return row_read(document, out, err);
}

/* The round that took the least processor time: what else runs only adds to it. */
static bool row_measure(const struct bench *bench, struct bench_study_row *row, struct err *err) {
    PULMO_SCOPED(bench_phantom_free) struct bench_phantom phantom = {0};
    const struct bench_phantom_config config = {bench->folder, row->slices, row->nodules};
    struct bench_study_row made = *row;
    if (!bench_phantom_make(&config, &phantom, err))
        return false;
    for (int64_t round = 0; round < bench->rounds; round++) {
        if (!analyse(bench, &phantom, &made, err))
            return false;
        if (round == 0 || made.processor_s[BENCH_TOTAL] < row->processor_s[BENCH_TOTAL])
            *row = made;
    }
    row->pitch_mm = phantom.pitch_mm;
    return true;
}

/* ---- all of them ------------------------------------------------------------------------------------------ */

static void row_add(struct bench *bench, int64_t slices, int64_t nodules) {
    bench->rows[bench->count++] = (struct bench_study_row){.slices = slices, .nodules = nodules};
}

static void rows_plan(struct bench *bench, int64_t slices, int64_t nodules, bool sweep) {
    static const int64_t others[] = {50, 100, 150, 600, 1200}, numbers[] = {0, 10, 16};
    row_add(bench, slices, nodules);
    for (size_t index = 0; sweep && index < sizeof others / sizeof *others; index++)
        row_add(bench, others[index], nodules);
    for (size_t index = 0; sweep && index < sizeof numbers / sizeof *numbers; index++)
        row_add(bench, slices, numbers[index]);
}

static void print_table(const struct bench *bench) {
    printf("%lld threads; seconds by the clock / by processor time; peak memory of the process\n",
           (long long)(bench->threads ? bench->threads : sysconf(_SC_NPROCESSORS_ONLN)));
    printf("%6s %5s %9s %11s %11s %11s %11s %11s %11s %13s %5s %6s %8s %9s %11s\n", "slices", "pitch", "findings",
           "read", "resample", "detect", "uncertainty", "segment", "explain", "total", "MiB", "busy", "tiles",
           "precision", "again");
    for (size_t index = 0; index < bench->count; index++) {
        const struct bench_study_row *row = &bench->rows[index];
        printf("%6lld %5.2f %4d/%4d", (long long)row->slices, row->pitch_mm, row->reported, row->candidates);
        for (int stage = 0; stage < BENCH_STAGES; stage++)
            printf(" %*.2f/%5.2f", stage == BENCH_TOTAL ? 7 : 5, row->wall_s[stage], row->processor_s[stage]);
        printf(" %5.0f %5.1f%% %3d/%4d %9s %5.2f/%5.2f\n", row->peak_mib, 100 * row->busy_share, row->tiles_run,
               row->tiles, row->precision, row->again_s, row->again_processor_s);
    }
    printf(
        "findings: reported / candidates; busy: time inside primitives of threads x clock of the tiles' stage; tiles: "
        "run / on the volume; again: in fp32, by the clock / inside primitives, a part of uncertainty\n");
}

static void print_json(const struct bench *bench) {
    printf("{\"bench\": \"study\", \"threads\": %lld, \"studies\": [", (long long)bench->threads);
    for (size_t index = 0; index < bench->count; index++) {
        const struct bench_study_row *row = &bench->rows[index];
        printf("%s\n {\"slices\": %lld, \"pitch_mm\": %.2f, \"nodules\": %lld, \"candidates\": %d, \"reported\": %d, "
               "\"peak_rss_mib\": %.1f, \"busy_share\": %.4f, \"tiles\": %d, \"tiles_run\": %d, \"precision\": \"%s\", "
               "\"again_s\": %.4f, "
               "\"again_processor_s\": %.4f",
               index ? "," : "", (long long)row->slices, row->pitch_mm, (long long)row->nodules, row->candidates,
               row->reported, row->peak_mib, row->busy_share, row->tiles, row->tiles_run, row->precision, row->again_s,
               row->again_processor_s);
        for (int stage = 0; stage < BENCH_STAGES; stage++)
            printf(", \"%s_s\": %.3f, \"%s_processor_s\": %.3f", stages[stage], row->wall_s[stage], stages[stage],
                   row->processor_s[stage]);
        printf("}");
    }
    printf("]}\n");
}

static int run(int argc, char **argv) {
    const char *slices = "300", *nodules = "5", *rounds = "1", *threads = "0";
    int64_t slice_count = 0, nodule_count = 0;
    bool json = false, sweep = false;
    struct bench bench = {.folder = "/var/tmp"};
    const struct command_option options[] = {{"--slices", &slices, NULL},       {"--nodules", &nodules, NULL},
                                             {"--rounds", &rounds, NULL},       {"--threads", &threads, NULL},
                                             {"--folder", &bench.folder, NULL}, {"--sweep", NULL, &sweep},
                                             {"--plots", &bench.plots, NULL},   {"--json", NULL, &json}};
    struct err err = {0};
    if (command_options(argc, argv, options, sizeof options / sizeof *options) != 0 ||
        !command_integer(slices, 50, 1200, &slice_count) || !command_integer(nodules, 0, 16, &nodule_count) ||
        !command_integer(rounds, 1, BENCH_ROUNDS_MAX, &bench.rounds) ||
        !command_integer(threads, 0, 32, &bench.threads))
        return command_usage(&bench_study);
    rows_plan(&bench, slice_count, nodule_count, sweep);
    for (size_t index = 0; index < bench.count; index++)
        if (!row_measure(&bench, &bench.rows[index], &err))
            return command_fail(&bench_study, &err);
    (json ? print_json : print_table)(&bench);
    if (bench.plots && !bench_study_plot(bench.rows, bench.count, bench.plots, &err))
        return command_fail(&bench_study, &err);
    return EXIT_DONE;
}

const struct command bench_study = {
    "study",
    "bench study [--slices N] [--nodules N] [--sweep] [--plots DIR] [--rounds N] [--threads N] [--folder DIR] [--json]",
    "time, memory and busy share of a whole study, and against slices and candidates", run};
