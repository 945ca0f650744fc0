#include "app/persist.h"
#include "app/stop.h"
#include "app/worker.h"
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

/* How late a study may be seen as complete: quiet time passes without a commit that would wake anyone. */
#define WAIT_MS 250
#define LOOK_MS 1000
/* Once asked to stop, a job may still end; a longer one goes back before the supervisor loses its patience (15 s), so
 * that the next start takes it at once and the attempt does not count. */
#define GIVE_BACK_MS 8000

struct lease {
    struct store *store;
    const struct store_job *job;
    int64_t period_ms;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool end;
    int64_t renewed_ms, stop_seen_ms; /* monotonic; the second 0 = not asked to stop yet */
    bool given_back;
};

static struct timespec after_ms(int64_t ms) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at); /* a clock that is set does not delay a renewal */
    int64_t ns = at.tv_nsec + (ms % 1000) * 1000000;
    at.tv_sec += ms / 1000 + ns / 1000000000;
    at.tv_nsec = ns % 1000000000;
    return at;
}

static void look(struct lease *lease, int64_t now_ms) {
    struct err err = {0};
    if (stop_requested && !lease->stop_seen_ms)
        lease->stop_seen_ms = now_ms;
    if (lease->stop_seen_ms && now_ms - lease->stop_seen_ms >= GIVE_BACK_MS) {
        lease->given_back = store_job_release(lease->store, lease->job, &err);
        if (lease->given_back)
            log_event(LOG_INFO, "worker", "job given back", "job=%lld", (long long)lease->job->id);
        else
            log_err(LOG_WARNING, "worker", "job not given back", &err);
    } else if (now_ms - lease->renewed_ms >= lease->period_ms) {
        lease->renewed_ms = now_ms;
        /* A lost lease needs no action here: finishing the job then fails with ERR_CONFLICT and writes nothing. */
        if (!store_job_renew(lease->store, lease->job, pulmo_now_ms(), &err))
            log_err(LOG_WARNING, "worker", "lease not renewed", &err);
    }
}

static void *lease_loop(void *context) {
    struct lease *lease = context;
    pthread_mutex_lock(&lease->lock);
    while (!lease->end) {
        struct timespec due = after_ms(LOOK_MS);
        if (pthread_cond_timedwait(&lease->ended, &lease->lock, &due) == ETIMEDOUT && !lease->given_back)
            look(lease, pulmo_monotonic_ms());
    }
    pthread_mutex_unlock(&lease->lock);
    return NULL;
}

struct lease *lease_start(const struct config *config, const struct store_job *job, struct err *err) {
    struct lease *lease = pulmo_alloc(1, sizeof *lease, err);
    if (!lease)
        return NULL;
    lease->job = job;
    lease->period_ms = config->lease_s * 1000 / 3;
    pthread_mutex_init(&lease->lock, NULL);
    lease->renewed_ms = pulmo_monotonic_ms();
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&lease->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    lease->store = processes_store_open(config, err);
    if (lease->store && pthread_create(&lease->thread, NULL, lease_loop, lease) == 0)
        return lease;
    if (lease->store) {
        err_set(err, ERR_MEMORY, "cannot start the thread that renews a lease");
        store_close(lease->store);
    }
    free(lease);
    return NULL;
}

void lease_stop(struct lease *lease) {
    pthread_mutex_lock(&lease->lock);
    lease->end = true;
    pthread_cond_signal(&lease->ended);
    pthread_mutex_unlock(&lease->lock);
    pthread_join(lease->thread, NULL);
    store_close(lease->store);
    pthread_cond_destroy(&lease->ended);
    pthread_mutex_destroy(&lease->lock);
    free(lease);
}

static bool run_leased(struct appliance *appliance, const struct store_job *job, job_step *step, struct err *err) {
    struct lease *lease = lease_start(appliance->config, job, err);
    if (!lease)
        return false;
    bool good = step(appliance, job, err);
    lease_stop(lease);
    return good;
}

static void job_give_back(struct appliance *appliance, const struct store_job *job, const struct err *why,
                          const char *folder) {
    struct persist persist = {.folder = folder, .event = "job not given back"};
    for (struct err err = {0}; !store_job_fail(appliance->store, job, why, &err) && persist_again(&persist, &err);)
        continue;
}

static void run_job(struct appliance *appliance, const struct store_job *job, job_step *step, const char *folder) {
    struct err err = {0};
    int64_t start_ms = pulmo_monotonic_ms();
    log_event(LOG_INFO, folder, "job taken", "job=%lld kind=%d attempt=%u study_uid=%s", (long long)job->id,
              (int)job->kind, job->attempt, job->study_uid);
    if (run_leased(appliance, job, step, &err)) {
        log_event(LOG_INFO, folder, "job done", "job=%lld ms=%lld", (long long)job->id,
                  (long long)(pulmo_monotonic_ms() - start_ms));
        return;
    }
    log_event(LOG_ERROR, folder, "job failed", "job=%lld kind=\"%s\" reason=\"%s\"", (long long)job->id,
              err_kind_name(err.kind), err.text);
    job_give_back(appliance, job, &err, folder);
}

bool job_loop(struct appliance *appliance, unsigned kinds_mask, job_step *step, const char *folder, struct err *err) {
    int64_t idle_since_ms = pulmo_monotonic_ms();
    while (!stop_requested && (!appliance->idle_ms || pulmo_monotonic_ms() - idle_since_ms < appliance->idle_ms)) {
        struct store_job job = {0};
        struct err failure = {0};
        if (!store_job_take(appliance->store, kinds_mask, pulmo_now_ms(), &job, &failure))
            log_err(LOG_ERROR, folder, "no job taken", &failure);
        if (job.id) {
            run_job(appliance, &job, step, folder);
            idle_since_ms = pulmo_monotonic_ms();
        } else if (!store_wait(appliance->store, WAIT_MS, err)) {
            return false;
        }
    }
    return true;
}
