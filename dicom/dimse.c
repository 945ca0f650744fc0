#include "dicom/association.h"
#include "dicom/part10.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Commands are sets of group 0000 in Implicit VR Little Endian, PS3.7 6.3.1 and E. They are read here, and not by the
 * toolkit, because that grows a command for as long as the peer sends one. */
#define COMMAND_BYTES_MAX ((size_t)16 * 1024)
#define EVENT_BYTES_MAX ((size_t)16 << 20) /* an N-EVENT-REPORT names each instance of a study */
#define OVERRUN_FACTOR 4                   /* a data set this many times over the limit is not read to its end */

enum { FIELD_STORE = 0x0001, FIELD_ECHO = 0x0030, FIELD_EVENT = 0x0100, FIELD_CANCEL = 0x0FFF };
enum { NO_DATASET = 0x0101, HAS_DATASET = 0x0001 };
#define VERIFICATION_CLASS "1.2.840.10008.1.1"

/* ---- command sets as bytes --------------------------------------------------------------------------- */

static uint16_t read_u16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t read_u32(const uint8_t *p) {
    return (uint32_t)read_u16(p) | (uint32_t)read_u16(p + 2) << 16;
}

static bool copy_uid(const uint8_t *value, size_t size, char out[DICOM_UID_SIZE]) {
    while (size > 0 && (value[size - 1] == '\0' || value[size - 1] == ' '))
        size--;
    if (size >= DICOM_UID_SIZE || memchr(value, '\0', size) != NULL)
        return false;
    memcpy(out, value, size);
    out[size] = '\0';
    return true;
}

static bool take_element(uint16_t element, const uint8_t *value, size_t size, struct command *out) {
    const uint16_t number = size == 2 ? read_u16(value) : 0;
    switch (element) {
    case 0x0002: return copy_uid(value, size, out->sop_class_uid);
    case 0x0100: out->field = number; return size == 2;
    case 0x0110:
    case 0x0120: out->message_id = number; return size == 2;
    case 0x0800: out->has_dataset = number != NO_DATASET; return size == 2;
    case 0x0900: out->status = number; return size == 2;
    case 0x1000: return copy_uid(value, size, out->sop_instance_uid);
    default: return true;
    }
}

static bool parse_command(const struct bytes *bytes, struct command *out, struct err *err) {
    size_t offset = 0;
    while (bytes->size - offset >= 8) {
        const uint8_t *p = bytes->data + offset;
        const size_t size = read_u32(p + 4);
        if (read_u16(p) != 0 || size > bytes->size - offset - 8)
            return err_set(err, ERR_INPUT, "command element (%04X,%04X) of %zu bytes", read_u16(p), read_u16(p + 2),
                           size);
        if (!take_element(read_u16(p + 2), p + 8, size, out))
            return err_set(err, ERR_INPUT, "command element (0000,%04X) has a wrong value", read_u16(p + 2));
        offset += 8 + size;
    }
    return (offset == bytes->size && out->field != 0) || err_set(err, ERR_INPUT, "command set is cut off or empty");
}

struct builder {
    uint8_t data[512];
    size_t size;
};

static void add_bytes(struct builder *builder, uint16_t element, const void *value, size_t size, char padding) {
    uint8_t *p = builder->data + builder->size;
    const size_t padded = size + size % 2;
    if (sizeof builder->data - builder->size < 8 + padded)
        return; /* cannot happen: two UIDs, a comment and numbers are less */
    memset(p, 0, 8);
    p[2] = (uint8_t)element;
    p[3] = (uint8_t)(element >> 8);
    p[4] = (uint8_t)padded;
    p[5] = (uint8_t)(padded >> 8);
    memcpy(p + 8, value, size);
    if (padded > size)
        p[8 + size] = (uint8_t)padding;
    builder->size += 8 + padded;
}

static void add_u16(struct builder *builder, uint16_t element, uint16_t value) {
    const uint8_t bytes[] = {(uint8_t)value, (uint8_t)(value >> 8)};
    add_bytes(builder, element, bytes, sizeof bytes, 0);
}

