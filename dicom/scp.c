#include "dicom/association.h"
#include "dicom/commitment.h"
#include "dicom/dicom.h"
#include "dicom/scp_access.h"
#include "dicom/scp_tables.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    ACCEPT_WAIT_MS = 250,
    HANDSHAKE_MAX_S = 20,         /* a peer that says nothing is dropped after this */
    TRANSFER_MAX_S = 600,         /* for one command with its data set: a peer that drips bytes */
    DRAIN_MS = 8000,              /* of a stop: with the abort after it within the 15 s that the supervisor grants */
    WAITING_MAX = 256,            /* peers that have not said who they are; they hold no association slot */
    WAITING_MAX_AN_ADDRESS = 128, /* of one address, so that it cannot keep others out */
    PATIENCE_MS = 1000,           /* with one that waits, when another asks for its place */
    LEAVING_MAX = 64,             /* associations that are answered and not yet on record: a thread each */
    ECHO_WAIT_S = 1,              /* for a command, before an association is told of that has sent none or C-ECHO */
    ASSOCIATIONS_DEFAULT = 16
};

static const char *const SOP_CLASSES[] = {
    "1.2.840.10008.5.1.4.1.1.2",   /* CT Image Storage */
    "1.2.840.10008.5.1.4.1.1.2.1", /* Enhanced CT Image Storage */
    "1.2.840.10008.5.1.4.1.1.2.2", /* Legacy Converted Enhanced CT Image Storage */
};
/* In order of preference where one context offers several: lossless before lossy, cheap to decode first. */
static const char *const TRANSFER_SYNTAXES[] = {
    "1.2.840.10008.1.2.1",     /* Explicit VR Little Endian */
    "1.2.840.10008.1.2",       /* Implicit VR Little Endian */
    "1.2.840.10008.1.2.2",     /* Explicit VR Big Endian */
    "1.2.840.10008.1.2.1.99",  /* Deflated */
    "1.2.840.10008.1.2.5",     /* RLE */
    "1.2.840.10008.1.2.4.80",  /* JPEG-LS lossless */
    "1.2.840.10008.1.2.4.201", /* HTJ2K lossless */
    "1.2.840.10008.1.2.4.202", /* HTJ2K lossless RPCL */
    "1.2.840.10008.1.2.4.70",  /* JPEG lossless SV1 */
    "1.2.840.10008.1.2.4.57",  /* JPEG lossless */
    "1.2.840.10008.1.2.4.90",  /* JPEG 2000 lossless */
    "1.2.840.10008.1.2.4.81",  /* JPEG-LS near-lossless */
    "1.2.840.10008.1.2.4.203", /* HTJ2K */
    "1.2.840.10008.1.2.4.91",  /* JPEG 2000 */
    "1.2.840.10008.1.2.4.51",  /* JPEG extended, 12 bits */
    "1.2.840.10008.1.2.4.50",  /* JPEG baseline */
    "1.2.840.10008.1.2.4.53",  /* retired JPEG processes that old archives hold */
    "1.2.840.10008.1.2.4.55",
};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

/* WAITING: for its request, or to be told why not; OPEN: accepted, holds an association slot; LEAVING: answered for the
 * last time, it is still being put on record. */
enum stage { WAITING, OPEN, LEAVING, STAGES };

/* One connection and its thread. Listed in the SCP from its acceptance until just before it is closed. */
struct worker {
    struct dicom_scp *scp;
    struct association *association;
    struct worker *next;
    uint64_t id;
    enum stage stage;
    bool interrupted;
    bool answering;              /* has a whole command at hand: a stop lets it finish and be answered */
    int64_t since_ms;            /* monotonic */
    _Atomic int64_t deadline_ms; /* monotonic */
    struct shim_request request;
    char peer[64];
    bool told; /* the sink of events knows of the association; asked by its thread alone */
};

