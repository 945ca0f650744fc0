#include "workers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

struct crew {
    workers_job *job;
    void *context;
    size_t count;
    atomic_size_t next;
    atomic_bool failed;
    pthread_mutex_t lock; /* guards the two below */
    size_t failed_index;
    struct err failure;
};

struct member {
    struct crew *crew;
    unsigned worker;
    pthread_t thread;
};

static void crew_fail(struct crew *crew, size_t index, const struct err *failure) {
    pthread_mutex_lock(&crew->lock);
    if (!atomic_load(&crew->failed) || index < crew->failed_index) {
        crew->failed_index = index;
        crew->failure = *failure;
    }
    atomic_store(&crew->failed, true);
    pthread_mutex_unlock(&crew->lock);
}

static void *member_run(void *pointer) {
    struct member *member = pointer;
    struct crew *crew = member->crew;
    while (!atomic_load(&crew->failed)) {
        size_t index = atomic_fetch_add(&crew->next, 1);
        struct err failure = {0};
        if (index >= crew->count)
            break;
        if (!crew->job(crew->context, member->worker, index, &failure))
            crew_fail(crew, index, &failure);
    }
    return NULL;
}

bool workers_run(unsigned threads, size_t count, workers_job *job, void *context, struct err *err) {
    struct crew crew = {.job = job, .context = context, .count = count, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct member members[WORKERS_MAX];
    unsigned wanted = threads > WORKERS_MAX ? WORKERS_MAX : threads, started = 1;
    if ((size_t)wanted > count)
        wanted = (unsigned)count;
    for (unsigned i = 0; i < WORKERS_MAX; i++)
        members[i] = (struct member){.crew = &crew, .worker = i};
    /* Fewer threads than wanted only take longer. */
    while (started < wanted && pthread_create(&members[started].thread, NULL, member_run, &members[started]) == 0)
        started++;
    member_run(&members[0]);
    for (unsigned i = 1; i < started; i++)
        pthread_join(members[i].thread, NULL);
    if (!atomic_load(&crew.failed))
        return true;
    if (err)
        *err = crew.failure;
    return false;
}

struct shared {
    workers_stretch *stretch;
    void *context;
    int32_t count, parts;
};

static bool share_run(void *context, unsigned worker, size_t index, struct err *err) {
    (void)worker;
    const struct shared *shared = context;
    int64_t count = shared->count, part = (int64_t)index;
    return shared->stretch(shared->context, (int32_t)(count * part / shared->parts),
                           (int32_t)(count * (part + 1) / shared->parts), err);
}

bool workers_share(int32_t count, workers_stretch *stretch, void *context, struct err *err) {
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int32_t parts = processors < 1 ? 1 : processors > WORKERS_MAX ? WORKERS_MAX : (int32_t)processors;
    parts = parts < count ? parts : count;
    if (parts <= 1)
        return stretch(context, 0, count, err);
    struct shared shared = {.stretch = stretch, .context = context, .count = count, .parts = parts};
    return workers_run((unsigned)parts, (size_t)parts, share_run, &shared, err);
}
