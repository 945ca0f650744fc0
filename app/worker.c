#include "app/worker.h"

#include "app/artifacts.h"
#include "app/models.h"
#include "log.h"

#include <stdio.h>
#include <string.h>

/* What the store needs to know of a result beside its files. */
static struct store_report report_of(const struct analysis *analysis, const struct engine *engine,
                                     const struct artifacts *artifacts, const char *reason) {
    struct store_report report = {
        .status = analysis->refusals.count ? STORE_REFUSED : STORE_ANALYSED,
        .series_uid = analysis->series ? analysis->series->series_uid : "",
        .reason = reason,
        .model_sha256 = infer_model_info(engine->model)->sha256,
        .backend = infer_backend_detail(engine->session),
        .artifacts = artifacts->items,
        .artifact_count = artifacts->count,
    };
    for (size_t index = 0; index < analysis->findings.count; index++) {
        const struct finding *finding = &analysis->findings.items[index];
        if (!finding->reported)
            continue;
        report.findings_reported++;
        report.review = report.review || finding->review;
        if (finding->probability > report.probability_max)
            report.probability_max = finding->probability;
    }
    return report;
}

static bool finish(struct appliance *appliance, const struct store_job *job, struct store_report report,
                   struct err *err) {
    for (size_t index = 0; index < report.artifact_count; index++)
        if (strcmp(report.artifacts[index].name, "analysis.json") == 0)
            report.summary_json = report.artifacts[index].data;
    int64_t result_id = 0;
    return store_job_finish(appliance->store, job, &report, &result_id, err);
}

static bool store_analysis(struct appliance *appliance, const struct store_job *job, struct analysis *analysis,
                           struct err *err) {
    PULMO_SCOPED(artifacts_free) struct artifacts artifacts = {0};
    if (!artifacts_make(analysis, &appliance->engine, appliance->device_uid, &artifacts, err))
        return false;
    char reason[256] = "";
    if (analysis->refusals.count)
        snprintf(reason, sizeof reason, "%s: %s", refusal_name(analysis->refusals.items[0].code),
                 analysis->refusals.items[0].text);
    return finish(appliance, job, report_of(analysis, &appliance->engine, &artifacts, reason), err);
}

bool job_error_is_permanent(const struct err *err) {
    return err->kind == ERR_INPUT || err->kind == ERR_UNSUPPORTED || err->kind == ERR_LIMIT;
}

static bool store_failure(struct appliance *appliance, const struct store_job *job, struct analysis *analysis,
                          const struct err *why, struct err *err) {
    PULMO_SCOPED(artifacts_free) struct artifacts artifacts = {0};
    if (!artifacts_make_failed(analysis, &appliance->engine, appliance->device_uid, why->text, &artifacts, err))
        return false;
    analysis->refusals.count = 0;
    findings_free(&analysis->findings);
    struct store_report report = report_of(analysis, &appliance->engine, &artifacts, why->text);
    report.status = STORE_FAILED;
    return finish(appliance, job, report, err);
}

/* The PACS has a report of the result that this one replaces, signed or not: the new one names it (PS3.3 C.17.2). A
 * failed result of unreadable files left none. */
static bool name_predecessor(struct appliance *appliance, const struct store_job *job, struct analysis_run *run,
                             struct err *err) {
    static const char *const names[] = {"signed-sr.dcm", "sr.dcm"};
    struct store_result former;
    if (!store_result_current(appliance->store, job->study_uid, &former, err))
        return false;
    for (size_t index = 0; former.id && index < sizeof names / sizeof *names; index++) {
        PULMO_SCOPED(bytes_free) struct bytes part10 = {0};
        struct instance report;
        struct err missing = {0};
        char media_type[64];
        if (!store_artifact_read(appliance->store, former.id, names[index], &part10, media_type, &missing)) {
            if (missing.kind != ERR_NOT_FOUND)
                return err_set(err, missing.kind, "%s", missing.text);
            continue;
        }
        if (!dicom_instance_parse(part10.data, part10.size, &report, err))
            return false;
        memcpy(run->predecessor_sop_instance_uid, report.sop_instance_uid, DICOM_UID_SIZE);
        memcpy(run->predecessor_series_uid, report.series_uid, DICOM_UID_SIZE);
        return true;
    }
    return true;
}

/* A device that is out is a fact of the machine, not of the study: it is audited once. What cannot be written now is
 * written after the next study. */
