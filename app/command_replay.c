/* Computes a stored result again from the stored images, by the recorded values, with the recorded instruction set.
 *
 * Under the recorded conditions (model, back-end, library, instruction set, precision, program) every file must be the
 * same, byte for byte. Where a condition is not met it is named, and the probabilities have to agree within 1e-4. A
 * failed result is confirmed when it fails again with the same sentence, since that is what was computed. */
#include "app/command.h"
#include "app/models.h"
#include "app/processes.h"
#include "app/progress.h"
#include "app/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct replay {
    struct store *store;
    struct engine engine;
    struct store_result result;
    struct bytes document; /* the stored analysis.json */
    struct finding_origin origin;
    struct findings stored;
    struct analysis_run run;
    struct store_paths paths;
    char device_uid[DICOM_UID_SIZE];
    struct analysis analysis;
    struct artifacts made;
    struct err failure; /* of the analysis, computed again; kind ERR_NONE = it did not fail */
};

static void replay_close(struct replay *replay) {
    artifacts_free(&replay->made);
    analysis_free(&replay->analysis);
    findings_free(&replay->stored);
    bytes_free(&replay->document);
    store_paths_free(&replay->paths);
    if (replay->engine.model)
        engine_close(&replay->engine);
    store_close(replay->store);
}

/* Rows of images outlive their files, which retention may have given up. */
static bool check_images(const struct store_paths *paths, struct err *err) {
    size_t lost = 0;
    for (size_t index = 0; index < paths->count; index++)
        lost += access(paths->items[index], R_OK) != 0;
    return !lost || err_set(err, ERR_NOT_FOUND,
                            "missing: %zu of the %zu images that the result was made of were purged or lost; after the "
                            "PACS has sent them again it can be computed again",
                            lost, paths->count);
}

static bool read_result(struct replay *replay, int64_t id, struct err *err) {
    char media_type[64];
    return store_result_get(replay->store, id, &replay->result, err) &&
           store_artifact_read(replay->store, id, "analysis.json", &replay->document, media_type, err) &&
           finding_json_read(&replay->document, &replay->stored, &replay->run, err) &&
           finding_json_origin(&replay->document, &replay->origin, err) &&
           store_study_paths_all(replay->store, replay->result.study_uid, &replay->paths, err) &&
           finding_json_inputs(&replay->document, &replay->paths, err) && check_images(&replay->paths, err) &&
           store_device_uid(replay->store, replay->device_uid, err);
}

static bool missing_model(const struct finding_origin *origin, const char *why, struct err *err) {
    char reason[320];
    snprintf(reason, sizeof reason, "%s", why);
    return err_set(err, ERR_NOT_FOUND,
                   "missing: model %s, version %s, sha256 %s, by which the result was made; %s. pulmo model install "
                   "MODEL.JSON brings it back, --model MODEL.JSON takes it once",
                   origin->model_name, origin->model_version, origin->model_sha256, reason);
}

/* The one that is named, or the one that is installed under the recorded digest, or that of the configuration. */
static bool open_model(struct replay *replay, const struct config *config, bool named, struct err *err) {
    const char *sha256 = replay->origin.model_sha256;
    struct err why = {0};
    if (!named && *sha256 && models_open(config, replay->store, sha256, &replay->engine, &why))
        return true;
    if (why.kind && why.kind != ERR_NOT_FOUND)
        return err_set(err, why.kind, "%s", why.text);
    why = (struct err){0};
    return engine_open(config, &replay->engine, &why) || missing_model(&replay->origin, why.text, err);
}

/* The recorded layers, whatever the configuration says; on a processor that lacks a precision it stays fp32. */
static bool take_precision(struct replay *replay, const struct config *config, struct err *err) {
    struct err why = {0};
    if (strcmp(replay->origin.precision, "mixed") != 0 ||
        engine_set_precision(&replay->engine, config, &replay->origin.plan, &why))
        return true;
    if (why.kind != ERR_UNSUPPORTED)
        return err_set(err, why.kind, "%s", why.text);
    printf("missing: the recorded precision: %s\n", why.text);
    return true;
}

