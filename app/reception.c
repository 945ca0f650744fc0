#include "app/confirm.h"
#include "app/persist.h"
#include "app/processes.h"
#include "app/stop.h"
#include "dicom/dicom.h"
#include "log.h"
#include "tally.h"

#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HANDLES_IDLE_MAX 64
#define ARENAS_MAX 2
#define MAPPED_FROM_BYTES (128 << 10) /* above the page cache of a transaction, below a buffer of PDUs */
#define TRIM_BYTES (2 << 20)
#define KEEP_WAIT_MS 250
/* A kind of its own beside those of enum dicom_event_kind. */
#define EVENT_NOT_STORED (DICOM_EVENT_PROTOCOL_ERROR + 1)

/* Store handles for association threads: a handle belongs to one thread at a time, so each call borrows one. */
struct reception {
    const struct config *config;
    struct store_journal *journal;
    pthread_t keeper; /* of the journal */
    atomic_bool keeper_stops;
    pthread_mutex_t lock;
    struct store *idle[HANDLES_IDLE_MAX];
    size_t idle_count;
    struct persist_closings closings;
    struct tally *tally; /* of what peers do: neither log nor audit trail grow as fast as they like */
};

static struct store *borrow(struct reception *reception, struct err *err) {
    struct store *store = NULL;
    pthread_mutex_lock(&reception->lock);
    if (reception->idle_count)
        store = reception->idle[--reception->idle_count];
    pthread_mutex_unlock(&reception->lock);
    return store ? store : processes_store_open(reception->config, err);
}

static void give_back(struct reception *reception, struct store *store) {
    pthread_mutex_lock(&reception->lock);
    bool kept = reception->idle_count < HANDLES_IDLE_MAX;
    if (kept)
        reception->idle[reception->idle_count++] = store;
    pthread_mutex_unlock(&reception->lock);
    if (!kept)
        store_close(store);
}

static bool on_instance(void *context, const struct instance *instance, struct err *err) {
    struct reception *reception = context;
    struct store *store = borrow(reception, err);
    if (!store)
        return false;
    bool stored = store_journal_put(reception->journal, store, instance, err);
    give_back(reception, store);
    if (!stored && tally_note(reception->tally, EVENT_NOT_STORED, instance->peer_address, pulmo_monotonic_ms()))
        log_event(LOG_ERROR, "scp", "instance not stored", "sop_instance_uid=%s kind=\"%s\" reason=\"%s\"",
                  instance->sop_instance_uid, err->kind ? err_kind_name(err->kind) : "", err->text);
    return stored;
}

/* PS3.15 A.5 code, outcome and log level of each event. */
static const struct event_row {
    const char *name, *code, *action;
    int outcome;
    enum log_level level;
} event_rows[] = {
    [DICOM_EVENT_ASSOCIATION_OPENED] = {"association opened", "110102", "E", 0, LOG_INFO},
    [DICOM_EVENT_ASSOCIATION_CLOSED] = {"association closed", "110104", "E", 0, LOG_INFO},
    [DICOM_EVENT_ASSOCIATION_REJECTED] = {"association rejected", "110113", "E", 4, LOG_WARNING},
    [DICOM_EVENT_INSTANCE_REFUSED] = {"instance refused", "110113", "E", 4, LOG_WARNING},
    [DICOM_EVENT_PROTOCOL_ERROR] = {"protocol error", "110113", "E", 4, LOG_WARNING},
    [EVENT_NOT_STORED] = {"instance not stored", "", "", 0, LOG_ERROR}, /* the refusal is audited */
};

/* An event, and whether it is told on its own; so with the opening that a closing tells as well. */
struct occurrence {
    const struct dicom_event *event;
    bool told, opening_told;
};

static bool audit_event(struct store *store, const struct dicom_event *event, const struct event_row *row,
                        struct err *err) {
    char detail[512];
    snprintf(detail, sizeof detail, "%s; called %s; instance %s; status 0x%04X; %s", row->name,
             event->called_aet ? event->called_aet : "", event->sop_instance_uid ? event->sop_instance_uid : "-",
             event->status, event->detail ? event->detail : "");
    struct store_audit audit = {.code = row->code,
                                .action = row->action,
                                .actor = event->calling_aet ? event->calling_aet : "",
                                .address = event->peer_address ? event->peer_address : "",
                                .study_uid = "",
                                .detail = detail,
                                .outcome = row->outcome};
    return store_audit_append(store, &audit, err);
}

