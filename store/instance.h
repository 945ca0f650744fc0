/* The parts of a put, for the direct way (store/instance.c) and the way through the journal (store/journal.c). */
#ifndef PULMO_STORE_INSTANCE_H
#define PULMO_STORE_INSTANCE_H

#include "store/version.h"

/* Another association may store the same UID between the decision and the commit: then decide again. */
#define INSTANCE_DECISIONS_MAX 8

/* A put on its way. */
struct instance_put {
    struct version_input input;
    struct version_decision decision;
    int64_t now_ms;
    bool journaled; /* the content lies in the journal, and its row there is written with these */
};

/* What must be there in any instance: content and UIDs. */
bool instance_check(const struct instance *instance, struct err *err) PULMO_MUST_USE;
/* The rows of a put whose content is durable, in the open transaction. *again = the versions of the UID are no longer
 * those that the decision saw, or the content was removed since: nothing is written, decide again. */
bool instance_rows(struct store *store, struct instance_put *put, bool *again, struct err *err) PULMO_MUST_USE;
/* Notes, as far as the disk allows, that an instance was refused for want of room, so that its study waits for it; then
 * sets *err from the fault. False. */
bool instance_refuse(struct store *store, const struct instance *instance, const struct err *fault, struct err *err);

#endif
