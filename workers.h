/* Shares independent jobs out over threads; a job's result depends on its index alone, never on who did it. */
#ifndef PULMO_WORKERS_H
#define PULMO_WORKERS_H

#include "pulmo.h"

#define WORKERS_MAX 32

/* worker is 0 .. threads - 1 and belongs to one thread during the call. */
typedef bool workers_job(void *context, unsigned worker, size_t index, struct err *err);

/* Runs jobs 0 .. count - 1; the caller's thread takes part. After a failure no new job starts; the error of the
 * lowest failed index is given. */
bool workers_run(unsigned threads, size_t count, workers_job *job, void *context, struct err *err) PULMO_MUST_USE;

/* [0, count) in one stretch a processor; what a stretch leaves must not depend on where it begins and ends. */
typedef bool workers_stretch(void *context, int32_t first, int32_t end, struct err *err);
bool workers_share(int32_t count, workers_stretch *stretch, void *context, struct err *err) PULMO_MUST_USE;

#endif
