/* Group commit: what several threads have to write becomes one transaction, with one sync of each file before it.
 *
 * Whoever comes first while nobody commits leads: it takes what waits, syncs the files, runs every work in one
 * transaction on the group's own handle, commits, and wakes the others. A work that fails takes none with it: the
 * transaction is rolled back and each work runs again in one of its own. Alone, a thread pays no switch to another.
 * Any thread. */
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
    struct group_ticket *next;
};

struct group {
    struct store *store; /* owned */
    pthread_mutex_t lock;
    struct group_ticket *first, **last;
    bool leading;   /* some thread commits */
    int sync_fault; /* the leader's: errno of the first sync that failed, for ever */
};
void group_start(struct group *group, struct store *store);
void group_stop(struct group *group); /* after all who use it */

/* Runs ticket->work and commits it, with others. False with ticket->err when it was not committed. */
bool group_run(struct group *group, struct group_ticket *ticket) PULMO_MUST_USE;

#endif
