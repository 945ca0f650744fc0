#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include "store/handle.h"

/* While studies arrive, hundreds of commits a second are none of what a waiting process waits for, and to look costs it
 * a dozen reads of the database: what is written within this time is looked at once. */
#define SETTLE_MS 20

/* Every commit writes to the write-ahead log, and this handle's connection keeps that file from being replaced. */
static bool watch_start(struct store *store, struct err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/pulmo.db-wal", store->config.folder);
    int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watch < 0 || inotify_add_watch(watch, path, IN_MODIFY) < 0) {
        err_set(err, ERR_IO, "cannot watch %s: %s", path, strerror(errno));
        if (watch >= 0)
            close(watch);
        return false;
    }
    store->watch = watch;
    return true;
}

bool store_wait(struct store *store, int64_t timeout_ms, struct err *err) {
    char events[4096];
    /* The first call cannot know what was written before it: it returns at once, and the caller looks. */
    if (store->watch < 0)
        return watch_start(store, err);
    struct pollfd ready = {.fd = store->watch, .events = POLLIN};
    int capped_ms = timeout_ms > 60000 ? 60000 : timeout_ms < 0 ? 0 : (int)timeout_ms;
    int found = poll(&ready, 1, capped_ms);
    if (found < 0 && errno != EINTR)
        return err_set(err, ERR_IO, "cannot wait for the store: %s", strerror(errno));
    if (found > 0)
        nanosleep(&(struct timespec){.tv_nsec = SETTLE_MS * 1000000L}, NULL);
    while (read(store->watch, events, sizeof events) > 0)
        continue;
    return true;
}
