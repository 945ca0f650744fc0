/* Stored contents that are no longer what was stored: found when they are read, remembered until they are whole again.
 */
#ifndef PULMO_STORE_CONTENTS_H
#define PULMO_STORE_CONTENTS_H

#include "store/handle.h"

bool contents_is_damaged(struct store *store, const char *sha256, bool *damaged, struct err *err) PULMO_MUST_USE;
bool contents_count_damaged(struct store *store, int64_t *count, struct err *err) PULMO_MUST_USE;

#endif