/* The model by its digest; another one would compute something else, not the same with other last digits. */
static bool open_engine(struct replay *replay, const struct config *config, bool named, struct err *err) {
    const struct finding_origin *origin = &replay->origin;
    struct err ignored = {0};
    char other[320];
    struct config pinned = *config; /* the back-end of the result, where this machine has it */
    enum infer_backend backend;
    if (infer_backend_find(origin->backend, &backend))
        snprintf(pinned.backend, sizeof pinned.backend, "%s", origin->backend);
    if (*origin->instruction_set && !infer_backend_limit(origin->instruction_set, &ignored))
        fprintf(stderr, "pulmo replay: %s\n", ignored.text);
    if (!config_set(&pinned, "precision", "fp32", err) || !open_model(replay, &pinned, named, err))
        return false;
    const struct infer_model_info *info = infer_model_info(replay->engine.model);
    if (strcmp(info->sha256, origin->model_sha256) == 0)
        return take_precision(replay, &pinned, err);
    snprintf(other, sizeof other, "%s is %s, version %s, sha256 %s",
             named ? "the one named" : "that of the configuration", info->name, info->version, info->sha256);
    return missing_model(origin, other, err);
}

/* As the worker does it, failures too. */
static bool compute(struct replay *replay, struct err *err) {
    if (analysis_make(&replay->engine, (const char *const *)replay->paths.items, replay->paths.count, &replay->run,
                      &replay->analysis, &replay->failure) &&
        artifacts_make(&replay->analysis, &replay->engine, replay->device_uid, &replay->made, &replay->failure))
        return true;
    return artifacts_make_failed(&replay->analysis, &replay->engine, replay->device_uid, replay->failure.text,
                                 &replay->made, err);
}

static const char *status_of(const struct replay *replay) {
    return replay->failure.kind ? "failed" : replay->analysis.refusals.count ? "refused" : "analysed";
}

/* What came out is of another kind than what is stored: no number can be compared. */
static int other_outcome(const struct replay *replay) {
    printf("result %lld %s, computed again it %s%s%s\n", (long long)replay->result.id, replay->origin.status,
           status_of(replay), replay->failure.kind ? ": " : "", replay->failure.text);
    if (*replay->origin.failure)
        printf("it had failed with: %s\n", replay->origin.failure);
    return EXIT_FAILED;
}

static int judge(const struct replay *replay, const struct replay_files *files, size_t differing) {
    bool identical = files->identical == files->made;
    static const struct findings none = {0};
    printf("result %lld (%s): %zu files computed again, %zu identical, %zu different\n", (long long)replay->result.id,
           replay->origin.status, files->made, files->identical, files->made - files->identical);
    if (identical) {
        if (replay->failure.kind)
            printf("confirmed: it fails again with the same reason: %s\n", replay->failure.text);
        return EXIT_DONE;
    }
    bool agrees = replay->failure.kind
                      ? strcmp(replay->failure.text, replay->origin.failure) == 0
                      : replay_compare_findings(&replay->stored,
                                                replay->analysis.refusals.count ? &none : &replay->analysis.findings);
    if (!differing)
        printf("under the recorded conditions every file should be identical: files of the store were changed, or this "
               "machine computes otherwise\n");
    return differing && agrees ? EXIT_DONE : EXIT_FAILED;
}

static int replay_result(struct replay *replay, const struct config *config, bool named, int64_t id) {
    struct err err = {0};
    struct replay_files files = {0};
    struct progress_clock clock;
    if (!read_result(replay, id, &err) || !open_engine(replay, config, named, &err))
        return command_fail(&command_replay, &err);
    progress_clock_start(&clock, "computing again");
    bool computed = compute(replay, &err);
    progress_clock_stop(&clock);
    if (!computed)
        return command_fail(&command_replay, &err);
    struct analysis_run configured = analysis_run_configured(config, replay->engine.model);
    size_t differing = replay_print_conditions(&replay->origin, &replay->engine);
    replay_print_configuration(&replay->run, &configured);
    if (strcmp(status_of(replay), replay->origin.status) != 0)
        return other_outcome(replay);
    if (!replay_compare_files(replay->store, id, &replay->made, &files, &err))
        return command_fail(&command_replay, &err);
    return judge(replay, &files, differing);
}

static int run(int argc, char **argv) {
    const char *config_path = NULL, *model = NULL;
    const struct command_option options[] = {{"-c", &config_path, NULL}, {"--model", &model, NULL}};
    int64_t id = 0;
    if (command_options(argc, argv, options, 2) != 1 || !command_integer(argv[0], 1, INT64_MAX, &id))
        return command_usage(&command_replay);
    struct config config;
    struct err err = {0};
    PULMO_SCOPED(replay_close) struct replay replay = {0};
    if (!command_config(config_path, &config, &err) || (model && !config_set(&config, "model", model, &err)) ||
        !(replay.store = processes_store_open(&config, &err)))
        return command_fail(&command_replay, &err);
    return replay_result(&replay, &config, model != NULL, id);
}

const struct command command_replay = {"replay", "replay RESULT [--model FILE] [-c FILE]",
                                       "compute a stored result again: the same bytes, or what differs and by how much",
                                       run};
