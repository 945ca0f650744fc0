/* When a study is complete, and the jobs that follow. */
#ifndef PULMO_STORE_COMPLETE_H
#define PULMO_STORE_COMPLETE_H

#include "store/store.h"

/* Queues analysis and decoding of every study whose evidence says that it is complete. Writes only when there is one.
 */
bool complete_queue(struct store *store, int64_t now_ms, struct err *err) PULMO_MUST_USE;

/* Queues decoding alone: the images are those of the result at hand, and here again. Needs an open transaction. */
bool complete_decode(struct store *store, const char *study_uid, int64_t now_ms, struct err *err) PULMO_MUST_USE;

#endif
