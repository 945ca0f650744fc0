/* Shared by the processes that take jobs: the lease of the job at hand, kept alive by a thread of its own. */
#ifndef PULMO_APP_WORKER_H
#define PULMO_APP_WORKER_H

#include "app/analysis.h"
#include "app/processes.h"

struct lease; /* renews a job until lease_stop; uses a store handle of its own */
struct lease *lease_start(const struct config *config, const struct store_job *job, struct err *err);
void lease_stop(struct lease *lease);

/* One job of each kind. False with err: the job goes back to the queue, or to the dead letters. */
struct appliance { /* what the steps of a job need */
    const struct config *config;
    struct store *store;
    struct engine engine;
    char model_sha256[65]; /* of the promoted model that engine holds; "" = that of the configuration */
    char device_uid[DICOM_UID_SIZE];
    int64_t idle_ms;          /* the loop ends when no job came for so long; 0 = never */
    uint32_t devices_dropped; /* bit n = device n is out, and that is written down */
    const char *backend;      /* name of what ran last, as far as it is in the log */
};
bool job_analyse(struct appliance *appliance, const struct store_job *job, struct err *err) PULMO_MUST_USE;
/* The shadow's opinion of a result's images (app/shadow.c). */
bool job_shadow(struct appliance *appliance, const struct store_job *job, struct err *err) PULMO_MUST_USE;
/* What another attempt cannot mend is a failed result; a full disk or a lack of memory is tried again. */
bool job_error_is_permanent(const struct err *err);
bool job_sign(struct appliance *appliance, const struct store_job *job, struct err *err) PULMO_MUST_USE;

typedef bool job_step(struct appliance *appliance, const struct store_job *job, struct err *err);
/* Takes jobs of kinds_mask and hands them to step until stopped; folder names the loop in the log. */
bool job_loop(struct appliance *appliance, unsigned kinds_mask, job_step *step, const char *folder,
              struct err *err) PULMO_MUST_USE;

#endif
