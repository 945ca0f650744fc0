/* Images that are given up, and files that no row needs. */
#ifndef PULMO_STORE_RETENTION_H
#define PULMO_STORE_RETENTION_H

#include "digest.h"
#include "store/store.h"

/* Some row needs the content: an image that is not purged, an artifact. Every file is removed under the write lock,
 * after asking this; who makes a row of a content looks, under the same lock, that its file is there. So neither needs
 * another lock, and no clock decides. */
bool retention_blob_needed(struct store *store, const char *sha256, bool *needed, struct err *err) PULMO_MUST_USE;
/* Removes the file unless it is needed. Needs an open write transaction, and nobody who copies (retention_lock). */
bool retention_blob_remove(struct store *store, const char *sha256, bool *removed, struct err *err) PULMO_MUST_USE;

/* The images of a purged study may all be here again, sent anew: then it is as before, and decoded for the viewer.
 * Needs an open write transaction. */
bool retention_restore(struct store *store, const char *study_uid, int64_t now_ms, struct err *err) PULMO_MUST_USE;

/* Files may be removed: nobody copies the store. *lock -1 = not now; else retention_unlock_at ends it. A copier holds
 * <folder>/purge.lock shared (flock) from before it copies the database until it has the files. */
bool retention_lock(struct store *store, int *lock, struct err *err) PULMO_MUST_USE;
void retention_unlock_at(int *lock);

#endif
