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
    group->last = &group->first;
    pthread_mutex_init(&group->lock, NULL);
}

void group_stop(struct group *group) {
    pthread_mutex_destroy(&group->lock);
    store_close(group->store);
}

/* The tickets that one leader commits. */
struct batch {
    struct group_ticket *items[GROUP_MAX];
    size_t count;
};

static struct batch batch_take(struct group *group) {
    struct batch batch = {.count = 0};
    while (group->first && batch.count < GROUP_MAX) {
        batch.items[batch.count++] = group->first;
        group->first = group->first->next;
    }
    if (!group->first)
        group->last = &group->first;
    return batch;
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
        if (!ticket->sync_failed)
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
        if (alone.items[0]->sync_failed)
            continue;
        alone.items[0]->err = (struct err){0};
        (void)!batch_run(store, &alone);
    }
}

static void batch_commit(struct group *group, struct batch *batch) {
    batch_sync(group, batch);
    if (!batch_run(group->store, batch) && batch->count > 1)
        batch_run_each(group->store, batch);
}

/* ---- threads ----------------------------------------------------------------------------------------- */

static void lead(struct group *group) {
    struct batch batch = batch_take(group);
    group->leading = true;
    pthread_mutex_unlock(&group->lock);
    batch_commit(group, &batch);
    pthread_mutex_lock(&group->lock);
    group->leading = false;
    for (size_t index = 0; index < batch.count; index++) {
        batch.items[index]->done = true; /* under the lock: its thread may go on, and its ticket away, only after it */
        pthread_cond_signal(&batch.items[index]->wake);
    }
    if (group->first)
        pthread_cond_signal(&group->first->wake);
}

bool group_run(struct group *group, struct group_ticket *ticket) {
    ticket->next = NULL;
    ticket->done = ticket->good = ticket->sync_failed = false;
    pthread_cond_init(&ticket->wake, NULL);
    pthread_mutex_lock(&group->lock);
    *group->last = ticket;
    group->last = &ticket->next;
    while (!ticket->done) {
        if (!group->leading && group->first == ticket)
            lead(group);
        else
            pthread_cond_wait(&ticket->wake, &group->lock);
    }
    pthread_mutex_unlock(&group->lock);
    pthread_cond_destroy(&ticket->wake);
    return ticket->good;
}