struct dicom_scp {
    struct listener *listener;
    struct access *access;
    dicom_sink *sink;
    dicom_event_sink *events;
    dicom_commitment_sink *commitments;
    void *context;
    size_t instance_bytes_max, reception_bytes_max, associations_max, associations_max_an_address;
    int timeout_s;
    uint64_t next_id;
    pthread_t thread;
    atomic_bool stopping; /* new associations are rejected; those in progress go on */
    int64_t stop_by_ms;   /* monotonic, set with stopping */
    atomic_bool drained;  /* no new connections and no further commands */
    pthread_mutex_t lock; /* of the list and the counts */
    pthread_cond_t ended;
    struct worker *workers;
    size_t count[STAGES];
};

/* ---- events ------------------------------------------------------------------------------------------ */

static void tell_event(const struct worker *worker, struct dicom_event event) {
    event.calling_aet = worker->request.calling_aet;
    event.called_aet = worker->request.called_aet;
    event.peer_address = worker->peer;
    event.association_id = worker->id;
    if (worker->scp->events != NULL)
        worker->scp->events(worker->scp->context, &event);
}

static void tell(const struct worker *worker, enum dicom_event_kind kind, uint16_t status, const char *instance_uid,
                 const char *detail) {
    tell_event(worker, (struct dicom_event){
                           .kind = kind, .status = status, .sop_instance_uid = instance_uid, .detail = detail});
}

/* ---- C-STORE ----------------------------------------------------------------------------------------- */

uint16_t dicom_scp_status(enum err_kind kind) {
    switch (kind) {
    case ERR_NO_SPACE:
    case ERR_IO:   /* a disk that fails says nothing against the instance */
    case ERR_BUSY: /* the database, for longer than its patience: as good a reason to send again */
    case ERR_MEMORY: return STATUS_OUT_OF_RESOURCES;
    case ERR_UNSUPPORTED: return STATUS_CLASS_NOT_SUPPORTED;
    case ERR_DENIED: return STATUS_NOT_AUTHORISED;
    default: return STATUS_CANNOT_UNDERSTAND;
    }
}

static bool is_among(const char *uid, const char *const *uids, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(uid, uids[i]) == 0)
            return true;
    return false;
}

bool scp_takes_class(const char *sop_class_uid) {
    return is_among(sop_class_uid, SOP_CLASSES, COUNT(SOP_CLASSES));
}

bool scp_takes_syntax(const char *transfer_syntax_uid) {
    return is_among(transfer_syntax_uid, TRANSFER_SYNTAXES, COUNT(TRANSFER_SYNTAXES));
}

static bool check_command(const struct dicom_scp *scp, const struct command *command, uint16_t *status,
                          struct err *err) {
    if (strcmp(command->sop_class_uid, command->context_class_uid) != 0 || !scp_takes_class(command->sop_class_uid)) {
        *status = STATUS_CLASS_NOT_SUPPORTED;
        return err_set(err, ERR_UNSUPPORTED, "SOP class of the command is not the context's, or not CT");
    }
    if (command->no_room && !command->too_large) {
        *status = STATUS_OUT_OF_RESOURCES;
        return err_set(err, ERR_MEMORY, "data sets in reception take all of %zu bytes", scp->reception_bytes_max);
    }
    if (command->too_large) {
        *status = STATUS_OUT_OF_RESOURCES;
        return err_set(err, ERR_LIMIT, "data set of more than %zu bytes", scp->instance_bytes_max);
    }
    if (!command->has_dataset || command->dataset.size == 0) {
        *status = STATUS_CANNOT_UNDERSTAND;
        return err_set(err, ERR_INPUT, "C-STORE without a data set");
    }
    return true;
}

