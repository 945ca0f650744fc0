/* Which model looks at the studies: installed ones by their digest, one of them in use, the former one a step back. */
#include "app/command.h"
#include "app/install.h"
#include "app/model_check.h"
#include "app/model_report.h"
#include "app/precision.h"
#include "app/processes.h"
#include "app/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Who ran the command, for the audit trail. */
static const char *actor(void) {
    static char text[32];
    snprintf(text, sizeof text, "uid %u", (unsigned)getuid());
    return text;
}

/* ---- install ----------------------------------------------------------------------------------------- */

static bool check_runs(const struct config *config, const struct model_files *files, struct store_model *model,
                       struct model_check *check, struct err *err) {
    struct engine engine;
    if (!engine_open_files(config, files, &engine, err))
        return false;
    const struct infer_model_info *info = infer_model_info(engine.model);
    *model = (struct store_model){.files = (int64_t)files->count};
    snprintf(model->sha256, sizeof model->sha256, "%s", info->sha256);
    snprintf(model->name, sizeof model->name, "%s", info->name);
    snprintf(model->version, sizeof model->version, "%s", info->version);
    snprintf(model->actor, sizeof model->actor, "%s", actor());
    struct progress_clock clock;
    progress_clock_start(&clock, "checking on a phantom");
    bool runs = model_check(&engine, check, err) || err_within(err, "self-check");
    progress_clock_stop(&clock);
    engine_close(&engine);
    return runs;
}

static void print_installed(const struct store_model *model, const struct model_check *check, bool added) {
    printf("%s %s %s, sha256 %s\n", added ? "installed" : "already installed", model->name, model->version,
           model->sha256);
    if (check->found)
        printf("self-check: finds the phantom's nodule of %.1f mm, probability %.3f (%.3f to %.3f); %lld ms\n",
               check->nodule_mm, check->probability, check->lowest, check->highest, (long long)check->ms);
    else
        printf("self-check: computes, but does NOT find the phantom's nodule of %.1f mm; %lld ms\n", check->nodule_mm,
               (long long)check->ms);
    printf("not in use until it is promoted: pulmo model promote %.12s\n", model->sha256);
}

/* The files are read once: what was checked is what is kept. */
static int install(const struct config *config, const char *path) {
    struct err err = {0};
    struct store_model model;
    struct model_check check;
    bool added = false;
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    if (!infer_model_files_read(path, &files, &err) || !check_runs(config, &files, &model, &check, &err)) {
        int status = command_fail(&command_model, &err);
        return err.kind == ERR_INPUT || err.kind == ERR_UNSUPPORTED || err.kind == ERR_LIMIT ? EXIT_REFUSED : status;
    }
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(config, &err);
    if (!store || !store_model_install(store, &model, &files, &added, &err))
        return command_fail(&command_model, &err);
    print_installed(&model, &check, added);
    return EXIT_DONE;
}

/* ---- in use ------------------------------------------------------------------------------------------ */

static int promote(const struct config *config, const char *digest) {
    struct err err = {0};
    struct store_model model;
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(config, &err);
    if (!store || !store_model_find(store, digest, &model, &err) ||
        !store_model_promote(store, model.sha256, actor(), &err))
        return command_fail(&command_model, &err);
    printf("in use from the next study on: %s %s, sha256 %s\n", model.name, model.version, model.sha256);
    return EXIT_DONE;
}

static int rollback(const struct config *config) {
    struct err err = {0};
    struct store_model model;
    char sha256[65];
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(config, &err);
    if (!store || !store_model_rollback(store, actor(), sha256, &err))
        return command_fail(&command_model, &err);
    if (!*sha256)
        printf("in use from the next study on: the model of the configuration\n");
    else if (store_model_find(store, sha256, &model, &err))
        printf("in use from the next study on: %s %s, sha256 %s\n", model.name, model.version, model.sha256);
    else
        return command_fail(&command_model, &err);
    return EXIT_DONE;
}

/* ---- shadow ------------------------------------------------------------------------------------------ */

/* While nothing is promoted, the model in use is known to the configuration alone. */
static bool check_other(const struct config *config, struct store *store, const char *sha256, struct err *err) {
    char active[65], path[4096];
    struct err unknown = {0};
    if (!store_model_active(store, active, err))
        return false;
    if (*active || !install_find(config->model, "models/model.json", "models/model.json", path, &unknown))
        return true;
    struct infer_model *configured = infer_model_open(path, &unknown);
    bool same = configured && strcmp(infer_model_info(configured)->sha256, sha256) == 0;
    infer_model_free(configured);
    return !same || err_set(err, ERR_CONFLICT, "model %s is in use: there is nothing to compare", sha256);
}

