/* What has happened must be written, also when the disk is full or fails just then: what was not written stays leased,
 * or open, long after there is room again. So it is tried until the store takes it, the process stops, or it is no
 * fault of the disk. */
#ifndef PULMO_APP_PERSIST_H
#define PULMO_APP_PERSIST_H

#include "pulmo.h"

#include <pthread.h>

struct store;

/* After a failed attempt: logs the first, waits a second. False when there is no point in another. */
struct persist {
    const char *folder, *event; /* of the log */
    bool logged;
};
bool persist_again(struct persist *persist, const struct err *failure);

/* Associations that ended while that could not be written. Any thread. */
#define PERSIST_CLOSINGS_MAX 1024
struct persist_closings {
    pthread_mutex_t lock; /* PTHREAD_MUTEX_INITIALIZER */
    uint64_t ids[PERSIST_CLOSINGS_MAX];
    size_t count;
};
void persist_closing_add(struct persist_closings *closings, uint64_t association_id);
/* Writes them; those that fail again stay. Cheap when there are none. */
bool persist_closings_write(struct persist_closings *closings, struct store *store, struct err *err) PULMO_MUST_USE;
bool persist_closings_any(struct persist_closings *closings);

#endif
