/* Computes a stored result again from the stored images and compares every file of it byte for byte. */
#include "app/artifacts.h"
#include "app/command.h"
#include "app/finding_json.h"
#include "app/processes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct replay {
    struct store *store;
    struct engine engine;
    struct store_result result;
    struct bytes document; /* the stored analysis.json */
    struct analysis_run run;
    struct store_paths paths;
    char device_uid[DICOM_UID_SIZE];
};

static bool prepare(struct replay *replay, const struct config *config, int64_t id, struct err *err) {
    PULMO_SCOPED(findings_free) struct findings old = {0};
    char media_type[64];
    if (!store_result_get(replay->store, id, &replay->result, err) ||
        !store_artifact_read(replay->store, id, "analysis.json", &replay->document, media_type, err) ||
        !finding_json_read(&replay->document, &old, &replay->run, err) ||
        !store_study_paths(replay->store, replay->result.study_uid, &replay->paths, err) ||
        !finding_json_inputs(&replay->document, &replay->paths, err) ||
        !store_device_uid(replay->store, replay->device_uid, err) || !engine_open(config, &replay->engine, err))
        return false;
    const char *installed = infer_model_info(replay->engine.model)->sha256;
    if (strcmp(installed, replay->result.model_sha256) != 0)
        return err_set(err, ERR_NOT_FOUND, "the result was made by model %s, installed is %s",
                       replay->result.model_sha256, installed);
    if (strcmp(infer_backend_detail(replay->engine.session), replay->result.backend) != 0)
        fprintf(stderr, "the result was made by \"%s\", this machine has \"%s\": last digits may differ\n",
                replay->result.backend, infer_backend_detail(replay->engine.session));
    return true;
}

static bool same_content(const struct store_artifact *made, const struct bytes *stored, struct err *err) {
    if (strcmp(made->name, "analysis.json") != 0)
        return made->size == stored->size && memcmp(made->data, stored->data, made->size) == 0;
    struct bytes whole = {.size = made->size};
    memcpy(&whole.data, &made->data, sizeof whole.data);
    PULMO_SCOPED(bytes_free) struct bytes left = {0}, right = {0};
    return analysis_json_comparable(&whole, &left, err) && analysis_json_comparable(stored, &right, err) &&
           left.size == right.size && memcmp(left.data, right.data, left.size) == 0;
}

static int compare(struct replay *replay, const struct artifacts *made) {
    size_t different = 0;
    for (size_t index = 0; index < made->count; index++) {
        struct err err = {0};
        PULMO_SCOPED(bytes_free) struct bytes stored = {0};
        char media_type[64];
        const struct store_artifact *item = &made->items[index];
        if (store_artifact_read(replay->store, replay->result.id, item->name, &stored, media_type, &err) &&
            same_content(item, &stored, &err))
            continue;
        different++;
        printf("different: %s %s\n", item->name, err.text);
    }
    printf("result %lld: %zu files computed again, %zu identical, %zu different\n", (long long)replay->result.id,
           made->count, made->count - different, different);
    return different ? EXIT_FAILED : EXIT_DONE;
}

static bool compute(struct replay *replay, struct analysis *analysis, struct artifacts *made, struct err *err) {
    return analysis_make(&replay->engine, (const char *const *)replay->paths.items, replay->paths.count, &replay->run,
                         analysis, err) &&
           artifacts_make(analysis, &replay->engine, replay->device_uid, made, err);
}

static void replay_close(struct replay *replay) {
    bytes_free(&replay->document);
    store_paths_free(&replay->paths);
    if (replay->engine.model)
        engine_close(&replay->engine);
    if (replay->store)
        store_close(replay->store);
}

static int run(int argc, char **argv) {
    const char *config_path = NULL;
    const struct command_option options[] = {{"-c", &config_path, NULL}};
    int64_t id = 0;
    if (command_options(argc, argv, options, 1) != 1 || !command_integer(argv[0], 1, INT64_MAX, &id))
        return command_usage(&command_replay);
    struct config config;
    struct err err = {0};
    PULMO_SCOPED(replay_close) struct replay replay = {0};
    PULMO_SCOPED(analysis_free) struct analysis analysis = {0};
    PULMO_SCOPED(artifacts_free) struct artifacts made = {0};
    if (!command_config(config_path, &config, &err) || !(replay.store = processes_store_open(&config, &err)) ||
        !prepare(&replay, &config, id, &err) || !compute(&replay, &analysis, &made, &err))
        return command_fail(&command_replay, &err);
    return compare(&replay, &made);
}

const struct command command_replay = {"replay", "replay RESULT [-c FILE]",
                                       "compute a stored result again and compare it bit for bit", run};
