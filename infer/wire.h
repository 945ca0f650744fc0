/* A look at protobuf bytes before protobuf-c unpacks them: protobuf-c recurses without a limit and turns two bytes
 * into a message of a hundred, so depth and count of fields are bounded here. */
#ifndef PULMO_INFER_WIRE_H
#define PULMO_INFER_WIRE_H

#include <protobuf-c/protobuf-c.h>

#include "pulmo.h"

#define WIRE_DEPTH_MAX 12
#define WIRE_FIELDS_MAX 1000000

/* ERR_INPUT when the bytes are no message of this type, ERR_LIMIT beyond the bounds. */
bool infer_wire_check(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size,
                      struct err *err) PULMO_MUST_USE;

#endif