/* True when the instance would survive a power cut; otherwise *status tells the peer and err the audit trail. */
static bool store(struct worker *worker, const struct command *command, uint16_t *status, struct err *err) {
    struct instance instance;
    if (!check_command(worker->scp, command, status, err))
        return false;
    if (!dicom_instance_parse(command->file.data, command->file.size, &instance, err)) {
        *status = err->kind == ERR_MEMORY ? STATUS_OUT_OF_RESOURCES : STATUS_CANNOT_UNDERSTAND;
        return false;
    }
    if (strcmp(instance.sop_class_uid, command->sop_class_uid) != 0 ||
        strcmp(instance.sop_instance_uid, command->sop_instance_uid) != 0) {
        *status = STATUS_NOT_MATCHING;
        return err_set(err, ERR_INPUT, "SOP class or instance of the data set is not the command's");
    }
    memcpy(instance.calling_aet, worker->request.calling_aet, sizeof instance.calling_aet);
    instance.association_id = worker->id; /* several of one peer may be open at once */
    instance.part10_sha256 = command->file_sha256;
    memcpy(instance.called_aet, worker->request.called_aet, sizeof instance.called_aet);
    memcpy(instance.peer_address, worker->peer, sizeof instance.peer_address);
    if (!worker->scp->sink(worker->scp->context, &instance, err)) {
        *status = dicom_scp_status(err->kind);
        return false;
    }
    return true;
}

static bool answer_store(struct worker *worker, const struct command *command, struct err *err) {
    struct err why = {0};
    uint16_t status = STATUS_SUCCESS;
    if (!store(worker, command, &status, &why))
        tell(worker, DICOM_EVENT_INSTANCE_REFUSED, status, command->sop_instance_uid, why.text);
    return command_respond(worker->association, command, status, why.text, err);
}

/* ---- an association ---------------------------------------------------------------------------------- */

static void set_deadline(struct worker *worker, int seconds) {
    atomic_store(&worker->deadline_ms, pulmo_monotonic_ms() + (int64_t)seconds * 1000);
}

static bool answer(struct worker *worker, const struct command *command, struct err *err) {
    switch (command->kind) {
    case COMMAND_ECHO: return command_respond(worker->association, command, STATUS_SUCCESS, NULL, err);
    case COMMAND_STORE: return answer_store(worker, command, err);
    case COMMAND_EVENT:
        return commitment_answer(worker->association, command, worker->scp->commitments, worker->scp->context, err);
    case COMMAND_OTHER: return command_respond(worker->association, command, STATUS_NO_SUCH_OPERATION, NULL, err);
    default: return true; /* C-CANCEL is not answered */
    }
}

/* False when a stop has given up on this association: what came last is not answered, so the peer sends it again. */
static bool set_answering(struct worker *worker, bool answering) {
    pthread_mutex_lock(&worker->scp->lock);
    worker->answering = answering;
    const bool goes_on = !worker->interrupted && (answering || !atomic_load(&worker->scp->drained));
    pthread_mutex_unlock(&worker->scp->lock);
    return goes_on;
}

/* The lock is held. */
static void set_stage(struct worker *worker, enum stage stage) {
    worker->scp->count[worker->stage]--;
    worker->scp->count[stage]++;
    worker->stage = stage;
}

/* To record an association costs a commit, in turn with those of all that is being received. Who only asks whether we
 * are alive is answered without it: C-ECHO and release leave nothing behind that a record would have to precede. So an
 * association is told of before its first other command, when it rests, or, at the latest, when it has ended. */
static void tell_opened(struct worker *worker) {
    if (!worker->told)
        tell(worker, DICOM_EVENT_ASSOCIATION_OPENED, 0, "", "");
    worker->told = true;
}

/* The answer to a release gives the slot back: a peer that comes again at once finds it free. Not when too many are on
 * their way out already: then the record comes first, and whoever asks too often is slowed down by it. */
static bool leave(struct worker *worker) {
    struct dicom_scp *scp = worker->scp;
    if (worker->told || !association_is_released(worker->association))
        return false;
    pthread_mutex_lock(&scp->lock);
    const bool may_leave = scp->count[LEAVING] < LEAVING_MAX;
    if (may_leave)
        set_stage(worker, LEAVING);
    pthread_cond_broadcast(&scp->ended);
    pthread_mutex_unlock(&scp->lock);
    if (may_leave)
        association_answer_release(worker->association);
    return may_leave;
}

