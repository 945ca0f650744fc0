#include "store/group.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/handle.h"

/* Bounds how long the first of a group waits for the last. */
#define GROUP_MAX 64

void group_start(struct group *group, struct store *store) {
    *group = (struct group){.store = store};
    group->syncs.last = &group->syncs.first;
    group->commits.last = &group->commits.first;
    pthread_mutex_init(&group->lock, NULL);
}

void group_stop(struct group *group) {
    pthread_mutex_destroy(&group->lock);
    store_close(group->store);
}

/* ---- queues; the lock is held -------------------------------------------------------------------------- */

static void queue_add(struct group_queue *queue, struct group_ticket *ticket) {
    ticket->queue = queue;
    ticket->next = NULL;
    *queue->last = ticket;
    queue->last = &ticket->next;
}

/* The tickets that one leader takes on. */
struct batch {
    struct group_ticket *items[GROUP_MAX];
    size_t count;
};

static struct batch batch_take(struct group_queue *queue) {
    struct batch batch = {.count = 0};
    while (queue->first && batch.count < GROUP_MAX) {
        batch.items[batch.count++] = queue->first;
        queue->first = queue->first->next;
    }
    if (!queue->first)
        queue->last = &queue->first;
    queue->led = true;
    return batch;
}

static void queue_leave(struct group_queue *queue) {
    queue->led = false;
    if (queue->first)
        pthread_cond_signal(&queue->first->wake);
}

static void ticket_end(struct group_ticket *ticket) {
    ticket->done = true; /* under the lock: its thread may go on, and its ticket away, only after it */
    pthread_cond_signal(&ticket->wake);
}

/* ---- syncing ----------------------------------------------------------------------------------------- */

/* After a failed sync the kernel may have dropped the pages: what was written before it counts as lost. */
static void sync_failed(struct batch *batch, int descriptor, int why) {
    for (size_t index = 0; index < batch->count; index++)
        if (batch->items[index]->descriptor == descriptor) {
            batch->items[index]->sync_failed = true;
            err_set(&batch->items[index]->err, why == ENOSPC || why == EDQUOT ? ERR_NO_SPACE : ERR_IO,
                    "cannot sync the journal: %s", strerror(why));
        }
}

static bool is_first_of_file(const struct batch *batch, size_t index) {
    for (size_t before = 0; before < index; before++)
        if (batch->items[before]->descriptor == batch->items[index]->descriptor)
            return false;
    return batch->items[index]->descriptor >= 0;
}

/* A second sync of the file could succeed although the first one lost pages (the kernel tells each loss once): after a
 * failure nothing that needs a sync is committed any more. */
static void batch_sync(struct group *group, struct batch *batch) {
    for (size_t index = 0; index < batch->count; index++) {
        if (!is_first_of_file(batch, index))
            continue;
        int fault = group->sync_fault ? group->sync_fault : fdatasync(batch->items[index]->descriptor) == 0 ? 0 : errno;
        if (fault)
            sync_failed(batch, batch->items[index]->descriptor, fault);
        group->sync_fault = fault;
    }
}

/* ---- one transaction --------------------------------------------------------------------------------- */

/* The works' own transactions join the one that is open here (struct store, joined). */
static bool works_run(struct store *store, struct batch *batch) {
    bool good = true;
    store->joined = true;
    for (size_t index = 0; good && index < batch->count; index++) {
        struct group_ticket *ticket = batch->items[index];
        good = ticket->good = ticket->work(store, ticket->context, &ticket->err);
    }
    store->joined = false;
    return good;
}

static void batch_fail(struct batch *batch, const struct err *why) {
    for (size_t index = 0; index < batch->count; index++) {
        struct group_ticket *ticket = batch->items[index];
        if (ticket->good || !ticket->err.kind)
            ticket->err = *why;
        ticket->good = false;
    }
}

static bool batch_run(struct store *store, struct batch *batch) {
    PULMO_SCOPED(sql_rollback_at) struct sql_transaction transaction = {0};
    struct err err = {.kind = ERR_INTERNAL, .text = "another instance of the same commit failed"};
    if (sql_begin(store, &transaction, &err) && works_run(store, batch) && sql_commit(&transaction, &err))
        return true;
    batch_fail(batch, &err);
    return false;
}

static void batch_run_each(struct store *store, struct batch *batch) {
    for (size_t index = 0; index < batch->count; index++) {
        struct batch alone = {.items = {batch->items[index]}, .count = 1};
        alone.items[0]->err = (struct err){0};
        (void)!batch_run(store, &alone);
    }
}

static void batch_commit(struct group *group, struct batch *batch) {
    if (!batch_run(group->store, batch) && batch->count > 1)
        batch_run_each(group->store, batch);
}

/* ---- threads ----------------------------------------------------------------------------------------- */

static void lead_syncs(struct group *group) {
    struct batch batch = batch_take(&group->syncs);
    pthread_mutex_unlock(&group->lock);
    batch_sync(group, &batch);
    pthread_mutex_lock(&group->lock);
    for (size_t index = 0; index < batch.count; index++)
        if (batch.items[index]->sync_failed)
            ticket_end(batch.items[index]);
        else
            queue_add(&group->commits, batch.items[index]);
    queue_leave(&group->syncs);
    if (!group->commits.led)
        queue_leave(&group->commits);
}

static void lead_commits(struct group *group) {
    struct batch batch = batch_take(&group->commits);
    pthread_mutex_unlock(&group->lock);
    batch_commit(group, &batch);
    pthread_mutex_lock(&group->lock);
    for (size_t index = 0; index < batch.count; index++)
        ticket_end(batch.items[index]);
    queue_leave(&group->commits);
}

bool group_run(struct group *group, struct group_ticket *ticket) {
    ticket->done = ticket->good = ticket->sync_failed = false;
    pthread_cond_init(&ticket->wake, NULL);
    pthread_mutex_lock(&group->lock);
    queue_add(ticket->descriptor >= 0 ? &group->syncs : &group->commits, ticket);
    while (!ticket->done) {
        if (ticket->queue->led || ticket->queue->first != ticket)
            pthread_cond_wait(&ticket->wake, &group->lock);
        else if (ticket->queue == &group->syncs)
            lead_syncs(group);
        else
            lead_commits(group);
    }
    pthread_mutex_unlock(&group->lock);
    pthread_cond_destroy(&ticket->wake);
    return ticket->good;
}
