#include "app/model_report.h"

#include "app/command.h"
#include "app/install.h"
#include "app/models.h"
#include "app/precision.h"
#include "app/processes.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void cjson_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

static int print_json(const cJSON *document) {
    PULMO_SCOPED(pulmo_free_at) char *text = cJSON_Print(document);
    struct err err = {0};
    if (text)
        printf("%s\n", text);
    else
        err_set(&err, ERR_MEMORY, "out of memory for the document");
    return text ? EXIT_DONE : command_fail(&command_model, &err);
}

/* A question makes no store: *out is NULL where there is none yet. */
static bool open_existing(const struct config *config, struct store **out, struct err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/pulmo.db", config->data_folder);
    *out = NULL;
    if (access(path, F_OK) != 0)
        return true;
    *out = processes_store_open(config, err);
    return *out != NULL;
}

/* ---- list -------------------------------------------------------------------------------------------- */

struct listing {
    struct store_model *models;
    size_t count;
    char active[65];
    struct infer_model *configured; /* NULL with why */
    struct err why;
};

static void listing_free(struct listing *listing) {
    free(listing->models);
    infer_model_free(listing->configured);
}

static bool listing_read(const struct config *config, struct listing *out, struct err *err) {
    PULMO_SCOPED(store_close_at) struct store *store = NULL;
    char path[4096];
    if (!open_existing(config, &store, err) || (store && (!store_model_list(store, &out->models, &out->count, err) ||
                                                          !store_model_active(store, out->active, err))))
        return false;
    if (install_find(config->model, "models/model.json", "models/model.json", path, &out->why))
        out->configured = infer_model_open(path, &out->why);
    return true;
}

static void print_day(int64_t time_ms) {
    time_t seconds = (time_t)(time_ms / 1000);
    struct tm day;
    char text[32] = "";
    if (localtime_r(&seconds, &day))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M", &day);
    printf("%s", text);
}

static void print_listing(const struct listing *listing) {
    for (size_t index = 0; index < listing->count; index++) {
        const struct store_model *model = &listing->models[index];
        printf("%.16s  %-9s  %s %s, %lld result%s, installed ", model->sha256, model->state, model->name,
               model->version, (long long)model->results, model->results == 1 ? "" : "s");
        print_day(model->installed_ms);
        printf(" by %s\n", model->actor);
    }
    if (!listing->configured) {
        printf("configuration: %s\n", listing->why.text);
        return;
    }
    const struct infer_model_info *info = infer_model_info(listing->configured);
    printf("%.16s  %-9s  %s %s, of the configuration%s\n", info->sha256, *listing->active ? "default" : "in use",
           info->name, info->version, *listing->active ? "; in use when no model is promoted" : "");
}

static void add_model(cJSON *list, const struct store_model *model) {
    cJSON *item = cJSON_CreateObject();
    cJSON_AddItemToArray(list, item);
    cJSON_AddStringToObject(item, "sha256", model->sha256);
    cJSON_AddStringToObject(item, "name", model->name);
    cJSON_AddStringToObject(item, "version", model->version);
    cJSON_AddStringToObject(item, "state", model->state);
    cJSON_AddStringToObject(item, "installed_by", model->actor);
    cJSON_AddNumberToObject(item, "installed_ms", (double)model->installed_ms);
    if (model->promoted_ms)
        cJSON_AddNumberToObject(item, "promoted_ms", (double)model->promoted_ms);
    cJSON_AddNumberToObject(item, "results", (double)model->results);
    cJSON_AddNumberToObject(item, "files", (double)model->files);
    cJSON_AddNumberToObject(item, "size_bytes", (double)model->size_bytes);
}