/* Says how an association ended; of one that left, in one event that it was there. */
static void tell_closed(struct worker *worker, const struct err *err) {
    const char *ended = err->kind != ERR_NONE ? err->text : "released or aborted";
    const bool left = leave(worker);
    if (!left)
        tell_opened(worker);
    if (err->kind == ERR_INPUT || err->kind == ERR_LIMIT)
        tell(worker, DICOM_EVENT_PROTOCOL_ERROR, 0, "", err->text);
    tell_event(worker, (struct dicom_event){
                           .kind = DICOM_EVENT_ASSOCIATION_CLOSED,
                           .was_unknown = left,
                           .sop_instance_uid = "",
                           .detail = atomic_load(&worker->scp->drained) ? "aborted, since reception stops" : ended});
}

/* One command with its answer; false when the association is over. */
static bool serve_command(struct worker *worker, const struct command *command, struct err *err) {
    if (command->kind == COMMAND_RELEASE || command->kind == COMMAND_ABORT || !set_answering(worker, true))
        return false;
    if (command->kind != COMMAND_ECHO)
        tell_opened(worker);
    const bool answered = answer(worker, command, err);
    return set_answering(worker, false) && answered;
}

/* Serves commands until the peer releases, aborts, breaks the protocol or falls silent, or a stop has waited enough. */
static void serve(struct worker *worker) {
    struct err err = {0};
    for (bool more = true; more;) {
        struct command command;
        set_deadline(worker, worker->scp->timeout_s + TRANSFER_MAX_S);
        if (!worker->told && !association_has_bytes(worker->association, ECHO_WAIT_S))
            tell_opened(worker);
        if (!command_read(worker->association, worker->scp->instance_bytes_max, &command, &err))
            break;
        more = serve_command(worker, &command, &err);
        command_free(worker->association, &command);
    }
    tell_closed(worker, &err);
}

/* The lock is held. */
static size_t count_open(const struct dicom_scp *scp, const char *peer) {
    size_t same = 0;
    for (const struct worker *worker = scp->workers; worker != NULL; worker = worker->next)
        same += worker->stage == OPEN && strcmp(worker->peer, peer) == 0;
    return same;
}

static bool take_slot(struct worker *worker) {
    struct dicom_scp *scp = worker->scp;
    pthread_mutex_lock(&scp->lock);
    const bool free_slot = scp->count[OPEN] < scp->associations_max && !atomic_load(&scp->stopping) &&
                           count_open(scp, worker->peer) < scp->associations_max_an_address;
    if (free_slot)
        set_stage(worker, OPEN);
    pthread_mutex_unlock(&scp->lock);
    return free_slot;
}

static bool reject(struct worker *worker, enum association_reject reason, const char *detail) {
    association_reject(worker->association, reason);
    tell(worker, DICOM_EVENT_ASSOCIATION_REJECTED, 0, "", detail);
    return false;
}

/* AE titles that are none (control characters, say) are not passed on to the audit trail either. */
static bool check_titles(struct worker *worker) {
    struct shim_request *request = &worker->request;
    const struct access *access = worker->scp->access;
    if (!access_is_aet(request->calling_aet) || !access_is_aet(request->called_aet)) {
        request->calling_aet[0] = request->called_aet[0] = '\0';
        return reject(worker, REJECT_CALLING_AET, "an AE title with characters that none has");
    }
    if (!access_called_ok(access, request->called_aet))
        return reject(worker, REJECT_CALLED_AET, "called AE title is not ours");
    if (!access_calling_ok(access, request->calling_aet))
        return reject(worker, REJECT_CALLING_AET, "calling AE title is not on the allow-list");
    return true;
}

static bool was_interrupted(struct worker *worker) {
    pthread_mutex_lock(&worker->scp->lock);
    const bool interrupted = worker->interrupted;
    pthread_mutex_unlock(&worker->scp->lock);
    return interrupted;
}