static void add_uid(struct builder *builder, uint16_t element, const char *uid) {
    if (uid[0] != '\0')
        add_bytes(builder, element, uid, strnlen(uid, DICOM_UID_SIZE - 1), '\0');
}

static void begin(struct builder *builder) {
    builder->size = 0;
    add_bytes(builder, 0x0000, "\0\0\0\0", 4, 0); /* group length, set by finish */
}

static struct bytes finish(struct builder *builder) {
    const size_t length = builder->size - 12;
    builder->data[8] = (uint8_t)length;
    builder->data[9] = (uint8_t)(length >> 8);
    return (struct bytes){builder->data, builder->size};
}

/* ---- reading ----------------------------------------------------------------------------------------- */

static bool read_pdv(struct association *association, struct shim_pdv *out, struct err *err) {
    return shim_dul_read(association_dul(association), association_timeout_s(association), out, err);
}

/* Collects the fragments of a command that begins with `first`. */
static bool collect_command(struct association *association, struct shim_pdv *first, struct bytes *out,
                            struct err *err) {
    struct shim_pdv pdv = *first;
    for (;;) {
        if (pdv.kind != SHIM_PDV_COMMAND || pdv.context_id != first->context_id)
            return err_set(err, ERR_INPUT, "a data set or another context where a command must be");
        if (!bytes_append(out, pdv.data, pdv.size, COMMAND_BYTES_MAX, err))
            return err_set(err, ERR_INPUT, "a command of more than %zu bytes", COMMAND_BYTES_MAX);
        if (pdv.last)
            return true;
        if (!read_pdv(association, &pdv, err))
            return false;
    }
}

void command_free(struct association *association, struct command *command) {
    command->dataset = command->file = (struct bytes){0};
    inbox_empty(association_inbox(association));
    association_unreserve(association);
}

/* A C-STORE's data set becomes a file whose meta information the command and its context tell. */
static bool begin_dataset(struct association *association, const struct command *command, struct err *err) {
    struct part10 meta = {.dataset_offset = 0};
    PULMO_SCOPED(bytes_free) struct bytes head = {0};
    if (command->kind != COMMAND_STORE) {
        inbox_begin(association_inbox(association));
        return true;
    }
    memcpy(meta.sop_class_uid, command->sop_class_uid, sizeof meta.sop_class_uid);
    memcpy(meta.sop_instance_uid, command->sop_instance_uid, sizeof meta.sop_instance_uid);
    memcpy(meta.transfer_syntax_uid, command->transfer_syntax_uid, sizeof meta.transfer_syntax_uid);
    return part10_write_meta(&meta, association_calling_aet(association), &head, err) &&
           inbox_begin_file(association_inbox(association), &head, err);
}

static bool end_dataset(struct association *association, struct command *command, struct err *err) {
    struct inbox *inbox = association_inbox(association);
    const struct bytes content = inbox->content;
    if (command->too_large || command->no_room)
        return true;
    command->dataset = (struct bytes){content.data + inbox->offset, content.size - inbox->offset};
    if (command->kind != COMMAND_STORE)
        return true;
    command->file = content;
    return inbox_end_file(inbox, command->file_sha256, err);
}

/* Reads the data set to its end; what is over size_max is thrown away. */
static bool collect_fragments(struct association *association, size_t size_max, struct command *command,
                              struct err *err) {
    struct shim_pdv pdv = {.last = false};
    size_t received = 0;
    while (!pdv.last) {
        if (!read_pdv(association, &pdv, err))
            return false;
        if (pdv.kind != SHIM_PDV_DATASET || pdv.context_id != command->context_id)
            return err_set(err, pdv.kind >= SHIM_PDV_RELEASE ? ERR_NETWORK : ERR_INPUT,
                           "the data set of a command did not end");
        received += pdv.size;
        if (received / OVERRUN_FACTOR > size_max)
            return err_set(err, ERR_LIMIT, "data set of more than %zu bytes", received);
        command->too_large = command->too_large || received > size_max;
        command->no_room = command->no_room || !association_reserve(association, pdv.size);
        if (command->too_large || command->no_room)
            command_free(association, command);
        else if (!inbox_add(association_inbox(association), pdv.data, pdv.size, err))
            return false;
    }
    return true;
}

