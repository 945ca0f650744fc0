#include "store/sync.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Bounds how long the first of a group waits for the last. */
#define SHARED_MAX 64

/* On the stack of its thread while it waits. */
struct sync_ticket {
    int descriptor, fault; /* errno */
    bool done;
    pthread_cond_t wake;
    struct sync_ticket *next;
};
struct batch {
    struct sync_ticket *items[SHARED_MAX];
    size_t count;
};

void sync_queue_start(struct sync_queue *queue) {
    *queue = (struct sync_queue){.led = false};
    queue->last = &queue->first;
    pthread_mutex_init(&queue->lock, NULL);
}

void sync_queue_stop(struct sync_queue *queue) {
    pthread_mutex_destroy(&queue->lock);
}

static bool is_first_of_file(const struct batch *batch, size_t index) {
    for (size_t before = 0; before < index; before++)
        if (batch->items[before]->descriptor == batch->items[index]->descriptor)
            return false;
    return true;
}

/* After a failed sync the kernel may have dropped the pages: what was written before it counts as lost. */
static void sync_files(struct sync_queue *queue, struct batch *batch) {
    for (size_t index = 0; index < batch->count; index++) {
        int descriptor = batch->items[index]->descriptor;
        if (!is_first_of_file(batch, index))
            continue;
        queue->fault = queue->fault ? queue->fault : fdatasync(descriptor) == 0 ? 0 : errno;
        for (size_t other = index; other < batch->count; other++)
            if (batch->items[other]->descriptor == descriptor)
                batch->items[other]->fault = queue->fault;
    }
}

/* The lock is held, and given back for the sync. */
static void lead(struct sync_queue *queue) {
    struct batch batch = {.count = 0};
    for (; queue->first && batch.count < SHARED_MAX; queue->first = queue->first->next)
        batch.items[batch.count++] = queue->first;
    if (!queue->first)
        queue->last = &queue->first;
    queue->led = true;
    pthread_mutex_unlock(&queue->lock);
    sync_files(queue, &batch);
    pthread_mutex_lock(&queue->lock);
    queue->led = false;
    for (size_t index = 0; index < batch.count; index++) {
        batch.items[index]->done = true; /* under the lock: its thread may go on, and its ticket away, only after it */
        pthread_cond_signal(&batch.items[index]->wake);
    }
    if (queue->first)
        pthread_cond_signal(&queue->first->wake);
}

bool sync_shared(struct sync_queue *queue, int descriptor, struct err *err) {
    struct sync_ticket ticket = {.descriptor = descriptor};
    pthread_cond_init(&ticket.wake, NULL);
    pthread_mutex_lock(&queue->lock);
    *queue->last = &ticket;
    queue->last = &ticket.next;
    while (!ticket.done)
        if (queue->led || queue->first != &ticket)
            pthread_cond_wait(&ticket.wake, &queue->lock);
        else
            lead(queue);
    pthread_mutex_unlock(&queue->lock);
    pthread_cond_destroy(&ticket.wake);
    return !ticket.fault || err_set(err, ticket.fault == ENOSPC || ticket.fault == EDQUOT ? ERR_NO_SPACE : ERR_IO,
                                    "cannot sync the journal: %s", strerror(ticket.fault));
}