/* Those who only look whether the port is open leave no row in the audit trail; those who stay silent do. */
static bool refuse_stranger(struct worker *worker, const struct err *err) {
    if (was_interrupted(worker))
        tell(worker, DICOM_EVENT_PROTOCOL_ERROR, 0, "", "no association: silent for too long");
    else if (!worker->request.said_nothing)
        tell(worker, DICOM_EVENT_PROTOCOL_ERROR, 0, "", err->text);
    return false;
}

static bool open_association(struct worker *worker) {
    struct err err = {0};
    set_deadline(worker, worker->scp->timeout_s < HANDSHAKE_MAX_S ? worker->scp->timeout_s : HANDSHAKE_MAX_S);
    if (!association_receive(worker->association, &worker->request, &err))
        return refuse_stranger(worker, &err);
    if (!worker->request.is_dicom)
        return reject(worker, REJECT_CONTEXT_NAME, "application context is not DICOM's");
    if (!check_titles(worker))
        return false;
    if (!take_slot(worker))
        return atomic_load(&worker->scp->stopping) ? reject(worker, REJECT_CONGESTION, "reception stops")
                                                   : reject(worker, REJECT_LIMIT, "too many associations");
    if (!association_accept(worker->association, SOP_CLASSES, COUNT(SOP_CLASSES), TRANSFER_SYNTAXES,
                            COUNT(TRANSFER_SYNTAXES), &err)) {
        tell(worker, DICOM_EVENT_PROTOCOL_ERROR, 0, "", err.text);
        return false;
    }
    return true;
}

/* ---- threads ----------------------------------------------------------------------------------------- */

/* Takes the worker off the list first: from then on no other thread touches its association. */
static void end(struct worker *worker) {
    struct dicom_scp *scp = worker->scp;
    pthread_mutex_lock(&scp->lock);
    struct worker **link = &scp->workers;
    while (*link != worker)
        link = &(*link)->next;
    *link = worker->next;
    pthread_mutex_unlock(&scp->lock);
    const enum stage stage = worker->stage;
    association_close(worker->association);
    free(worker);
    pthread_mutex_lock(&scp->lock);
    scp->count[stage]--;
    pthread_cond_broadcast(&scp->ended);
    pthread_mutex_unlock(&scp->lock);
}

static void *run_worker(void *context) {
    struct worker *worker = context;
    if (open_association(worker))
        serve(worker);
    end(worker);
    return NULL;
}

/* The one of all, or of an address (not NULL), that waits the longest, if there are `most` of them; the list has the
 * newest first, and the lock is held. */
static struct worker *longest_waiting(const struct dicom_scp *scp, const char *peer, size_t most) {
    struct worker *longest = NULL;
    size_t count = 0;
    for (struct worker *worker = scp->workers; worker != NULL; worker = worker->next) {
        if (worker->stage != WAITING || worker->interrupted || (peer != NULL && strcmp(worker->peer, peer) != 0))
            continue;
        count++;
        longest = worker;
    }
    return count >= most ? longest : NULL;
}

/* Who says nothing for long makes room for who comes now; a whole crowd that comes at once does not. */
static bool may_wait(struct dicom_scp *scp, const char *peer) {
    pthread_mutex_lock(&scp->lock);
    struct worker *victim = longest_waiting(scp, peer, WAITING_MAX_AN_ADDRESS);
    if (victim == NULL)
        victim = longest_waiting(scp, NULL, WAITING_MAX);
    const bool ok = victim == NULL || pulmo_monotonic_ms() - victim->since_ms > PATIENCE_MS;
    if (victim != NULL && ok) {
        victim->interrupted = true;
        association_interrupt(victim->association);
    }
    pthread_mutex_unlock(&scp->lock);
    return ok;
}

static void list(struct worker *worker) {
    struct dicom_scp *scp = worker->scp;
    pthread_mutex_lock(&scp->lock);
    worker->next = scp->workers;
    scp->workers = worker;
    scp->count[WAITING]++;
    pthread_mutex_unlock(&scp->lock);
}

