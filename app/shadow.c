/* The shadow: another model's opinion of a result's images, for comparison alone. Its engine is opened for the job and
 * closed after it, so that a worker holds two models no longer than it needs them. */
#include "app/models.h"
#include "app/worker.h"

#include <stdio.h>
#include <string.h>

static bool finish(struct appliance *appliance, const struct store_job *job, const struct analysis *analysis,
                   const struct engine *engine, const char *failure, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes document = {0};
    char reason[256] = "";
    if (!analysis_json(analysis, engine, failure, &document, err)) /* it ends in a NUL behind its size */
        return false;
    if (failure)
        snprintf(reason, sizeof reason, "%s", failure);
    else if (analysis->refusals.count)
        snprintf(reason, sizeof reason, "%s: %s", refusal_name(analysis->refusals.items[0].code),
                 analysis->refusals.items[0].text);
    struct store_report report = {.status = failure                    ? STORE_FAILED
                                            : analysis->refusals.count ? STORE_REFUSED
                                                                       : STORE_ANALYSED,
                                  .reason = reason,
                                  .summary_json = (const char *)document.data,
                                  .model_sha256 = infer_model_info(engine->model)->sha256};
    for (size_t index = 0; !failure && index < analysis->findings.count; index++)
        report.findings_reported += analysis->findings.items[index].reported;
    return store_shadow_finish(appliance->store, job, &report, err);
}

/* A failure that another attempt cannot mend is an answer, too: the comparison names it. */
static bool analyse(struct appliance *appliance, const struct store_job *job, struct engine *engine, struct err *err) {
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    PULMO_SCOPED(analysis_free) struct analysis analysis = {0};
    struct err failure = {0};
    if (!store_study_verify(appliance->store, job->study_uid, err) ||
        !store_study_paths(appliance->store, job->study_uid, &paths, err))
        return false;
    struct analysis_run run = analysis_run_configured(appliance->config, engine->model);
    if (analysis_make(engine, (const char *const *)paths.items, paths.count, &run, &analysis, &failure))
        return finish(appliance, job, &analysis, engine, NULL, err);
    if (!job_error_is_permanent(&failure))
        return err_set(err, failure.kind, "%s", failure.text);
    return finish(appliance, job, &analysis, engine, failure.text, err);
}

bool job_shadow(struct appliance *appliance, const struct store_job *job, struct err *err) {
    char sha256[65];
    struct engine engine;
    if (!store_shadow_begin(appliance->store, job, sha256, err))
        return false;
    if (!*sha256)
        return store_shadow_drop(appliance->store, job, err);
    if (!models_open(appliance->config, appliance->store, sha256, &engine, err))
        return err_within(err, "the shadow");
    bool good = analyse(appliance, job, &engine, err);
    engine_close(&engine);
    return good;
}
