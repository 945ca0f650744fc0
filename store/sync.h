/* One fdatasync for what several threads have written to a file. Any thread.
 *
 * Whoever is first in the queue while nobody leads it takes all that wait, syncs each of their files once, and wakes
 * them. Alone, a thread pays no switch to another. */
#ifndef PULMO_STORE_SYNC_H
#define PULMO_STORE_SYNC_H

#include <pthread.h>

#include "pulmo.h"

struct sync_ticket;
struct sync_queue {
    pthread_mutex_t lock;
    struct sync_ticket *first, **last;
    bool led;
    int fault; /* of who leads: errno of the first sync that failed, for ever */
};
void sync_queue_start(struct sync_queue *queue);
void sync_queue_stop(struct sync_queue *queue); /* after all who use it */

/* When true is returned, what this thread wrote to the descriptor before is durable. After a failure no later call
 * succeeds: the kernel tells of each lost page once, and a second sync could succeed although the first lost some. */
bool sync_shared(struct sync_queue *queue, int descriptor, struct err *err) PULMO_MUST_USE;

#endif