static bool start_thread(struct worker *worker) {
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    const bool started = pthread_create(&thread, &attributes, run_worker, worker) == 0;
    pthread_attr_destroy(&attributes);
    return started;
}

/* A peer that may not even wait is hung up on: to answer it, its request would have to be read. */
static void turn_away(struct dicom_scp *scp, struct association *association, const char *detail) {
    struct worker nobody = {.scp = scp, .association = association};
    snprintf(nobody.peer, sizeof nobody.peer, "%s", association_peer(association));
    tell(&nobody, DICOM_EVENT_ASSOCIATION_REJECTED, 0, "", detail);
    association_close(association);
}

static void welcome(struct dicom_scp *scp, struct association *association) {
    const char *peer = association_peer(association);
    struct worker *worker = NULL;
    if (!access_address_ok(scp->access, peer)) {
        turn_away(scp, association, "address is not on the allow-list");
        return;
    }
    if (!may_wait(scp, peer) || (worker = calloc(1, sizeof *worker)) == NULL) {
        turn_away(scp, association, "too many connections that say nothing");
        return;
    }
    worker->scp = scp;
    worker->association = association;
    worker->id = scp->next_id;
    scp->next_id += 2;
    snprintf(worker->peer, sizeof worker->peer, "%s", peer);
    worker->since_ms = pulmo_monotonic_ms();
    set_deadline(worker, HANDSHAKE_MAX_S);
    list(worker);
    if (!start_thread(worker)) {
        tell(worker, DICOM_EVENT_ASSOCIATION_REJECTED, 0, "", "no thread to be had");
        end(worker);
    }
}

static void interrupt_late(struct dicom_scp *scp, int64_t now_ms) {
    pthread_mutex_lock(&scp->lock);
    for (struct worker *worker = scp->workers; worker != NULL; worker = worker->next) {
        if (!worker->interrupted && now_ms > atomic_load(&worker->deadline_ms)) {
            worker->interrupted = true;
            association_interrupt(worker->association);
        }
    }
    pthread_mutex_unlock(&scp->lock);
}

static void *run_accept(void *context) {
    struct dicom_scp *scp = context;
    while (!atomic_load(&scp->drained)) {
        struct association *association = NULL;
        struct err err = {0};
        if (!association_take(scp->listener, ACCEPT_WAIT_MS, &association, &err)) {
            tell(&(struct worker){.scp = scp}, DICOM_EVENT_ASSOCIATION_REJECTED, 0, "", err.text);
            nanosleep(&(struct timespec){.tv_nsec = ACCEPT_WAIT_MS * 1000000L}, NULL);
        } else if (association != NULL)
            welcome(scp, association);
        interrupt_late(scp, pulmo_monotonic_ms());
    }
    return NULL;
}

/* ---- start and stop ---------------------------------------------------------------------------------- */

static void scp_free(struct dicom_scp *scp) {
    listener_close(scp->listener);
    access_free(scp->access);
    pthread_cond_destroy(&scp->ended);
    pthread_mutex_destroy(&scp->lock);
    free(scp);
}

static bool open_listener(struct dicom_scp *scp, const struct dicom_scp_config *config, struct err *err) {
    struct shim_tls tls;
    struct listener_config listener = {.port = config->port,
                                       .bind_address = config->bind_address,
                                       .pdu_bytes_max = config->pdu_bytes_max,
                                       .timeout_s = scp->timeout_s,
                                       .datasets_bytes_max = scp->reception_bytes_max};
    if (config->tls != NULL) {
        if (config->tls->key_file == NULL || config->tls->certificate_file == NULL)
            return err_set(err, ERR_CONFIG, "DICOM TLS needs a key and a certificate");
        if (config->tls->require_peer_certificate && config->tls->ca_file == NULL)
            return err_set(err, ERR_CONFIG, "peers' certificates cannot be checked without a CA file");
        tls = (struct shim_tls){config->tls->key_file, config->tls->certificate_file, config->tls->ca_file,
                                config->tls->require_peer_certificate};
        listener.tls = &tls;
    }
    scp->listener = listener_open(&listener, err);
    return scp->listener != NULL;
}

