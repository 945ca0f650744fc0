/* Files of results and of studies: their names, their storage, their rows. */
#ifndef PULMO_STORE_ARTIFACT_H
#define PULMO_STORE_ARTIFACT_H

#include "digest.h"
#include "store/store.h"

/* Digests of stored artifacts, in their order; owned. */
struct artifact_names {
    char (*items)[DIGEST_HEX_SIZE];
};
void artifact_names_free(struct artifact_names *names);
/* Checks names and writes every content durably, before the transaction that makes rows of them. */
bool artifact_write(struct store *store, const struct store_artifact *artifacts, size_t count,
                    struct artifact_names *out, struct err *err) PULMO_MUST_USE;
/* Rows of a result in the open transaction, with outbox rows for those to be sent. */
struct artifact_set {
    const struct store_artifact *artifacts;
    size_t count;
    const struct artifact_names *names;
    int64_t result_id, job_id;
};
bool artifact_rows(struct store *store, const struct artifact_set *set, struct err *err) PULMO_MUST_USE;

#endif