static bool collect_dataset(struct association *association, size_t size_max, struct command *command,
                            struct err *err) {
    return begin_dataset(association, command, err) && collect_fragments(association, size_max, command, err) &&
           end_dataset(association, command, err);
}

static enum command_kind kind_of(uint16_t field) {
    switch (field) {
    case FIELD_STORE: return COMMAND_STORE;
    case FIELD_ECHO: return COMMAND_ECHO;
    case FIELD_EVENT: return COMMAND_EVENT;
    case FIELD_CANCEL: return COMMAND_CANCEL;
    default: return COMMAND_OTHER;
    }
}

static size_t dataset_limit(enum command_kind kind, size_t size_max) {
    if (kind == COMMAND_STORE)
        return size_max;
    return kind == COMMAND_EVENT ? EVENT_BYTES_MAX : COMMAND_BYTES_MAX;
}

static bool read_message(struct association *association, size_t size_max, struct command *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    struct shim_pdv pdv;
    if (!read_pdv(association, &pdv, err))
        return false;
    if (pdv.kind == SHIM_PDV_RELEASE || pdv.kind == SHIM_PDV_ABORT) {
        out->kind = pdv.kind == SHIM_PDV_RELEASE ? COMMAND_RELEASE : COMMAND_ABORT;
        if (pdv.kind == SHIM_PDV_RELEASE)
            association_set_released(association);
        else
            association_set_gone(association);
        return true;
    }
    if (!shim_dul_context(association_dul(association), pdv.context_id, out->context_class_uid,
                          out->transfer_syntax_uid))
        return err_set(err, ERR_INPUT, "presentation context %u was not accepted", pdv.context_id);
    if (!collect_command(association, &pdv, &bytes, err) || !parse_command(&bytes, out, err))
        return false;
    out->context_id = pdv.context_id;
    out->kind = kind_of(out->field);
    return !out->has_dataset || collect_dataset(association, dataset_limit(out->kind, size_max), out, err);
}

bool command_read(struct association *association, size_t size_max, struct command *out, struct err *err) {
    struct command command = {.field = 0};
    if (!read_message(association, size_max, &command, err)) {
        command_free(association, &command);
        return false;
    }
    *out = command;
    return true;
}

/* ---- answering --------------------------------------------------------------------------------------- */

bool command_respond(struct association *association, const struct command *command, uint16_t status,
                     const char *comment, struct err *err) {
    struct builder builder;
    begin(&builder);
    add_uid(&builder, 0x0002, command->sop_class_uid);
    add_u16(&builder, 0x0100, command->field | FIELD_RESPONSE);
    add_u16(&builder, 0x0120, command->message_id);
    add_u16(&builder, 0x0800, NO_DATASET);
    add_u16(&builder, 0x0900, status);
    if (comment != NULL && comment[0] != '\0')
        add_bytes(&builder, 0x0902, comment, strnlen(comment, 64), ' ');
    add_uid(&builder, 0x1000, command->sop_instance_uid);
    const struct bytes bytes = finish(&builder);
    return shim_dul_write(association_dul(association), command->context_id, SHIM_PDV_COMMAND, &bytes, err);
}

/* ---- asking ------------------------------------------------------------------------------------------ */

static uint8_t find_context(struct association *association, const char *sop_class_uid, const char *syntax_uid) {
    for (unsigned id = 1; id < 256; id += 2) {
        char sop_class[DICOM_UID_SIZE], syntax[DICOM_UID_SIZE];
        if (shim_dul_context(association_dul(association), (uint8_t)id, sop_class, syntax) &&
            strcmp(sop_class, sop_class_uid) == 0 && (syntax_uid == NULL || strcmp(syntax, syntax_uid) == 0))
            return (uint8_t)id;
    }
    return 0;
}