struct dicom_scp *dicom_scp_start(const struct dicom_scp_config *config, dicom_sink *sink, dicom_event_sink *events,
                                  void *context, struct err *err) {
    struct dicom_scp *scp = pulmo_alloc(1, sizeof *scp, err);
    if (scp == NULL)
        return NULL;
    pthread_mutex_init(&scp->lock, NULL);
    pthread_condattr_t monotonic; /* a clock that is set moves no deadline */
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&scp->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    scp->sink = sink;
    scp->events = events;
    scp->commitments = config->commitments;
    scp->context = context;
    scp->timeout_s = config->timeout_s > 0 ? config->timeout_s : 30;
    scp->instance_bytes_max = config->instance_bytes_max > 0 ? config->instance_bytes_max : (size_t)256 << 20;
    scp->reception_bytes_max = config->reception_bytes_max > 0 ? config->reception_bytes_max : SIZE_MAX;
    scp->associations_max = config->associations_max > 0 ? config->associations_max : ASSOCIATIONS_DEFAULT;
    scp->associations_max_an_address =
        config->associations_max_an_address > 0 ? config->associations_max_an_address : scp->associations_max;
    /* Not used again after a restart; even or odd, so that a plain and a TLS port of one process share none. */
    scp->next_id = (uint64_t)pulmo_now_ms() << 16 | (config->tls != NULL);
    scp->access = access_new(config, err);
    if (scp->access == NULL || !open_listener(scp, config, err)) {
        scp_free(scp);
        return NULL;
    }
    if (pthread_create(&scp->thread, NULL, run_accept, scp) != 0) {
        err_set(err, ERR_MEMORY, "no thread for DICOM reception");
        scp_free(scp);
        return NULL;
    }
    return scp;
}

uint16_t dicom_scp_port(const struct dicom_scp *scp) {
    return listener_port(scp->listener);
}

void dicom_scp_refuse(struct dicom_scp *scp) {
    pthread_mutex_lock(&scp->lock);
    if (!atomic_exchange(&scp->stopping, true))
        scp->stop_by_ms = pulmo_monotonic_ms() + DRAIN_MS;
    pthread_mutex_unlock(&scp->lock);
}

/* Those in progress may end by themselves until the deadline; the lock is held. */
static void wait_for_open(struct dicom_scp *scp) {
    const struct timespec until = {.tv_sec = scp->stop_by_ms / 1000, .tv_nsec = scp->stop_by_ms % 1000 * 1000000};
    while (scp->count[OPEN] > 0)
        if (pthread_cond_timedwait(&scp->ended, &scp->lock, &until) != 0)
            return;
}

/* Nothing that was answered is lost by this, and nothing unanswered was promised: the peer sends it again. */
static void abort_reading(struct dicom_scp *scp) {
    for (struct worker *worker = scp->workers; worker != NULL; worker = worker->next) {
        if (worker->answering || worker->interrupted)
            continue;
        worker->interrupted = true;
        if (worker->stage == OPEN)
            association_abort(worker->association);
        else
            association_interrupt(worker->association);
    }
}

void dicom_scp_stop(struct dicom_scp *scp) {
    if (scp == NULL)
        return;
    dicom_scp_refuse(scp);
    pthread_mutex_lock(&scp->lock);
    wait_for_open(scp);
    atomic_store(&scp->drained, true);
    pthread_mutex_unlock(&scp->lock);
    pthread_join(scp->thread, NULL); /* before the last look at the list: it adds to it */
    pthread_mutex_lock(&scp->lock);
    abort_reading(scp);
    while (scp->count[WAITING] + scp->count[OPEN] + scp->count[LEAVING] > 0)
        pthread_cond_wait(&scp->ended, &scp->lock);
    pthread_mutex_unlock(&scp->lock);
    scp_free(scp);
}
