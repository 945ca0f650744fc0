#include "dicom/association.h"

#include "dicom/socket.h"

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PDU_BYTES_MIN = 4096, PDU_BYTES_MAX = 131072, TIMEOUT_DEFAULT_S = 30 }; /* DCMTK's range */

struct listener {
    int socket;
    struct shim_network *network;
    uint32_t pdu_bytes;
    int timeout_s;
    bool is_encrypted;
    size_t datasets_bytes_max;
    atomic_size_t datasets_bytes;
};

/* What is still owed to the peer when the association is closed. */
enum ending { ENDING_NOTHING, ENDING_ABORT, ENDING_RELEASE_ANSWER };

struct association {
    struct shim_network *network; /* of a client: owned; of a server: the listener's */
    bool is_client, is_encrypted;
    struct shim_dul *dul;
    int socket;  /* until the toolkit takes it */
    int control; /* a duplicate, by which another thread may shut the connection down */
    uint32_t pdu_bytes;
    int timeout_s;
    uint16_t message_id;
    enum ending ending;
    char peer[64];
    struct listener *listener; /* of a server */
    size_t reserved;           /* of the listener's bytes of data sets */
    char calling_aet[DICOM_AET_SIZE];
    struct inbox inbox;
};

static uint32_t clamp_pdu(uint32_t wanted) {
    if (wanted == 0 || wanted > PDU_BYTES_MAX)
        return PDU_BYTES_MAX;
    return wanted < PDU_BYTES_MIN ? PDU_BYTES_MIN : wanted;
}

/* ---- server ------------------------------------------------------------------------------------------ */

struct listener *listener_open(const struct listener_config *config, struct err *err) {
    struct listener *listener = pulmo_alloc(1, sizeof *listener, err);
    if (listener == NULL)
        return NULL;
    listener->pdu_bytes = clamp_pdu(config->pdu_bytes_max);
    listener->timeout_s = config->timeout_s > 0 ? config->timeout_s : TIMEOUT_DEFAULT_S;
    listener->is_encrypted = config->tls != NULL;
    listener->datasets_bytes_max = config->datasets_bytes_max;
    listener->socket = socket_listen(config->bind_address, config->port, err);
    if (listener->socket >= 0)
        listener->network = shim_network_new(config->tls, listener->socket, listener->timeout_s, err);
    if (listener->network == NULL) {
        listener_close(listener);
        return NULL;
    }
    return listener;
}

uint16_t listener_port(const struct listener *listener) {
    return socket_port(listener->socket);
}

void listener_close(struct listener *listener) {
    if (listener == NULL)
        return;
    shim_network_free(listener->network);
    if (listener->socket >= 0)
        close(listener->socket);
    free(listener);
}

bool association_take(struct listener *listener, int wait_ms, struct association **out, struct err *err) {
    struct association taken = {.network = listener->network,
                                .is_encrypted = listener->is_encrypted,
                                .listener = listener,
                                .socket = -1,
                                .pdu_bytes = listener->pdu_bytes,
                                .timeout_s = listener->timeout_s,
                                .message_id = 1};
    *out = NULL;
    if (!socket_accept(listener->socket, wait_ms, &taken.socket, taken.peer, err))
        return false;
    if (taken.socket < 0)
        return true;
    taken.control = fcntl(taken.socket, F_DUPFD_CLOEXEC, 0);
    struct association *association = pulmo_alloc(1, sizeof *association, err);
    if (association == NULL || taken.control < 0) {
        close(taken.socket);
        if (taken.control >= 0) /* or the peer would wait for ever */
            close(taken.control);
        free(association);
        return association != NULL; /* out of descriptors: this peer is turned away, the listener lives on */
    }
    *association = taken;
    *out = association;
    return true;
}

bool association_receive(struct association *association, struct shim_request *out, struct err *err) {
    struct shim_request request = {.is_dicom = false};
    const int socket = association->socket;
    association->socket = -1;
    association->dul = shim_dul_receive(association->network, socket, association->pdu_bytes, &request, err);
    *out = request;
    memcpy(association->calling_aet, request.calling_aet, sizeof association->calling_aet);
    return association->dul != NULL;
}

bool association_accept(struct association *association, const char *const *sop_class_uids, size_t sop_classes,
                        const char *const *transfer_syntax_uids, size_t transfer_syntaxes, struct err *err) {
    if (!shim_dul_accept(association->dul, sop_class_uids, sop_classes, transfer_syntax_uids, transfer_syntaxes, err))
        return false;
    association->ending = ENDING_ABORT;
    return true;
}

void association_reject(struct association *association, enum association_reject reason) {
    static const int parameters[][3] = {
        [REJECT_CALLED_AET] = {1, 1, 7},   [REJECT_CALLING_AET] = {1, 1, 3},
        [REJECT_LIMIT] = {2, 3, 2},      /* transient: try again later */
        [REJECT_CONGESTION] = {2, 3, 1}, /* transient, too: this one is about to end */
        [REJECT_CONTEXT_NAME] = {1, 1, 2},
    };
    const int *p = parameters[reason];
    shim_dul_reject(association->dul, p[0], p[1], p[2]);
}