static bool read_response(struct association *association, uint16_t message_id, uint16_t field, uint16_t *status,
                          struct err *err) {
    struct command response;
    if (!command_read(association, 0, &response, err))
        return false;
    command_free(association, &response);
    if (response.kind == COMMAND_RELEASE || response.kind == COMMAND_ABORT)
        return err_set(err, ERR_NETWORK, "the peer ended the association without an answer");
    if (response.field != (field | FIELD_RESPONSE) || response.message_id != message_id)
        return err_set(err, ERR_NETWORK, "the peer answered something else (command 0x%04X)", response.field);
    *status = response.status;
    return true;
}

bool association_echo(struct association *association, struct err *err) {
    const uint8_t context = find_context(association, VERIFICATION_CLASS, NULL);
    const uint16_t message_id = association_next_message_id(association);
    uint16_t status = 0;
    struct builder builder;
    if (context == 0)
        return err_set(err, ERR_UNSUPPORTED, "the peer does not accept C-ECHO");
    begin(&builder);
    add_uid(&builder, 0x0002, VERIFICATION_CLASS);
    add_u16(&builder, 0x0100, FIELD_ECHO);
    add_u16(&builder, 0x0110, message_id);
    add_u16(&builder, 0x0800, NO_DATASET);
    const struct bytes bytes = finish(&builder);
    if (!shim_dul_write(association_dul(association), context, SHIM_PDV_COMMAND, &bytes, err) ||
        !read_response(association, message_id, FIELD_ECHO, &status, err))
        return false;
    return status == 0 || err_set(err, ERR_NETWORK, "C-ECHO was answered with status 0x%04X", status);
}

bool association_store(struct association *association, const struct store_request *request, uint16_t *status,
                       struct err *err) {
    const uint8_t context = find_context(association, request->sop_class_uid, request->transfer_syntax_uid);
    const uint16_t message_id = association_next_message_id(association);
    struct builder builder;
    if (context == 0)
        return err_set(err, ERR_UNSUPPORTED, "the peer does not accept SOP class %s in transfer syntax %s",
                       request->sop_class_uid, request->transfer_syntax_uid);
    begin(&builder);
    add_uid(&builder, 0x0002, request->sop_class_uid);
    add_u16(&builder, 0x0100, FIELD_STORE);
    add_u16(&builder, 0x0110, message_id);
    add_u16(&builder, 0x0700, 0); /* medium priority */
    add_u16(&builder, 0x0800, HAS_DATASET);
    add_uid(&builder, 0x1000, request->sop_instance_uid);
    const struct bytes bytes = finish(&builder);
    return shim_dul_write(association_dul(association), context, SHIM_PDV_COMMAND, &bytes, err) &&
           shim_dul_write(association_dul(association), context, SHIM_PDV_DATASET, &request->dataset, err) &&
           read_response(association, message_id, FIELD_STORE, status, err);
}

bool association_request(struct association *association, const struct plain_request *request, uint16_t *message_id,
                         struct err *err) {
    const uint8_t context = find_context(association, request->sop_class_uid, NULL);
    const bool is_action = request->field == FIELD_ACTION;
    struct builder builder;
    if (context == 0)
        return err_set(err, ERR_UNSUPPORTED, "the peer does not accept SOP class %s", request->sop_class_uid);
    *message_id = association_next_message_id(association);
    begin(&builder);
    add_uid(&builder, is_action ? 0x0003 : 0x0002, request->sop_class_uid); /* Requested, Affected SOP Class UID */
    add_u16(&builder, 0x0100, request->field);
    add_u16(&builder, 0x0110, *message_id);
    if (!is_action)
        add_u16(&builder, 0x0700, 0); /* medium priority */
    add_u16(&builder, 0x0800, HAS_DATASET);
    if (is_action) {
        add_uid(&builder, 0x1001, request->sop_instance_uid); /* Requested SOP Instance UID */
        add_u16(&builder, 0x1008, request->action_type);
    }
    const struct bytes bytes = finish(&builder);
    return shim_dul_write(association_dul(association), context, SHIM_PDV_COMMAND, &bytes, err) &&
           shim_dul_write(association_dul(association), context, SHIM_PDV_DATASET, &request->dataset, err);
}
