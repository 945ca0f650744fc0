#include "store/group.h"

#include "store/handle.h"
#include "store/wake.h"

#define GROUP_MAX 64     /* bounds how long the first of a group waits for the last */
#define GATHER_MS 50     /* for more, when nobody waits */
#define TRY_AGAIN_MS 500 /* what failed and nobody waits for */

/* ---- queues; the lock is held -------------------------------------------------------------------------- */

static void queue_add(struct group_queue *queue, struct group_ticket *ticket) {
    ticket->next = NULL;
    *queue->last = ticket;
    queue->last = &ticket->next;
    queue->count++;
}

static struct group_ticket *queue_take(struct group_queue *queue) {
    struct group_ticket *ticket = queue->first;
    if (!ticket)
        return NULL;
    queue->first = ticket->next;
    queue->count--;
    if (!queue->first)
        queue->last = &queue->first;
    return ticket;
}

/* What is committed at one time. */
struct batch {
    struct group_ticket *items[GROUP_MAX];
    size_t count;
};

static struct batch batch_take(struct group_queue *queue) {
    struct batch batch = {.count = 0};
    while (queue->first && batch.count < GROUP_MAX)
        batch.items[batch.count++] = queue_take(queue);
    for (size_t index = 0; index < batch.count; index++) {
        batch.items[index]->good = false;
        batch.items[index]->err = (struct err){0};
    }
    return batch;
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

/* The database's fault, not the work's. */
static bool is_faulty(const struct batch *batch) {
    for (size_t index = 0; index < batch->count; index++) {
        enum err_kind kind = batch->items[index]->good ? ERR_NONE : batch->items[index]->err.kind;
        if (kind == ERR_IO || kind == ERR_NO_SPACE || kind == ERR_BUSY || kind == ERR_MEMORY)
            return true;
    }
    return false;
}

/* ---- the thread --------------------------------------------------------------------------------------- */

static void gather(struct group *group) {
    int64_t until_ms = pulmo_monotonic_ms() + GATHER_MS;
    for (int64_t left_ms = GATHER_MS;
         left_ms > 0 && !group->stops && !group->waited_for && group->queue.count < GROUP_MAX;
         left_ms = until_ms - pulmo_monotonic_ms())
        wake_wait(&group->wake, &group->lock, left_ms);
}

/* In the order in which they came: what failed is older than what waits. */
static void failed_return(struct group *group) {
    struct group_queue newer = group->queue;
    group->queue = group->failed;
    if (group->failed.last == &group->failed.first)
        group->queue.last = &group->queue.first;
    group->failed = (struct group_queue){.count = 0};
    group->failed.last = &group->failed.first;
    if (newer.first) {
        *group->queue.last = newer.first;
        group->queue.last = newer.last;
        group->queue.count += newer.count;
    }
}

/* The lock is held, and given back meanwhile. */
static void batch_end(struct group *group, struct batch *batch) {
    for (size_t index = 0; index < batch->count; index++) {
        struct group_ticket *ticket = batch->items[index];
        if (!ticket->ended) {
            ticket->done = true; /* under the lock: its thread may go on, and its ticket away, only after it */
            pthread_cond_signal(&ticket->wake);
            continue;
        }
        pthread_mutex_unlock(&group->lock);
        bool forgotten = ticket->ended(group->store, ticket);
        pthread_mutex_lock(&group->lock);
        if (!forgotten) {
            group->fault = ticket->err;
            group->again_ms = pulmo_monotonic_ms() + TRY_AGAIN_MS;
            queue_add(&group->failed, ticket);
        }
    }
}

static void *run(void *context) {
    struct group *group = context;
    pthread_mutex_lock(&group->lock);
    while (!group->stops || group->queue.first) {
        if (group->failed.first && pulmo_monotonic_ms() >= group->again_ms)
            failed_return(group);
        if (!group->queue.first) {
            wake_wait(&group->wake, &group->lock, TRY_AGAIN_MS);
            continue;
        }
        gather(group);
        struct batch batch = batch_take(&group->queue);
        pthread_mutex_unlock(&group->lock);
        batch_commit(group, &batch);
        bool faulty = is_faulty(&batch);
        pthread_mutex_lock(&group->lock);
        group->faulty = faulty;
        batch_end(group, &batch);
    }
    pthread_mutex_unlock(&group->lock);
    return NULL;
}

bool group_start(struct group *group, struct store *store, struct err *err) {
    *group = (struct group){.store = store};
    group->queue.last = &group->queue.first;
    group->failed.last = &group->failed.first;
    wake_init(&group->wake);
    pthread_mutex_init(&group->lock, NULL);
    if (!store)
        return false;
    group->started = pthread_create(&group->thread, NULL, run, group) == 0;
    return group->started || err_set(err, ERR_MEMORY, "no thread for the journal's commits");
}

void group_stop(struct group *group, void (*forget)(struct group_ticket *ticket)) {
    if (group->started) {
        pthread_mutex_lock(&group->lock);
        failed_return(group);
        group->stops = true;
        pthread_cond_signal(&group->wake);
        pthread_mutex_unlock(&group->lock);
        pthread_join(group->thread, NULL);
    }
    for (struct group_ticket *ticket; (ticket = queue_take(&group->failed)) != NULL;)
        forget(ticket);
    pthread_cond_destroy(&group->wake);
    pthread_mutex_destroy(&group->lock);
    store_close(group->store);
}

/* ---- any thread --------------------------------------------------------------------------------------- */

bool group_run(struct group *group, struct group_ticket *ticket) {
    ticket->done = false;
    ticket->ended = NULL;
    pthread_cond_init(&ticket->wake, NULL);
    pthread_mutex_lock(&group->lock);
    queue_add(&group->queue, ticket);
    group->waited_for++;
    pthread_cond_signal(&group->wake);
    while (!ticket->done)
        pthread_cond_wait(&ticket->wake, &group->lock);
    group->waited_for--;
    pthread_mutex_unlock(&group->lock);
    pthread_cond_destroy(&ticket->wake);
    return ticket->good;
}

bool group_later(struct group *group, struct group_ticket *ticket) {
    pthread_mutex_lock(&group->lock);
    bool taken = !group->failed.first && !group->faulty;
    if (taken)
        queue_add(&group->queue, ticket);
    if (group->queue.count == 1 || group->queue.count == GROUP_MAX) /* otherwise it is awake, or gathers */
        pthread_cond_signal(&group->wake);
    pthread_mutex_unlock(&group->lock);
    return taken;
}

bool group_is_well(struct group *group, struct err *why) {
    pthread_mutex_lock(&group->lock);
    bool well = !group->failed.first;
    if (!well)
        *why = group->fault;
    pthread_mutex_unlock(&group->lock);
    return well;
}
