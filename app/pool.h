/* How many analysis processes there should be: as many as studies wait or are being analysed, within limits. */
#ifndef PULMO_APP_POOL_H
#define PULMO_APP_POOL_H

#include "config.h"
#include "store/store.h"

#define POOL_WORKERS_MAX 32
#define POOL_WORKER_BYTES ((int64_t)1536 << 20) /* of one analysis: what 300 slices may take */

/* Between workers_min and the ceiling; only the supervisor's thread. */
struct pool {
    const struct config *config;
    struct store *store; /* opened when there is something to decide */
    int64_t floor, ceiling;
    int64_t due_ms; /* monotonic: the next look at the queue */
    int64_t wanted;
};
/* The ceiling is workers_max, or with 0 one a processor as far as the free memory goes. */
struct pool pool_begin(const struct config *config);
/* Looks at the queue, at most once a second. A store that cannot be asked leaves the number as it is. */
int64_t pool_wanted(struct pool *pool);
/* Lets go of the database, which opens again at the next look. */
void pool_release(struct pool *pool);
/* What that rule says: jobs that wait and jobs under way, within the limits. */
int64_t pool_size(int64_t open_jobs, int64_t floor, int64_t ceiling);

#endif
