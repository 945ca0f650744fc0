/* Looks every minute: for images whose days are over, for a disk that is too full, for files that nobody names. */
#include "app/processes.h"
#include "app/stop.h"
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DAY_MS (24LL * 3600 * 1000)
#define PARTS 256 /* of the blobs; one a look */

struct retention {
    const struct config *config;
    struct store *store;
    unsigned part;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool end;
};

static bool ending(struct retention *retention) {
    pthread_mutex_lock(&retention->lock);
    bool end = retention->end;
    pthread_mutex_unlock(&retention->lock);
    return end || stop_requested;
}

/* *purged = false: nothing may go by this rule. */
static bool purge_one(struct retention *retention, const struct store_purge_rule *rule, bool *purged, struct err *err) {
    struct store_purged study;
    int64_t files = 0;
    if (!store_retention_purge(retention->store, rule, &study, err))
        return false;
    *purged = *study.study_uid != '\0';
    if (!*purged)
        return true;
    log_event(LOG_INFO, "retention", "images purged", "study_uid=%s images=%lld bytes=%lld why=\"%s\"", study.study_uid,
              (long long)study.images, (long long)study.bytes, rule->why);
    return store_retention_remove(retention->store, &files, err);
}

static bool purge_due(struct retention *retention, struct err *err) {
    char why[64];
    double days = retention->config->retention_days;
    if (days < 0)
        return true;
    snprintf(why, sizeof why, "confirmed %g days ago", days);
    struct store_purge_rule rule = {.why = why};
    for (bool purged = true; purged && !ending(retention);) {
        rule.confirmed_before_ms = pulmo_now_ms() - (int64_t)(days * (double)DAY_MS);
        if (!purge_one(retention, &rule, &purged, err))
            return false;
    }
    return true;
}

/* ---- the disk ---------------------------------------------------------------------------------------- */

static bool disk_notice(struct retention *retention, const char *text, struct err *err) {
    bool changed = false;
    if (!store_notice_put(retention->store, "disk", text, &changed, err))
        return false;
    if (changed && *text)
        log_event(LOG_WARNING, "retention", "disk", "notice=\"%s\"", text);
    else if (changed)
        log_event(LOG_INFO, "retention", "disk", "notice=\"there is room again\"");
    return true;
}

static bool tell_why(struct retention *retention, struct err *err) {
    struct store_retention_counts counts;
    char text[320];
    if (!store_retention_counts(retention->store, &counts, err))
        return false;
    /* No percentage: the sentence is written when it changes, and that would change with every look. */
    snprintf(text, sizeof text,
             "The disk is fuller than %d %% and no images may be purged: %lld studies await a signature, %lld wait for "
             "the PACS to confirm their results, %lld are held, %lld are in work, %lld have conflicting images.",
             (int)retention->config->disk_high_percent, (long long)counts.unsigned_results,
             (long long)counts.unconfirmed, (long long)counts.held, (long long)counts.in_work,
             (long long)counts.in_conflict);
    return disk_notice(retention, text, err);
}

static bool purge_for_room(struct retention *retention, struct err *err) {
    const struct store_purge_rule rule = {INT64_MAX, "the disk is full"};
    double used = 0;
    if (!store_disk_used_percent(retention->store, &used, err))
        return false;
    if (used <= (double)retention->config->disk_high_percent)
        return disk_notice(retention, "", err);
    for (bool purged = true; used > (double)retention->config->disk_low_percent && !ending(retention);) {
        if (!purge_one(retention, &rule, &purged, err))
            return false;
        if (!store_disk_used_percent(retention->store, &used, err))
            return false;
        if (!purged)
            break;
    }
    return used > (double)retention->config->disk_high_percent ? tell_why(retention, err)
                                                               : disk_notice(retention, "", err);
}

/* ---- one look ---------------------------------------------------------------------------------------- */

static bool sweep(struct retention *retention, struct err *err) {
    int64_t removed = 0;
    if (!store_orphans_remove(retention->store, retention->part, -1, &removed, err))
        return false;
    retention->part = (retention->part + 1) % PARTS;
    if (removed)
        log_event(LOG_INFO, "retention", "left-over files removed", "files=%lld", (long long)removed);
    return true;
}

static bool look(struct retention *retention, struct err *err) {
    int64_t files = 0;
    /* First what a killed process left. */
    if (!store_retention_remove(retention->store, &files, err))
        return false;
    if (files)
        log_event(LOG_INFO, "retention", "purged files removed", "files=%lld", (long long)files);
    return purge_due(retention, err) && purge_for_room(retention, err) && sweep(retention, err);
}

static void rest(struct retention *retention) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += retention->config->retention_period_s;
    pthread_mutex_lock(&retention->lock);
    while (!retention->end && pthread_cond_timedwait(&retention->ended, &retention->lock, &until) != ETIMEDOUT)
        continue;
    pthread_mutex_unlock(&retention->lock);
}

static void *retention_loop(void *context) {
    struct retention *retention = context;
    while (!ending(retention)) {
        struct err err = {0};
        if (!look(retention, &err))
            log_err(LOG_ERROR, "retention", "look failed", &err);
        rest(retention);
    }
    return NULL;
}

static void retention_free(struct retention *retention) {
    store_close(retention->store);
    pthread_cond_destroy(&retention->ended);
    pthread_mutex_destroy(&retention->lock);
    free(retention);
}

struct retention *retention_start(const struct config *config, struct err *err) {
    if (config->disk_low_percent > config->disk_high_percent) {
        err_set(err, ERR_CONFIG, "disk_low_percent is higher than disk_high_percent");
        return NULL;
    }
    struct retention *retention = pulmo_alloc(1, sizeof *retention, err);
    if (!retention)
        return NULL;
    retention->config = config;
    pthread_mutex_init(&retention->lock, NULL);
    pthread_condattr_t monotonic; /* a clock that is set delays no look */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&retention->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    retention->store = processes_store_open(config, err);
    if (retention->store && pthread_create(&retention->thread, NULL, retention_loop, retention) == 0)
        return retention;
    if (retention->store)
        err_set(err, ERR_MEMORY, "cannot start the thread that gives up images");
    retention_free(retention);
    return NULL;
}

void retention_stop(struct retention *retention) {
    pthread_mutex_lock(&retention->lock);
    retention->end = true;
    pthread_cond_signal(&retention->ended);
    pthread_mutex_unlock(&retention->lock);
    pthread_join(retention->thread, NULL);
    retention_free(retention);
}