static void record_dropped(struct appliance *appliance, const struct store_job *job) {
    const struct infer_session *session = appliance->engine.session;
    for (unsigned device = 0; device < infer_session_devices(session); device++) {
        const struct err *why = infer_session_dropped(session, device);
        struct err unwritten = {0};
        char detail[128];
        if (!why || appliance->devices_dropped >> device & 1)
            continue;
        log_event(LOG_ERROR, "worker", "device dropped", "device=%u kind=\"%s\" reason=\"%s\"", device,
                  err_kind_name(why->kind), why->text);
        snprintf(detail, sizeof detail, "device %u of %u dropped: %s", device, infer_session_devices(session),
                 err_kind_name(why->kind));
        const struct store_audit audit = {.code = "110100",
                                          .action = "E",
                                          .actor = "worker",
                                          .address = "",
                                          .study_uid = job->study_uid,
                                          .detail = detail,
                                          .outcome = 4};
        if (store_audit_append(appliance->store, &audit, &unwritten))
            appliance->devices_dropped |= 1U << device;
        else
            log_err(LOG_WARNING, "worker", "drop not audited", &unwritten);
    }
}

/* One line where the back-end is another one than before, with the reason. */
static void log_backend(struct appliance *appliance) {
    const struct infer_session *session = appliance->engine.session;
    const char *name = infer_backend_name(session);
    if (appliance->backend && strcmp(appliance->backend, name) == 0)
        return;
    appliance->backend = name; /* a constant of the engine */
    log_event(infer_backend_stands_in(session) ? LOG_WARNING : LOG_INFO, "worker", "back-end",
              "name=%s wanted=%s detail=\"%s\" reason=\"%s\"", name, infer_backend_wanted_name(session),
              infer_backend_detail(session), infer_backend_reason(session));
}

bool job_analyse(struct appliance *appliance, const struct store_job *job, struct err *err) {
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    if (!store_study_verify(appliance->store, job->study_uid, err) ||
        !store_study_paths(appliance->store, job->study_uid, &paths, err))
        return false;
    struct analysis_run run = analysis_run_configured(appliance->config, appliance->engine.model);
    if (!name_predecessor(appliance, job, &run, err))
        return false;
    PULMO_SCOPED(analysis_free) struct analysis analysis = {0};
    struct err failure = {0};
    bool made =
        analysis_make(&appliance->engine, (const char *const *)paths.items, paths.count, &run, &analysis, &failure) &&
        store_analysis(appliance, job, &analysis, &failure);
    record_dropped(appliance, job);
    log_backend(appliance);
    if (made)
        return true;
    if (job_error_is_permanent(&failure)) {
        struct err unwritten = {0};
        if (store_failure(appliance, job, &analysis, &failure, &unwritten))
            return true;
        log_err(LOG_WARNING, "worker", "failure has no report", &unwritten);
    }
    return err_set(err, failure.kind, "%s", failure.text);
}

static void log_model(const struct engine *engine, const char *promoted) {
    const struct infer_model_info *info = infer_model_info(engine->model);
    log_event(LOG_INFO, "worker", "model opened", "name=%s version=%s sha256=%s by=%s backend=\"%s\" precision=%s",
              info->name, info->version, info->sha256, *promoted ? "promotion" : "configuration",
              infer_backend_detail(engine->session), engine_precision(engine));
}

/* What was promoted while the worker ran counts from this job on. */
static bool follow_model(struct appliance *appliance, struct err *err) {
    bool changed = false;
    if (!models_follow(appliance->config, appliance->store, appliance->model_sha256, &appliance->engine, &changed, err))
        return false;
    if (changed) {
        appliance->devices_dropped = 0; /* those of the new session are all in */
        log_model(&appliance->engine, appliance->model_sha256);
    }
    return true;
}

static bool job_any(struct appliance *appliance, const struct store_job *job, struct err *err) {
    if (job->kind == STORE_JOB_SIGN)
        return job_sign(appliance, job, err);
    if (job->kind == STORE_JOB_SHADOW)
        return job_shadow(appliance, job, err);
    return follow_model(appliance, err) && job_analyse(appliance, job, err);
}

static bool open_engine(struct appliance *appliance, struct err *err) {
    if (!store_model_active(appliance->store, appliance->model_sha256, err) ||
        !models_open(appliance->config, appliance->store, appliance->model_sha256, &appliance->engine, err))
        return false;
    log_model(&appliance->engine, appliance->model_sha256);
    return true;
}

static bool run(const struct config *config, int64_t idle_ms, struct err *err) {
    if (!dicom_ready(err))
        return false;
    struct appliance appliance = {.config = config, .idle_ms = idle_ms, .store = processes_store_open(config, err)};
    bool good = appliance.store && open_engine(&appliance, err);
    if (good) {
        log_backend(&appliance);
        good = store_device_uid(appliance.store, appliance.device_uid, err) &&
               job_loop(&appliance, 1U << STORE_JOB_ANALYSE | 1U << STORE_JOB_SIGN | 1U << STORE_JOB_SHADOW, job_any,
                        "worker", err);
        engine_close(&appliance.engine);
    }
    store_close(appliance.store);
    return good;
}

bool worker_run(const struct config *config, struct err *err) {
    return run(config, 0, err);
}

bool spare_run(const struct config *config, struct err *err) {
    return run(config, config->worker_idle_s * 1000, err);
}