static bool audit_opening(struct store *store, const struct dicom_event *closed, struct err *err) {
    struct dicom_event opened = *closed;
    opened.detail = "";
    return audit_event(store, &opened, &event_rows[DICOM_EVENT_ASSOCIATION_OPENED], err);
}

/* In one commit with what other associations write. */
static bool record(struct store *store, void *context, struct err *err) {
    const struct occurrence *occurrence = context;
    const struct dicom_event *event = occurrence->event;
    if (event->kind == DICOM_EVENT_ASSOCIATION_OPENED &&
        !store_association_opened(store, event->association_id, event->calling_aet, event->peer_address, err))
        return false;
    if (event->kind == DICOM_EVENT_ASSOCIATION_CLOSED && !event->was_unknown &&
        !store_association_closed(store, event->association_id, err))
        return false;
    if (occurrence->opening_told && !audit_opening(store, event, err))
        return false;
    return !occurrence->told || audit_event(store, event, &event_rows[event->kind], err);
}

/* Counts it; true when it is to be told on its own, and logged then. */
static bool note(struct reception *reception, const struct dicom_event *event, enum dicom_event_kind kind) {
    const struct event_row *row = &event_rows[kind];
    const char *peer = event->peer_address ? event->peer_address : "";
    if (!tally_note(reception->tally, (int)kind, peer, pulmo_monotonic_ms()))
        return false;
    log_event(row->level, "scp", row->name, "peer=%s calling=\"%s\" status=0x%04X detail=\"%s\"", peer,
              event->calling_aet ? event->calling_aet : "", event->status,
              event->detail && kind == event->kind ? event->detail : "");
    return true;
}

static void on_event(void *context, const struct dicom_event *event) {
    struct reception *reception = context;
    struct occurrence occurrence = {.event = event};
    const bool in_store = event->kind <= DICOM_EVENT_ASSOCIATION_CLOSED && !event->was_unknown;
    if (event->was_unknown)
        occurrence.opening_told = note(reception, event, DICOM_EVENT_ASSOCIATION_OPENED);
    occurrence.told = note(reception, event, event->kind);
    if (!in_store && !occurrence.told && !occurrence.opening_told) /* nothing to note of it but its number */
        return;
    struct err err = {0};
    bool recorded = store_journal_run(reception->journal, record, &occurrence, &err);
    if (!recorded && event->kind == DICOM_EVENT_ASSOCIATION_CLOSED && in_store)
        persist_closing_add(&reception->closings, event->association_id);
    if (!recorded && (occurrence.told || occurrence.opening_told))
        log_err(LOG_ERROR, "scp", "event not recorded", &err);
}

static bool sum_record(struct store *store, const struct tally_sum *sum, struct err *err) {
    const struct event_row *row = &event_rows[sum->kind];
    char detail[160];
    snprintf(detail, sizeof detail, "%s; %lld more within %lld s%s, not listed one by one", row->name,
             (long long)sum->count, (long long)((sum->span_ms + 999) / 1000), *sum->peer ? "" : " by other peers");
    struct store_audit audit = {.code = row->code,
                                .action = row->action,
                                .actor = "",
                                .address = sum->peer,
                                .study_uid = "",
                                .detail = detail,
                                .outcome = row->outcome};
    return sum->kind == EVENT_NOT_STORED || store_audit_append(store, &audit, err);
}

/* What was not told one by one, once a minute; all: now. */
static void write_sums(struct reception *reception, bool all) {
    struct tally_sum sum;
    while (tally_take(reception->tally, pulmo_monotonic_ms(), all, &sum)) {
        struct err err = {0};
        struct store *store = borrow(reception, &err);
        bool recorded = store && sum_record(store, &sum, &err);
        if (store)
            give_back(reception, store);
        if (!recorded) {
            tally_put_back(reception->tally, &sum);
            log_err(LOG_ERROR, "scp", "events not recorded", &err);
            return;
        }
        log_event(event_rows[sum.kind].level, "scp", event_rows[sum.kind].name, "peer=%s more=%lld within_s=%lld",
                  *sum.peer ? sum.peer : "others", (long long)sum.count, (long long)((sum.span_ms + 999) / 1000));
    }
}

