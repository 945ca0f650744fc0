/* A leased job inside the transaction that finishes it. */
#ifndef PULMO_STORE_JOB_H
#define PULMO_STORE_JOB_H

#include "store/store.h"

/* ERR_CONFLICT unless the job is still leased under this lease. Needs an open transaction. */
bool job_held(struct store *store, const struct store_job *job, struct err *err) PULMO_MUST_USE;
bool job_done(struct store *store, const struct store_job *job, struct err *err) PULMO_MUST_USE;

#endif
