/* Group commit: what several threads have to write becomes one transaction, by a thread of the group's own.
 *
 * A ticket either has a thread that waits for its commit (group_run), or none (group_later): those without one are
 * gathered for up to 50 ms, since each commit is a sync of the database. Works are run in the order in which they
 * came. A work that fails takes none with it: the transaction is rolled back and each work runs again in one of its
 * own; one that nobody waits for is tried again until it succeeds. */
#ifndef PULMO_STORE_GROUP_H
#define PULMO_STORE_GROUP_H

#include <pthread.h>

#include "store/store.h"

struct group_ticket;
/* After the commit of a ticket that nobody waits for, on the group's thread and with its handle. False with
 * ticket->err: it is tried again. True: it is forgotten, and may be freed. */
typedef bool group_ended(struct store *store, struct group_ticket *ticket);

struct group_ticket {
    store_work *work; /* runs within the group's transaction, on its thread, maybe twice */
    void *context;
    group_ended *ended; /* of group_later */
    struct err err;     /* out */
    bool good, done;
    pthread_cond_t wake;
    struct group_ticket *next;
};

struct group_queue {
    struct group_ticket *first, **last;
    size_t count;
};

struct group {
    struct store *store; /* owned; of the thread */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct group_queue queue, failed; /* failed: of group_later, waits for another try */
    size_t waited_for;                /* threads in group_run */
    int64_t again_ms;                 /* monotonic: when what failed is tried again */
    struct err fault;                 /* of the last that failed */
    bool faulty;                      /* the last commit failed for the database's sake */
    bool started, stops;
};
/* Takes the store, NULL after an error, in which case nothing may be called but group_stop. */
bool group_start(struct group *group, struct store *store, struct err *err) PULMO_MUST_USE;
/* After all who use it: what waits is committed; what fails then is handed to forget. */
void group_stop(struct group *group, void (*forget)(struct group_ticket *ticket));

/* Runs ticket->work and commits it, with others. False with ticket->err when it was not committed. */
bool group_run(struct group *group, struct group_ticket *ticket) PULMO_MUST_USE;
/* The same without waiting. False when the last commit has failed, or something that nobody waits for waits for
 * another try: then the ticket was not taken, and who waits for its commit learns why. */
bool group_later(struct group *group, struct group_ticket *ticket) PULMO_MUST_USE;
/* False with why, when something waits for another try. */
bool group_is_well(struct group *group, struct err *why);

#endif
