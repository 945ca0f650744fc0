/* Associations and the DIMSE commands on them (PS3.7), above DCMTK's upper layer. Private to dicom/. */
#ifndef PULMO_DICOM_ASSOCIATION_H
#define PULMO_DICOM_ASSOCIATION_H

#include "dicom/dcmtk_shim.h"
#include "dicom/inbox.h"

struct listener;    /* any thread */
struct association; /* one thread at a time */

struct listener_config {
    uint16_t port;            /* 0 = any free one */
    const char *bind_address; /* NULL = all */
    const struct shim_tls *tls;
    uint32_t pdu_bytes_max;
    int timeout_s; /* of a silent peer */
    /* What data sets that are being received may take together: each may be of hundreds of megabytes, and a crowd of
     * such must not take the machine's memory. */
    size_t datasets_bytes_max;
};
struct listener *listener_open(const struct listener_config *config, struct err *err);
uint16_t listener_port(const struct listener *listener);
void listener_close(struct listener *listener); /* after its associations */

/* Waits up to wait_ms for a TCP connection and takes it, WITHOUT reading from it: a silent peer must not hold the
 * accepting thread. *out = NULL when none came. Sets TCP_NODELAY. */
bool association_take(struct listener *listener, int wait_ms, struct association **out, struct err *err) PULMO_MUST_USE;
const char *association_peer(const struct association *association); /* numeric address; borrowed */
/* On the association's own thread: TLS handshake and A-ASSOCIATE-RQ. *out is set on failure too (said_nothing). */
bool association_receive(struct association *association, struct shim_request *out, struct err *err) PULMO_MUST_USE;
bool association_accept(struct association *association, const char *const *sop_class_uids, size_t sop_classes,
                        const char *const *transfer_syntax_uids, size_t transfer_syntaxes,
                        struct err *err) PULMO_MUST_USE;
enum association_reject { REJECT_CALLED_AET, REJECT_CALLING_AET, REJECT_LIMIT, REJECT_CONGESTION, REJECT_CONTEXT_NAME };
void association_reject(struct association *association, enum association_reject reason);
/* False: the peer has said nothing for wait_s. Of a server. */
bool association_has_bytes(struct association *association, int wait_s);
/* The peer has asked for a release, which is not answered yet. */
bool association_is_released(const struct association *association);
/* That answer, before association_close would send it. */
void association_answer_release(struct association *association);
/* Release answered or abort sent as fits, then frees. */
void association_close(struct association *association);
void association_close_at(struct association **association);
/* Makes a blocking read of another thread return, for a prompt stop. Any thread, before association_close. */
void association_interrupt(struct association *association);
/* The same with an A-ABORT of the service provider before it (PS3.8 9.3.8), where the association is not encrypted; an
 * encrypted one just ends, which is an A-P-ABORT too. Only while its own thread reads. */
void association_abort(struct association *association);

/* ---- server: dicom/dimse.c --------------------------------------------------------------------------- */

enum command_kind {
    COMMAND_ECHO,
    COMMAND_STORE,
    COMMAND_EVENT,
    COMMAND_OTHER,
    COMMAND_CANCEL,
    COMMAND_RELEASE,
    COMMAND_ABORT
};
struct command {
    enum command_kind kind;
    uint8_t context_id;
    uint16_t message_id, field, status;
    bool has_dataset;
    char sop_class_uid[DICOM_UID_SIZE], sop_instance_uid[DICOM_UID_SIZE]; /* as the command says */
    char context_class_uid[DICOM_UID_SIZE], transfer_syntax_uid[DICOM_UID_SIZE];
    /* As received; borrowed until command_free, or the next command_read. Of a C-STORE also the Part 10 file of it
     * (preamble zeroed), which the data set is the end of, and that file's digest. */
    struct bytes dataset, file;
    char file_sha256[DIGEST_HEX_SIZE];
    /* The data set was longer than size_max, or there was no room for it: read to its end, thrown away. */
    bool too_large, no_room;
};
/* Reads a command with its data set. ERR_NETWORK: closed or silent; ERR_INPUT: against the protocol; ERR_LIMIT: the
 * data set did not end. The association is of no further use after an error. */
bool command_read(struct association *association, size_t size_max, struct command *out,
                  struct err *err) PULMO_MUST_USE;
void command_free(struct association *association, struct command *command);
/* comment: at most 64 characters are sent (0000,0902); NULL = none. */
bool command_respond(struct association *association, const struct command *command, uint16_t status,
                     const char *comment, struct err *err) PULMO_MUST_USE;

/* ---- client ------------------------------------------------------------------------------------------ */

struct connect_config {
    const char *host, *called_aet, *calling_aet;
    uint16_t port;
    const struct shim_tls *tls;
    int timeout_s;
};
struct association *association_connect(const struct connect_config *config, const struct shim_proposal *proposals,
                                        size_t count, struct err *err);
bool association_echo(struct association *association, struct err *err) PULMO_MUST_USE;
/* Sends a data set with its bytes as they are; *status = the peer's DIMSE status. ERR_UNSUPPORTED when the peer
 * accepted no fitting presentation context (the association lives on). */
struct store_request {
    const char *sop_class_uid, *sop_instance_uid, *transfer_syntax_uid;
    struct bytes dataset; /* borrowed */
};
bool association_store(struct association *association, const struct store_request *request, uint16_t *status,
                       struct err *err) PULMO_MUST_USE;
/* Any other request with a data set, in Implicit VR Little Endian; its answers are read with command_read.
 * ERR_UNSUPPORTED when the peer did not accept the class. */
enum { FIELD_FIND = 0x0020, FIELD_ACTION = 0x0130, FIELD_RESPONSE = 0x8000 }; /* Command Field, PS3.7 E.1 */
struct plain_request {
    uint16_t field;
    const char *sop_class_uid;
    const char *sop_instance_uid; /* of N-ACTION; NULL = none */
    uint16_t action_type;
    struct bytes dataset; /* borrowed */
};
bool association_request(struct association *association, const struct plain_request *request, uint16_t *message_id,
                         struct err *err) PULMO_MUST_USE;
/* How long the next reads may wait. */
void association_set_timeout_s(struct association *association, int timeout_s);
bool association_release(struct association *association, struct err *err) PULMO_MUST_USE;

/* For dimse.c. */
struct inbox *association_inbox(struct association *association);
const char *association_calling_aet(const struct association *association); /* of a server */
bool association_reserve(struct association *association, size_t size);     /* false: no room */
void association_unreserve(struct association *association);                /* all of it */
struct shim_dul *association_dul(struct association *association);
int association_timeout_s(const struct association *association);
uint16_t association_next_message_id(struct association *association);
void association_set_released(struct association *association); /* the peer asked for release: owed an answer */
void association_set_gone(struct association *association);     /* the peer aborted or closed: nothing is owed */

#endif
