#include "app/persist.h"
#include "app/stop.h"
#include "log.h"
#include "store/store.h"

#include <poll.h>

#define WAIT_MS 1000

bool persist_again(struct persist *persist, const struct err *failure) {
    if (!persist->logged)
        log_err(LOG_ERROR, persist->folder, persist->event, failure);
    persist->logged = true;
    bool of_disk = failure->kind == ERR_NO_SPACE || failure->kind == ERR_IO || failure->kind == ERR_BUSY ||
                   failure->kind == ERR_MEMORY;
    if (of_disk && !stop_requested)
        poll(NULL, 0, WAIT_MS);
    return of_disk && !stop_requested;
}

void persist_closing_add(struct persist_closings *closings, uint64_t association_id) {
    pthread_mutex_lock(&closings->lock);
    if (closings->count < PERSIST_CLOSINGS_MAX) /* what is beyond ends with the process, or after ten minutes */
        closings->ids[closings->count++] = association_id;
    pthread_mutex_unlock(&closings->lock);
}

bool persist_closings_any(struct persist_closings *closings) {
    pthread_mutex_lock(&closings->lock);
    bool any = closings->count > 0;
    pthread_mutex_unlock(&closings->lock);
    return any;
}

static bool closing_take(struct persist_closings *closings, uint64_t *id) {
    pthread_mutex_lock(&closings->lock);
    bool any = closings->count > 0;
    if (any)
        *id = closings->ids[--closings->count];
    pthread_mutex_unlock(&closings->lock);
    return any;
}

bool persist_closings_write(struct persist_closings *closings, struct store *store, struct err *err) {
    for (uint64_t id = 0; closing_take(closings, &id);)
        if (!store_association_closed(store, id, err)) {
            persist_closing_add(closings, id);
            return false;
        }
    return true;
}
