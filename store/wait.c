#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "store/handle.h"

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
    if (poll(&ready, 1, capped_ms) < 0 && errno != EINTR)
        return err_set(err, ERR_IO, "cannot wait for the store: %s", strerror(errno));
    while (read(store->watch, events, sizeof events) > 0)
        continue;
    return true;
}
