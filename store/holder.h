/* Who holds leases. A handle that takes jobs or objects to send keeps a locked file in holders/; its leases begin with
 * the file's name. The kernel drops the lock when the process ends, however it ends: then its leases are over at once,
 * not only when their time runs out. The lock tells more than a process number could, which another process may get,
 * and which means nothing in another container. */
#ifndef PULMO_STORE_HOLDER_H
#define PULMO_STORE_HOLDER_H

#include "store/handle.h"

bool holder_folder_make(const char *folder, struct err *err) PULMO_MUST_USE;
/* A new lease of this handle, which becomes a holder by its first one. */
bool holder_lease(struct store *store, char out[STORE_LEASE_SIZE], struct err *err) PULMO_MUST_USE;
/* Ends the leases of holders that are no more. A poll that finds none takes no write lock. */
bool holder_expire_jobs(struct store *store, int64_t now_ms, struct err *err) PULMO_MUST_USE;
bool holder_expire_outbox(struct store *store, int64_t now_ms, struct err *err) PULMO_MUST_USE;
/* With the handle. */
void holder_end(struct store *store);

#endif
