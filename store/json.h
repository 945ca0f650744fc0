/* One flat JSON object with its members in the order they are added and one spelling for each value, so that the same
 * facts are the same bytes (the audit chain digests them). */
#ifndef PULMO_STORE_JSON_H
#define PULMO_STORE_JSON_H

#include "pulmo.h"

#define JSON_SIZE_MAX 65536

/* Start with a zeroed struct bytes; json_end closes the object and adds a NUL that size does not count. */
bool json_integer(struct bytes *json, const char *name, int64_t value, struct err *err) PULMO_MUST_USE;
/* NULL is left out. Bytes that are not UTF-8 become U+FFFD: names and AE titles come from the network. */
bool json_text(struct bytes *json, const char *name, const char *value, struct err *err) PULMO_MUST_USE;
bool json_end(struct bytes *json, struct err *err) PULMO_MUST_USE;

#endif
