#include "app/confirm.h"
#include "app/persist.h"
#include "app/processes.h"
#include "app/stop.h"
#include "log.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How late a back-off may be seen to be over. */
#define WAIT_MS 500
#define BLIND_WAIT_MS 5000 /* when the store cannot wake us */

struct outbox {
    const struct config *config;
    struct store *store;
    pthread_t thread;
    atomic_bool stop;
};

struct sending { /* what the peer said of the one object sent */
    uint16_t status;
    bool answered;
    char error[256];
};

static bool on_sent(void *context, size_t index, uint16_t status, const char *error) {
    struct sending *sending = context;
    (void)index;
    sending->answered = status != 0xFFFF;
    sending->status = status;
    if (error)
        snprintf(sending->error, sizeof sending->error, "%s", error);
    return true;
}

/* PS3.7 C: 0x0000 success, 0xB000 to 0xBFFF warnings (stored). 0xA7xx is "out of resources": the peer may have room
 * later; everything else is a verdict on the object. */
static bool status_is_stored(uint16_t status) {
    return status == 0x0000 || (status & 0xF000) == 0xB000;
}

static bool status_is_transient(uint16_t status) {
    return (status & 0xFF00) == 0xA700;
}

/* A peer that takes no such objects says so for each of them, and takes others meanwhile: no reason to pause it. */
static bool failure_is_transient(const struct err *failure) {
    return failure->kind != ERR_UNSUPPORTED;
}

/* What the peer said of an object. */
struct verdict {
    bool sent, transient;
    char why[768];
};

static bool verdict_write(struct outbox *outbox, const struct store_outgoing *outgoing, const struct verdict *verdict,
                          struct err *err) {
    if (verdict->sent)
        return store_outbox_sent(outbox->store, outgoing, err);
    return store_outbox_failed(outbox->store, outgoing, verdict->transient, verdict->why, pulmo_now_ms(), err);
}

static struct verdict deliver(struct outbox *outbox, const struct store_outgoing *outgoing) {
    struct outbox_peer peer;
    const char *path = outgoing->path;
    struct sending sending = {.error = ""};
    struct err failure = {0};
    struct verdict verdict = {.transient = true};
    char *why = verdict.why;
    size_t size = sizeof verdict.why;
    if (!outbox_peer_find(outbox->config, outgoing->destination, &peer)) {
        snprintf(why, size, "%s is no longer a destination in the configuration", outgoing->destination);
    } else if (!dicom_send(&peer.dicom, &path, 1, on_sent, &sending, &failure) && !sending.answered) {
        verdict.transient = failure_is_transient(&failure);
        snprintf(why, size, "%s", failure.text);
    } else if (sending.answered && status_is_stored(sending.status)) {
        verdict.sent = true;
    } else {
        verdict.transient = !sending.answered || status_is_transient(sending.status);
        snprintf(why, size, "status 0x%04X %s", sending.status, sending.error);
    }
    return verdict;
}

static void settle(struct outbox *outbox, const struct store_outgoing *outgoing) {
    struct verdict verdict = deliver(outbox, outgoing);
    struct persist persist = {.folder = "outbox", .event = "not recorded"};
    for (struct err err = {0}; !verdict_write(outbox, outgoing, &verdict, &err);)
        if (!persist_again(&persist, &err))
            return;
    if (verdict.sent)
        log_event(LOG_INFO, "outbox", "sent", "destination=%s object=%s result=%lld", outgoing->destination,
                  outgoing->name, (long long)outgoing->result_id);
    else
        log_event(LOG_WARNING, "outbox", "not sent", "destination=%s object=%s attempt=%u reason=\"%s\"",
                  outgoing->destination, outgoing->name, outgoing->attempt, verdict.why);
}

static bool entry_find(const struct config *config, const char *name, struct config_destination *out) {
    const char *cursor = config->destinations;
    struct err ignored = {0};
    while (config_destination_next(&cursor, out, &ignored))
        if (strcmp(out->name, name) == 0)
            return true;
    return false;
}

bool outbox_peer_find(const struct config *config, const char *name, struct outbox_peer *out) {
    if (!entry_find(config, name, &out->entry))
        return false;
    out->tls = (struct dicom_tls){.ca_file = config->destination_tls_ca, .require_peer_certificate = true};
    out->dicom = (struct dicom_destination){.host = out->entry.host,
                                            .called_aet = out->entry.ae_title,
                                            .calling_aet = config->ae_title,
                                            .port = out->entry.port,
                                            .tls = *config->destination_tls_ca ? &out->tls : NULL,
                                            .timeout_s = (int)config->dicom_timeout_s};
    return true;
}

static bool stopping(struct outbox *outbox) {
    return stop_requested || atomic_load(&outbox->stop);
}

static void *outbox_loop(void *context) {
    struct outbox *outbox = context;
    while (!stopping(outbox)) {
        struct store_outgoing outgoing = {0};
        struct err err = {0};
        bool good = store_outbox_take(outbox->store, pulmo_now_ms(), &outgoing, &err);
        bool idle = !good || !outgoing.id;
        if (good && outgoing.id)
            settle(outbox, &outgoing);
        else if (good) /* results go first; questions about them have time */
            good = confirm_step(outbox->config, outbox->store, &idle, &err);
        if (!good)
            log_err(LOG_ERROR, "outbox", "step failed", &err);
        if ((!good || idle) && !store_wait(outbox->store, WAIT_MS, &err)) {
            log_err(LOG_ERROR, "outbox", "cannot wait for the store", &err);
            poll(NULL, 0, BLIND_WAIT_MS);
        }
    }
    return NULL;
}

static void outbox_free(struct outbox *outbox) {
    store_close(outbox->store);
    free(outbox);
}

struct outbox *outbox_start(const struct config *config, struct err *err) {
    struct outbox *outbox = pulmo_alloc(1, sizeof *outbox, err);
    if (!outbox)
        return NULL;
    outbox->config = config;
    outbox->store = processes_store_open(config, err);
    if (!outbox->store) {
        free(outbox);
        return NULL;
    }
    if (pthread_create(&outbox->thread, NULL, outbox_loop, outbox) != 0) {
        err_set(err, ERR_MEMORY, "cannot start the thread that returns results");
        outbox_free(outbox);
        return NULL;
    }
    return outbox;
}

void outbox_stop(struct outbox *outbox) {
    atomic_store(&outbox->stop, true);
    pthread_join(outbox->thread, NULL);
    outbox_free(outbox);
}
