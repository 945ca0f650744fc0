/* What the disk below the store can still do, and what is done when it cannot.
 *
 * Below config.disk_reserve_bytes reception refuses; below a quarter of it results wait too. What is left is for the
 * database: signatures, deletions, the audit, a restart. For when others fill the disk to its end there is a file of
 * DISK_RESERVE_BYTES, DISK_RESERVE_NAME, which is given up then (store_tend), and made again when there is room. */
#ifndef PULMO_STORE_DISK_H
#define PULMO_STORE_DISK_H

#include "store/handle.h"

#define DISK_RESERVE_BYTES ((int64_t)16 << 20)
#define DISK_RESERVE_NAME "reserve"

/* ERR_NO_SPACE when the disk has no room for results of size bytes; small ones (a signed report) always pass. */
bool disk_room_for_results(const struct store *store, uint64_t size, struct err *err) PULMO_MUST_USE;
/* Bytes that anyone may write; of a full disk 0. */
bool disk_free(const char *folder, uint64_t *free_bytes, bool *read_only, struct err *err) PULMO_MUST_USE;

#endif
