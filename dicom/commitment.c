/* We are the service class user: N-ACTION asks, N-EVENT-REPORT answers, at once on the same association or hours later
 * on one that the peer opens (PS3.4 J.3). */
#include "dicom/commitment.h"

#include "dicom/object.h"
#include "dicom/scu.h"

#include <stdlib.h>
#include <string.h>

#define COMMITMENT_CLASS "1.2.840.10008.1.20.1"
#define COMMITMENT_INSTANCE "1.2.840.10008.1.20.1.1" /* the well-known one, PS3.4 J.3.5 */
#define TAG_TRANSACTION 0x00081195
#define TAG_FAILED 0x00081198
#define TAG_REFERENCED 0x00081199
#define REFERENCES_MAX 100000
#define REPORT_WAIT_S 1 /* on the association of the request: those who answer there do so at once */

enum { ACTION_REQUEST = 1 };                                           /* PS3.4 J.3.2.1 */
enum { STATUS_NO_SUCH_TRANSACTION = 0x0112, STATUS_INVALID = 0x0115 }; /* PS3.7 C */
enum { STATUS_PROCESSING_FAILURE = 0x0110, STATUS_NO_SUCH_OPERATION = 0x0211 };

/* ---- reports ----------------------------------------------------------------------------------------- */

struct report {
    struct dicom_commitment_report borrowed;
    struct dicom_reference *stored, *failed; /* owned */
};

static void report_free(struct report *report) {
    free(report->stored);
    free(report->failed);
}

static bool read_references(const struct shim_dataset *dataset, uint32_t tag, struct dicom_reference **out,
                            size_t *count, struct err *err) {
    const size_t items = shim_item_count(dataset, tag);
    if (items > REFERENCES_MAX)
        return err_set(err, ERR_LIMIT, "a report on %zu instances", items);
    struct dicom_reference *references = pulmo_alloc(items, sizeof *references, err);
    if (references == NULL)
        return false;
    for (size_t i = 0; i < items; i++) {
        const struct shim_dataset *item = shim_item(dataset, tag, i);
        (void)shim_get_string(item, 0x00081150, references[i].sop_class_uid, DICOM_UID_SIZE);
        (void)shim_get_string(item, 0x00081155, references[i].sop_instance_uid, DICOM_UID_SIZE);
    }
    *out = references;
    *count = items;
    return true;
}

static bool read_rows(const struct shim_dataset *dataset, struct report *out, struct err *err) {
    struct dicom_commitment_report *report = &out->borrowed;
    if (!shim_get_string(dataset, TAG_TRANSACTION, report->transaction_uid, DICOM_UID_SIZE))
        return err_set(err, ERR_INPUT, "a report without a Transaction UID");
    if (!read_references(dataset, TAG_REFERENCED, &out->stored, &report->stored_count, err) ||
        !read_references(dataset, TAG_FAILED, &out->failed, &report->failed_count, err))
        return false;
    report->stored = out->stored;
    report->failed = out->failed;
    return true;
}

static bool read_report(const struct command *command, struct report *out, struct err *err) {
    PULMO_SCOPED(shim_dataset_free_at)
    struct shim_dataset *dataset =
        shim_dataset_read(command->dataset.data, command->dataset.size, command->transfer_syntax_uid, 0xFFFFFFFF, err);
    return dataset != NULL && shim_concluded(dataset, read_rows(dataset, out, err), err);
}

static uint16_t status_of(enum err_kind kind) {
    switch (kind) {
    case ERR_NONE: return 0x0000;
    case ERR_NOT_FOUND: return STATUS_NO_SUCH_TRANSACTION;
    case ERR_INPUT: return STATUS_INVALID;
    case ERR_UNSUPPORTED: return STATUS_NO_SUCH_OPERATION;
    default: return STATUS_PROCESSING_FAILURE;
    }
}

static bool take_report(const struct command *command, dicom_commitment_sink *sink, void *context, struct err *err) {
    PULMO_SCOPED(report_free) struct report report = {.stored = NULL};
    if (sink == NULL || strcmp(command->context_class_uid, COMMITMENT_CLASS) != 0)
        return err_set(err, ERR_UNSUPPORTED, "no reports are taken here");
    if (!command->has_dataset)
        return err_set(err, ERR_INPUT, "a report without a data set");
    return read_report(command, &report, err) && sink(context, &report.borrowed, err);
}