/* digest NULL = no shadow any more. */
static int shadow(const struct config *config, const char *digest) {
    struct err err = {0};
    struct store_model model;
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(config, &err);
    if (!store ||
        (digest &&
         (!store_model_find(store, digest, &model, &err) || !check_other(config, store, model.sha256, &err))) ||
        !store_model_shadow(store, digest ? model.sha256 : NULL, actor(), &err))
        return command_fail(&command_model, &err);
    if (digest)
        printf("looks at every new study, too, for comparison alone: %s %s, sha256 %s (pulmo model compare)\n",
               model.name, model.version, model.sha256);
    else
        printf("no shadow any more\n");
    return EXIT_DONE;
}

/* ---- precision --------------------------------------------------------------------------------------- */

static void print_calibration(const struct infer_calibration *made) {
    char layers[64];
    precision_plan_text(&made->plan, layers, sizeof layers);
    if (made->refused_gain > 0)
        printf("precision        fp32: %.2f times as fast in lower precision is not worth it\n", made->refused_gain);
    else
        printf("precision        %s: %s\n", made->gain > 1 ? "mixed" : "fp32", layers);
    printf("layers           %s\ngain             %.2f times as fast as fp32, on the same tiles by turns\n"
           "error            %.2f of what is allowed, on %zu tiles\n"
           "memory           %.1f MB activations + %.1f MB weights; fp32 %.1f + %.1f\n",
           made->plan.layers, made->gain, made->error / INFER_ERROR_MAX, made->tiles, (double)made->arena_bytes / 1e6,
           (double)made->weight_bytes / 1e6, (double)made->fp32_arena_bytes / 1e6,
           (double)made->fp32_weight_bytes / 1e6);
}

/* Of the model in use, or of the file that is named. */
static int calibrate(const struct config *config, const struct model_request *request) {
    struct err err = {0};
    struct engine engine;
    struct infer_calibration made;
    struct config full = *config;
    if (!config_set(&full, "precision", "fp32", &err) || !model_open_shown(&full, request, NULL, &engine, &err))
        return command_fail(&command_model, &err);
    bool good = precision_calibrate(config, engine.model, &made, &err);
    engine_close(&engine);
    if (!good)
        return command_fail(&command_model, &err);
    print_calibration(&made);
    return EXIT_DONE;
}

/* ---- together ---------------------------------------------------------------------------------------- */

static int dispatch(const struct config *config, const struct model_request *request, int count, char **argv) {
    const char *verb = argv[0];
    if (!strcmp(verb, "list") && count == 1)
        return model_list(config, request);
    if (!strcmp(verb, "show") && count <= 2)
        return model_show(config, request, count == 2 ? argv[1] : NULL);
    if (!strcmp(verb, "compare") && count <= 2)
        return model_compare(config, request, count == 2 ? argv[1] : NULL);
    if (request->json)
        return command_usage(&command_model);
    if (!strcmp(verb, "shadow") && count + request->off == 2)
        return shadow(config, request->off ? NULL : argv[1]);
    if (request->off)
        return command_usage(&command_model);
    if (!strcmp(verb, "calibrate") && count == 1)
        return calibrate(config, request);
    if (!strcmp(verb, "install") && count == 2)
        return install(config, argv[1]);
    if (!strcmp(verb, "promote") && count == 2)
        return promote(config, argv[1]);
    if (!strcmp(verb, "rollback") && count == 1)
        return rollback(config);
    return command_usage(&command_model);
}

static int run(int argc, char **argv) {
    const char *config_path = NULL;
    struct model_request request = {.file = NULL};
    const struct command_option options[] = {{"-c", &config_path, NULL},
                                             {"--model", &request.file, NULL},
                                             {"--json", NULL, &request.json},
                                             {"--off", NULL, &request.off}};
    int count = command_options(argc, argv, options, 4);
    if (count < 1)
        return command_usage(&command_model);
    struct config config;
    struct err err = {0};
    if (!command_config(config_path, &config, &err) ||
        (request.file && !config_set(&config, "model", request.file, &err)))
        return command_fail(&command_model, &err);
    return dispatch(&config, &request, count, argv);
}

const struct command command_model = {
    "model",
    "model list [--json] | show [SHA256] [--model FILE] [--json] | install MODEL.JSON | promote SHA256 | rollback | "
    "shadow SHA256|--off | compare [SHA256] [--json] | calibrate    "
    "[-c FILE]",
    "which model looks at the studies; a digest's first digits are enough", run};