/* An association that ended unseen would hold its studies open. */
static void write_closings(struct reception *reception) {
    struct err err = {0};
    struct store *store = persist_closings_any(&reception->closings) ? borrow(reception, &err) : NULL;
    if (!store)
        return;
    bool written = persist_closings_write(&reception->closings, store, &err);
    give_back(reception, store);
    if (written)
        log_event(LOG_INFO, "scp", "associations closed later", "pending=0");
}

static bool on_commitment(void *context, const struct dicom_commitment_report *report, struct err *err) {
    struct reception *reception = context;
    struct store *store = borrow(reception, err);
    if (!store)
        return false;
    bool noted = confirm_report(reception->config, store, report, err);
    give_back(reception, store);
    log_event(noted ? LOG_INFO : LOG_WARNING, "scp", "storage commitment reported",
              "transaction_uid=%s stored=%zu failed=%zu reason=\"%s\"", report->transaction_uid, report->stored_count,
              report->failed_count, noted ? "" : err->text);
    return noted;
}

static struct dicom_scp *start_scp(struct reception *reception, const struct dicom_tls *tls, struct err *err) {
    const struct config *config = reception->config;
    struct dicom_scp_config scp = {
        .port = (uint16_t)(tls ? config->dicom_tls_port : config->dicom_port),
        .bind_address = *config->dicom_bind ? config->dicom_bind : NULL,
        .ae_title = config->ae_title,
        .called_aets = config->called_aets,
        .calling_aets = config->calling_aets,
        .addresses = config->allowed_addresses,
        .tls = tls,
        .commitments = on_commitment,
        .associations_max = (uint32_t)config->associations_max,
        .associations_max_an_address = (uint32_t)config->associations_max_an_address,
        .reception_bytes_max = (size_t)config->reception_mb_max << 20,
        .instance_bytes_max = (size_t)config->instance_mb_max << 20,
        .pdu_bytes_max = (uint32_t)config->pdu_bytes_max,
        .timeout_s = (int)config->dicom_timeout_s,
    };
    struct dicom_scp *started = dicom_scp_start(&scp, on_instance, on_event, reception, err);
    if (started)
        log_event(LOG_INFO, "scp", "listening", "port=%u ae_title=%s tls=%s", dicom_scp_port(started), config->ae_title,
                  tls ? "yes" : "no");
    return started;
}

static bool audit_application(struct reception *reception, const char *action, struct err *err) {
    struct store *store = borrow(reception, err);
    if (!store)
        return false;
    struct store_audit audit = {
        .code = "110100", .action = action, .actor = "pulmo", .address = "", .study_uid = "", .detail = "reception"};
    bool good = store_audit_append(store, &audit, err);
    give_back(reception, store);
    return good;
}

static bool listen_until_stopped(struct reception *reception, struct err *err) {
    const struct config *config = reception->config;
    struct dicom_tls tls = {.key_file = config->dicom_tls_key,
                            .certificate_file = config->dicom_tls_certificate,
                            .ca_file = *config->dicom_tls_ca ? config->dicom_tls_ca : NULL,
                            .require_peer_certificate = config->dicom_tls_require_peer != 0};
    bool with_tls = *config->dicom_tls_certificate != '\0';
    struct outbox *outbox = outbox_start(config, err); /* first: whoever finds the port open finds it staying open */
    struct dicom_scp *plain = outbox ? start_scp(reception, NULL, err) : NULL;
    struct dicom_scp *secure = plain && with_tls ? start_scp(reception, &tls, err) : NULL;
    bool good = plain && (secure || !with_tls);
    while (good && !stop_requested) {
        poll(NULL, 0, 250);
        write_closings(reception);
        write_sums(reception, false);
    }
    if (secure)
        dicom_scp_refuse(secure); /* both drain at one time, or the supervisor would lose its patience */
    if (plain)
        dicom_scp_refuse(plain);
    if (secure)
        dicom_scp_stop(secure);
    if (plain)
        dicom_scp_stop(plain);
    if (outbox) /* last: it may be waiting for a silent peer, and what it leaves unsent is sent at the next start */
        outbox_stop(outbox);
    return good;
}

