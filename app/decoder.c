#include "app/artifacts.h"
#include "app/worker.h"

static void series_free_at(struct dicom_series **series) {
    dicom_series_free(*series);
}

static bool job_decode(struct appliance *appliance, const struct store_job *job, struct err *err) {
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    if (!store_study_verify(appliance->store, job->study_uid, err) ||
        !store_study_paths(appliance->store, job->study_uid, &paths, err))
        return false;
    PULMO_SCOPED(series_free_at)
    struct dicom_series *series = dicom_series_read((const char *const *)paths.items, paths.count, err);
    if (!series)
        return false;
    PULMO_SCOPED(artifacts_free) struct artifacts artifacts = {0};
    return artifacts_make_series(series, &artifacts, err) &&
           store_decode_finish(appliance->store, job, artifacts.items, artifacts.count, err);
}

bool decoder_run(const struct config *config, struct err *err) {
    if (!dicom_ready(err))
        return false;
    struct appliance appliance = {.config = config, .store = processes_store_open(config, err)};
    if (!appliance.store)
        return false;
    struct retention *retention = retention_start(config, err);
    bool good = retention && job_loop(&appliance, 1U << STORE_JOB_DECODE, job_decode, "decode", err);
    if (retention)
        retention_stop(retention);
    store_close(appliance.store);
    return good;
}