bool commitment_answer(struct association *association, const struct command *command, dicom_commitment_sink *sink,
                       void *context, struct err *err) {
    struct err why = {0};
    if (!take_report(command, sink, context, &why) && why.kind == ERR_NONE)
        why.kind = ERR_INTERNAL;
    return command_respond(association, command, status_of(why.kind), why.text, err);
}

/* ---- requests ---------------------------------------------------------------------------------------- */

static bool write_request(const struct dicom_commitment *commitment, struct bytes *out, struct err *err) {
    PULMO_SCOPED(shim_dataset_free_at) struct shim_dataset *dataset = shim_dataset_new(err);
    if (dataset == NULL || !shim_put_string(dataset, TAG_TRANSACTION, commitment->transaction_uid, err))
        return false;
    (void)shim_remove(dataset, 0x00080005); /* no text, no character set */
    for (size_t i = 0; i < commitment->count; i++)
        if (!object_put_reference(dataset, TAG_REFERENCED, commitment->references[i].sop_class_uid,
                                  commitment->references[i].sop_instance_uid, err))
            return false;
    return shim_dataset_write_body(dataset, IMPLICIT_LITTLE_ENDIAN, out, err);
}

/* One message of the peer: *status of the answer to the request, or a report on the way. *ended: it hung up in order.
 */
struct asked {
    struct association *association;
    dicom_commitment_sink *sink;
    void *context;
    uint16_t message_id, status;
    bool answered, ended;
};

static bool read_message(struct asked *asked, struct err *err) {
    struct command command; /* its data set is good until the next one is read */
    if (!command_read(asked->association, 0, &command, err))
        return false;
    if (command.kind == COMMAND_EVENT)
        return commitment_answer(asked->association, &command, asked->sink, asked->context, err);
    asked->ended = command.kind == COMMAND_RELEASE || command.kind == COMMAND_ABORT;
    if (!asked->ended && command.field == (FIELD_ACTION | FIELD_RESPONSE) && command.message_id == asked->message_id) {
        asked->answered = true;
        asked->status = command.status;
    }
    return true;
}

static bool await_answer(struct asked *asked, struct err *err) {
    while (!asked->answered)
        if (!read_message(asked, err))
            return false;
        else if (asked->ended)
            return err_set(err, ERR_NETWORK, "the peer ended the association without an answer");
    return asked->status == 0 ||
           err_set(err, ERR_UNSUPPORTED, "the request for storage commitment was answered with status 0x%04X",
                   asked->status);
}

/* Silence is no fault: the report comes on another association then. */
static void await_report(struct asked *asked) {
    struct err silence = {0};
    association_set_timeout_s(asked->association, REPORT_WAIT_S);
    while (!asked->ended && read_message(asked, &silence))
        continue;
}

bool dicom_commitment_request(const struct dicom_destination *destination, const struct dicom_commitment *commitment,
                              dicom_commitment_sink *sink, void *context, struct err *err) {
    static const struct shim_proposal proposal = {COMMITMENT_CLASS, IMPLICIT_LITTLE_ENDIAN};
    PULMO_SCOPED(bytes_free) struct bytes dataset = {0};
    if (!write_request(commitment, &dataset, err))
        return false;
    PULMO_SCOPED(association_close_at)
    struct association *association = scu_connect(destination, &proposal, 1, err);
    if (association == NULL)
        return false;
    struct asked asked = {.association = association, .sink = sink, .context = context};
    const struct plain_request request = {.field = FIELD_ACTION,
                                          .sop_class_uid = COMMITMENT_CLASS,
                                          .sop_instance_uid = COMMITMENT_INSTANCE,
                                          .action_type = ACTION_REQUEST,
                                          .dataset = dataset};
    if (!association_request(association, &request, &asked.message_id, err) || !await_answer(&asked, err))
        return false;
    await_report(&asked);
    struct err ignored = {0};
    if (!asked.ended)
        (void)!association_release(association, &ignored); /* the request is taken, whatever becomes of this */
    return true;
}
