#include "infer/wire.h"

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_LENGTH = 2, WIRE_32 = 5 };

struct reader {
    const uint8_t *data;
    size_t size, at;
};

static bool read_varint(struct reader *reader, uint64_t *out) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && reader->at < reader->size; shift += 7) {
        uint8_t byte = reader->data[reader->at++];
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (!(byte & 0x80)) {
            *out = value;
            return true;
        }
    }
    return false;
}

static const ProtobufCFieldDescriptor *field_find(const ProtobufCMessageDescriptor *type, uint64_t id) {
    for (unsigned i = 0; i < type->n_fields; i++)
        if (type->fields[i].id == id)
            return &type->fields[i];
    return NULL;
}

/* Steps over one field's value; *length is set for length-delimited ones, which are not stepped over. */
static bool skip_value(struct reader *reader, unsigned wire, uint64_t *length) {
    uint64_t ignored = 0;
    size_t fixed = wire == WIRE_64 ? 8 : 4;
    *length = 0;
    switch (wire) {
    case WIRE_VARINT: return read_varint(reader, &ignored);
    case WIRE_LENGTH: return read_varint(reader, length) && *length <= reader->size - reader->at;
    case WIRE_64:
    case WIRE_32:
        if (reader->size - reader->at < fixed)
            return false;
        reader->at += fixed;
        return true;
    default: return false;
    }
}

/* The recursion is bounded by WIRE_DEPTH_MAX. */
static bool message_check(const ProtobufCMessageDescriptor *type, struct reader reader, int depth, size_t *fields,
                          struct err *err) {
    if (depth > WIRE_DEPTH_MAX)
        return err_set(err, ERR_LIMIT, "ONNX messages are nested deeper than %d", WIRE_DEPTH_MAX);
    while (reader.at < reader.size) {
        uint64_t tag = 0, length = 0;
        if (++*fields > WIRE_FIELDS_MAX)
            return err_set(err, ERR_LIMIT, "more than %d ONNX fields", WIRE_FIELDS_MAX);
        if (!read_varint(&reader, &tag) || !skip_value(&reader, tag & 7, &length))
            return err_set(err, ERR_INPUT, "not an ONNX file: bytes break off in %s", type->name);
        if ((tag & 7) != WIRE_LENGTH)
            continue;
        const ProtobufCFieldDescriptor *field = field_find(type, tag >> 3);
        struct reader inner = {.data = reader.data + reader.at, .size = (size_t)length};
        if (field && field->type == PROTOBUF_C_TYPE_MESSAGE &&
            !message_check(field->descriptor, inner, depth + 1, fields, err))
            return false;
        reader.at += (size_t)length;
    }
    return true;
}

bool infer_wire_check(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size, struct err *err) {
    size_t fields = 0;
    return message_check(type, (struct reader){.data = data, .size = size}, 0, &fields, err);
}