static void *run_keeper(void *context) {
    struct reception *reception = context;
    struct err last = {0};
    while (!atomic_load(&reception->keeper_stops)) {
        struct err err = {0};
        if (!store_journal_keep(reception->journal, KEEP_WAIT_MS, &err) && err.kind != last.kind)
            log_err(LOG_ERROR, "scp", "journal not kept", &err); /* once, not four times a second */
        last = err;
    }
    return NULL;
}

static bool keeper_start(struct reception *reception, struct err *err) {
    struct store_config config = processes_store_config(reception->config);
    struct err ignored = {0};
    reception->journal = store_journal_open(&config, err);
    if (!reception->journal)
        return false;
    store_journal_set_pixel_digest(reception->journal, dicom_pixel_digest);
    if (!store_journal_keep(reception->journal, 0, &ignored))
        log_err(LOG_ERROR, "scp", "journal not kept", &ignored);
    if (pthread_create(&reception->keeper, NULL, run_keeper, reception) == 0)
        return true;
    store_journal_close(reception->journal);
    return err_set(err, ERR_MEMORY, "no thread for the journal");
}

/* What a crash would leave to the next start is done now: a folder at rest holds plain files. */
static void keeper_stop(struct reception *reception) {
    struct err err = {0};
    atomic_store(&reception->keeper_stops, true);
    pthread_join(reception->keeper, NULL);
    struct store *store = borrow(reception, &err);
    if (!store || !store_journal_flush(reception->journal, &err) || !store_journal_checkpoint(store, &err))
        log_err(LOG_WARNING, "scp", "journal not emptied", &err);
    if (store)
        give_back(reception, store);
    store_journal_close(reception->journal);
}

/* After what the former process acknowledged has its rows: until then its associations hold the studies open. */
static bool associations_reset(struct reception *reception, struct err *err) {
    struct store *store = borrow(reception, err);
    bool good = store && store_associations_reset(store, err);
    if (store)
        give_back(reception, store);
    return good;
}

static bool receive(struct reception *reception, struct err *err) {
    struct err ignored = {0};
    if (!keeper_start(reception, err))
        return false;
    bool good = associations_reset(reception, err) && audit_application(reception, "110120", err) &&
                listen_until_stopped(reception, err);
    write_sums(reception, true);
    keeper_stop(reception);
    if (good && !audit_application(reception, "110121", &ignored))
        log_err(LOG_ERROR, "scp", "stop not recorded", &ignored);
    return good;
}

/* An arena keeps its largest load. Eight a core, glibc's default, went on growing for 30,000 associations. The buffers
 * of an association, of PDUs and of 1 MiB for an instance, get pages of their own, which go when it ends. By itself
 * glibc cuts them from the arenas as soon as the first was freed: an aborted association uses little of its buffer, the
 * next one another little part, and after 100,000 of them memory still grew. */
static void memory_tune(void) {
    (void)mallopt(M_ARENA_MAX, ARENAS_MAX);
    (void)mallopt(M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, TRIM_BYTES); /* as glibc by itself: one that is set leaves the other at 128 KiB */
}

bool reception_run(const struct config *config, struct err *err) {
    struct reception reception = {
        .config = config, .lock = PTHREAD_MUTEX_INITIALIZER, .closings.lock = PTHREAD_MUTEX_INITIALIZER};
    memory_tune();
    reception.tally = tally_new(err);
    struct store *store = reception.tally ? processes_store_open(config, err) : NULL;
    if (store)
        give_back(&reception, store);
    bool good = store && receive(&reception, err);
    while (reception.idle_count)
        store_close(reception.idle[--reception.idle_count]);
    tally_free(reception.tally);
    pthread_mutex_destroy(&reception.lock);
    return good;
}