static cJSON *listing_json(const struct listing *listing) {
    cJSON *document = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(document, "models");
    for (size_t index = 0; index < listing->count; index++)
        add_model(list, &listing->models[index]);
    cJSON *configuration = cJSON_AddObjectToObject(document, "configuration");
    if (listing->configured) {
        const struct infer_model_info *info = infer_model_info(listing->configured);
        cJSON_AddStringToObject(configuration, "sha256", info->sha256);
        cJSON_AddStringToObject(configuration, "name", info->name);
        cJSON_AddStringToObject(configuration, "version", info->version);
    } else {
        cJSON_AddStringToObject(configuration, "error", listing->why.text);
    }
    cJSON_AddBoolToObject(configuration, "in_use", !*listing->active);
    return document;
}

int model_list(const struct config *config, const struct model_request *request) {
    PULMO_SCOPED(listing_free) struct listing listing = {.count = 0};
    struct err err = {0};
    if (!listing_read(config, &listing, &err))
        return command_fail(&command_model, &err);
    if (!request->json) {
        print_listing(&listing);
        return EXIT_DONE;
    }
    PULMO_SCOPED(cjson_free_at) cJSON *document = listing_json(&listing);
    return print_json(document);
}

/* ---- show -------------------------------------------------------------------------------------------- */

static bool find_digest(struct store *store, const char *prefix, char sha256[65], struct err *err) {
    struct store_model model;
    if (!store)
        return err_set(err, ERR_NOT_FOUND, "no model %s is installed: there is no store yet", prefix);
    if (!store_model_find(store, prefix, &model, err))
        return false;
    memcpy(sha256, model.sha256, sizeof model.sha256);
    return true;
}

bool model_open_shown(const struct config *config, const struct model_request *request, const char *digest,
                      struct engine *out, struct err *err) {
    PULMO_SCOPED(store_close_at) struct store *store = NULL;
    char sha256[65] = "";
    if (request->file)
        return engine_open(config, out, err);
    if (!open_existing(config, &store, err) || (digest && !find_digest(store, digest, sha256, err)) ||
        (!digest && store && !store_model_active(store, sha256, err)))
        return false;
    return models_open(config, store, sha256, out, err);
}

static void print_shown(const struct engine *engine) {
    const struct infer_model_info *info = infer_model_info(engine->model);
    printf("name             %s\nversion          %s\nsha256           %s\nbackend          %s (%s)\n"
           "operating point  %.4f\npasses           %u\nmirror images    %u\ndropout          %.3f\n",
           info->name, info->version, info->sha256, infer_backend_name(engine->session),
           infer_backend_detail(engine->session), info->operating_point, info->passes, info->flips, info->dropout);
    const struct infer_precision *plan = infer_session_precision(engine->session);
    char layers[64] = "all layers";
    if (plan)
        precision_plan_text(plan, layers, sizeof layers);
    printf("precision        %s (%s)\n", engine_precision(engine), layers);
}

static int print_shown_json(const struct engine *engine) {
    const struct infer_model_info *info = infer_model_info(engine->model);
    PULMO_SCOPED(cjson_free_at) cJSON *document = cJSON_CreateObject();
    cJSON_AddStringToObject(document, "name", info->name);
    cJSON_AddStringToObject(document, "version", info->version);
    cJSON_AddStringToObject(document, "sha256", info->sha256);
    cJSON_AddStringToObject(document, "backend", infer_backend_name(engine->session));
    cJSON_AddStringToObject(document, "backend_detail", infer_backend_detail(engine->session));
    cJSON_AddStringToObject(document, "precision", engine_precision(engine));
    cJSON_AddNumberToObject(document, "operating_point", info->operating_point);
    cJSON_AddNumberToObject(document, "passes", info->passes);
    cJSON_AddNumberToObject(document, "flips", info->flips);
    cJSON_AddNumberToObject(document, "dropout", info->dropout);
    return print_json(document);
}

int model_show(const struct config *config, const struct model_request *request, const char *digest) {
    struct engine engine;
    struct err err = {0};
    int status = EXIT_DONE;
    if (request->file && digest)
        return command_usage(&command_model);
    if (!model_open_shown(config, request, digest, &engine, &err))
        return command_fail(&command_model, &err);
    if (request->json)
        status = print_shown_json(&engine);
    else
        print_shown(&engine);
    engine_close(&engine);
    return status;
}
