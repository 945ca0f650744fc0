#include "app/artifacts.h"
#include "app/command.h"
#include "app/progress.h"
#include "digest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct request {
    const char *out, *config_path, *model, *threads, *passes, *dropout, *seed, *operating_point, *backend;
    bool json;
};

/* Command-line values override the file's. */
static bool configure(const struct request *request, struct config *config, struct err *err) {
    if (!command_config(request->config_path, config, err))
        return false;
    const char *const overrides[][2] = {{"model", request->model},    {"threads", request->threads},
                                        {"passes", request->passes},  {"dropout", request->dropout},
                                        {"seed", request->seed},      {"operating_point", request->operating_point},
                                        {"backend", request->backend}};
    for (size_t index = 0; index < sizeof overrides / sizeof *overrides; index++)
        if (overrides[index][1] && !config_set(config, overrides[index][0], overrides[index][1], err))
            return false;
    return true;
}

static bool make_folder(const char *path, struct err *err) {
    if (mkdir(path, 0750) == 0 || errno == EEXIST)
        return true;
    return err_set(err, ERR_IO, "cannot make the folder %s: %s", path, strerror(errno));
}

/* The folders in the artifact's own name, "overlay/cam". */
static bool make_folders(const char *out, const char *name, struct err *err) {
    char path[4096];
    for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(path, sizeof path, "%s/%.*s", out, (int)(slash - name), name);
        if (!make_folder(path, err))
            return false;
    }
    return true;
}

static bool write_out(const char *out, const struct artifacts *artifacts, struct err *err) {
    for (size_t index = 0; index < artifacts->count; index++) {
        const struct store_artifact *item = &artifacts->items[index];
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", out, item->name);
        if (!make_folders(out, item->name, err) || !bytes_write_file(path, item->data, item->size, false, err))
            return false;
    }
    return true;
}

static void print_summary(const struct analysis *analysis) {
    size_t reported = 0;
    for (size_t index = 0; index < analysis->findings.count; index++) {
        const struct finding *finding = &analysis->findings.items[index];
        if (!finding->reported)
            continue;
        reported++;
        char axes[64] = "";
        if (finding->long_axis_mm > 0) /* of the mask, which may run along a vessel */
            snprintf(axes, sizeof axes, " (mask %.1f x %.1f)", finding->long_axis_mm, finding->short_axis_mm);
        printf("%u. %.0f %% (%.0f to %.0f %%), %.1f mm%s, %s, lobe %s, at LPS %.1f %.1f %.1f mm%s\n", finding->id,
               100 * finding->probability, 100 * finding->probability_low, 100 * finding->probability_high,
               finding->diameter_mm, axes, texture_name(finding->texture), lobe_name(finding->lobe),
               finding->center_lps_mm[0], finding->center_lps_mm[1], finding->center_lps_mm[2],
               finding->review ? ", uncertain: review" : "");
    }
    printf("%zu finding%s reported of %zu candidates, %zu slices of %.2f mm, %lld ms\n%s\n", reported,
           reported == 1 ? "" : "s", analysis->findings.count, analysis->series->slice_count,
           analysis->series->slice_spacing_mm, (long long)analysis->timings.total, PULMO_NOT_FOR_DIAGNOSIS);
}

static void print_refusals(const struct refusals *refusals) {
    for (size_t index = 0; index < refusals->count; index++)
        fprintf(stderr, "refused: %s: %s\n", refusal_name(refusals->items[index].code), refusals->items[index].text);
}

static int report(const struct request *request, struct engine *engine, struct analysis *analysis,
                  const struct err *failure) {
    struct err err = {0};
    /* A command-line run belongs to no installation: its observer is named after the model's digest. */
    char device_uid[DICOM_UID_SIZE];
    PULMO_SCOPED(artifacts_free) struct artifacts artifacts = {0};
    const char *failed = failure->kind ? failure->text : NULL;
    bool good = dicom_uid_derive(infer_model_info(engine->model)->sha256, device_uid, &err) &&
                (failed ? artifacts_make_failed(analysis, engine, device_uid, failed, &artifacts, &err)
                        : artifacts_make(analysis, engine, device_uid, &artifacts, &err)) &&
                (!request->out || write_out(request->out, &artifacts, &err));
    if (!good)
        return command_fail(&command_analyze, &err);
    if (request->json) { /* analysis.json is always the last one made */
        const struct store_artifact *document = &artifacts.items[artifacts.count - 1];
        fwrite(document->data, 1, document->size, stdout);
        putchar('\n');
    } else if (!failed && !analysis->refusals.count) {
        print_summary(analysis);
    }
    if (failed)
        return command_fail(&command_analyze, failure);
    print_refusals(&analysis->refusals);
    return analysis->refusals.count ? EXIT_REFUSED : EXIT_DONE;
}

static int run(int argc, char **argv) {
    struct request request = {0};
    const struct command_option options[] = {{"--out", &request.out, NULL},
                                             {"--json", NULL, &request.json},
                                             {"-c", &request.config_path, NULL},
                                             {"--model", &request.model, NULL},
                                             {"--threads", &request.threads, NULL},
                                             {"--passes", &request.passes, NULL},
                                             {"--dropout", &request.dropout, NULL},
                                             {"--seed", &request.seed, NULL},
                                             {"--operating-point", &request.operating_point, NULL},
                                             {"--backend", &request.backend, NULL}};
    int count = command_options(argc, argv, options, sizeof options / sizeof *options);
    if (count < 1)
        return command_usage(&command_analyze);
    struct err err = {0};
    struct config config;
    PULMO_SCOPED(file_list_free) struct file_list files = {0};
    struct engine engine;
    if (!configure(&request, &config, &err) || (request.out && !make_folder(request.out, &err)) ||
        !file_list_make((const char *const *)argv, (size_t)count, &files, &err) || !engine_open(&config, &engine, &err))
        return command_fail(&command_analyze, &err);
    struct analysis_run run_of = analysis_run_configured(&config, engine.model);
    PULMO_SCOPED(analysis_free) struct analysis analysis = {0};
    struct err failure = {0};
    struct progress_clock clock;
    progress_clock_start(&clock, "analysing");
    if (!analysis_make(&engine, (const char *const *)files.items, files.count, &run_of, &analysis, &failure) &&
        !failure.kind)
        err_set(&failure, ERR_INTERNAL, "the analysis failed without a reason");
    progress_clock_stop(&clock);
    if (infer_backend_stands_in(engine.session))
        fprintf(stderr, "pulmo analyze: on the processor: %s\n", infer_backend_reason(engine.session));
    int status = report(&request, &engine, &analysis, &failure);
    engine_close(&engine);
    return status;
}

const struct command command_analyze = {
    "analyze",
    "analyze PATH... [--out DIR] [--json] [-c FILE] [--model FILE] [--threads N] [--passes N] [--dropout P] [--seed N] "
    "[--operating-point P] [--backend NAME]",
    "one study from files, without a server", run};
