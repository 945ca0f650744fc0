/* Group commit: what several threads have to write becomes one transaction, with one sync of each file before it.
 *
 * Two queues: for the sync, then for the commit, which is synced as well. Whoever is first in a queue that nobody leads
 * leads it: takes what waits there, syncs the files and passes all on; or runs every work in one transaction on the
 * group's own handle, commits, and wakes the others. So the files of the next are synced while the former are
 * committed. A work that fails takes none with it: the transaction is rolled back and each work runs again in one of
 * its own. Alone, a thread pays no switch to another. Any thread. */
#ifndef PULMO_STORE_GROUP_H
#define PULMO_STORE_GROUP_H

#include <pthread.h>

#include "store/store.h"

/* One thread's part; on its stack while it waits. */
struct group_ticket {
    store_work *work; /* runs within the group's transaction, on any thread that waits in the group, maybe twice */
    void *context;
    int descriptor;   /* file that must be synced before the work's commit; -1 = none */
    bool sync_failed; /* out: that sync failed, so nothing was run */
    struct err err;   /* out */
    bool good, done;
    pthread_cond_t wake;
    struct group_queue *queue; /* where it waits */
    struct group_ticket *next;
};

struct group_queue {
    struct group_ticket *first, **last;
    bool led;
};

struct group {
    struct store *store; /* owned */
    pthread_mutex_t lock;
    struct group_queue syncs, commits;
    int sync_fault; /* of who leads the syncs: errno of the first that failed, for ever */
};
void group_start(struct group *group, struct store *store);
void group_stop(struct group *group); /* after all who use it */

/* Runs ticket->work and commits it, with others. False with ticket->err when it was not committed. */
bool group_run(struct group *group, struct group_ticket *ticket) PULMO_MUST_USE;

#endif