/* ---- client ------------------------------------------------------------------------------------------ */

struct association *association_connect(const struct connect_config *config, const struct shim_proposal *proposals,
                                        size_t count, struct err *err) {
    char address[64];
    const int length = snprintf(address, sizeof address, "%s:%u", config->host, config->port);
    if (length < 0 || (size_t)length >= sizeof address || strchr(config->host, ':') != NULL) {
        err_set(err, ERR_CONFIG, "host %s: a name or an IPv4 address of at most 57 characters is needed", config->host);
        return NULL;
    }
    if (config->tls != NULL && config->tls->ca_file == NULL) {
        err_set(err, ERR_CONFIG, "TLS to %s needs a CA file to know it by", config->host);
        return NULL;
    }
    struct association *association = pulmo_alloc(1, sizeof *association, err);
    if (association == NULL)
        return NULL;
    const int timeout_s = config->timeout_s > 0 ? config->timeout_s : TIMEOUT_DEFAULT_S;
    *association =
        (struct association){.is_client = true, .socket = -1, .control = -1, .timeout_s = timeout_s, .message_id = 1};
    struct shim_tls tls;
    if (config->tls != NULL) {
        tls = *config->tls;
        tls.require_peer_certificate = true;
    }
    const struct shim_call call = {address, config->called_aet, config->calling_aet, PDU_BYTES_MAX};
    association->network = shim_network_new(config->tls != NULL ? &tls : NULL, -1, timeout_s, err);
    if (association->network != NULL)
        association->dul = shim_dul_connect(association->network, &call, proposals, count, err);
    if (association->dul == NULL) {
        association_close(association);
        return NULL;
    }
    association->ending = ENDING_ABORT;
    return association;
}

bool association_release(struct association *association, struct err *err) {
    association->ending = ENDING_NOTHING;
    return shim_dul_release(association->dul, SHIM_SIDE_CLIENT, err);
}

/* ---- both -------------------------------------------------------------------------------------------- */

const char *association_peer(const struct association *association) {
    return association->peer;
}

const char *association_calling_aet(const struct association *association) {
    return association->calling_aet;
}

struct inbox *association_inbox(struct association *association) {
    return &association->inbox;
}

struct shim_dul *association_dul(struct association *association) {
    return association->dul;
}

int association_timeout_s(const struct association *association) {
    return association->timeout_s;
}

void association_set_timeout_s(struct association *association, int timeout_s) {
    association->timeout_s = timeout_s;
}

uint16_t association_next_message_id(struct association *association) {
    return association->message_id++;
}

bool association_reserve(struct association *association, size_t size) {
    struct listener *listener = association->listener;
    if (listener == NULL)
        return true;
    if (atomic_fetch_add(&listener->datasets_bytes, size) + size > listener->datasets_bytes_max) {
        atomic_fetch_sub(&listener->datasets_bytes, size);
        return false;
    }
    association->reserved += size;
    return true;
}

void association_unreserve(struct association *association) {
    if (association->listener != NULL)
        atomic_fetch_sub(&association->listener->datasets_bytes, association->reserved);
    association->reserved = 0;
}

void association_set_released(struct association *association) {
    association->ending = association->is_client ? ENDING_NOTHING : ENDING_RELEASE_ANSWER;
}

void association_set_gone(struct association *association) {
    association->ending = ENDING_NOTHING;
}

void association_interrupt(struct association *association) {
    (void)shutdown(association->control, SHUT_RDWR); /* fails only where the peer is gone already */
}

void association_abort(struct association *association) {
    static const uint8_t a_abort[] = {7, 0, 0, 0, 0, 4, 0, 0, 2, 0}; /* source: service provider, no reason given */
    if (!association->is_encrypted)
        (void)!send(association->control, a_abort, sizeof a_abort, MSG_DONTWAIT | MSG_NOSIGNAL);
    association_interrupt(association);
}

bool association_has_bytes(struct association *association, int wait_s) {
    struct pollfd ready = {.fd = association->control, .events = POLLIN};
    return poll(&ready, 1, wait_s * 1000) != 0; /* of an error the read will tell */
}

bool association_is_released(const struct association *association) {
    return association->ending == ENDING_RELEASE_ANSWER;
}

void association_answer_release(struct association *association) {
    struct err ignored = {0};
    if (!association_is_released(association))
        return;
    (void)!shim_dul_release(association->dul, SHIM_SIDE_SERVER, &ignored);
    association->ending = ENDING_NOTHING;
}

void association_close(struct association *association) {
    association_unreserve(association);
    association_answer_release(association);
    if (association->dul != NULL)
        shim_dul_free(association->dul, association->ending == ENDING_ABORT);
    if (association->socket >= 0)
        close(association->socket);
    if (association->dul == NULL && association->control >= 0)
        shutdown(association->control, SHUT_RDWR); /* DCMTK, out of memory, may have lost the other descriptor */
    if (association->control >= 0)
        close(association->control);
    if (association->is_client)
        shim_network_free(association->network);
    inbox_free(&association->inbox);
    free(association);
}

void association_close_at(struct association **association) {
    if (*association != NULL)
        association_close(*association);
}
