/* A record of the journal: one content with what its rows will say, on whole pages of a segment (store/segment.h).
 *
 * First a line of fixed length with the record's number and the digest of what follows, then one JSON object, both
 * padded to whole pages, then the content. The digest begins with a key of this store, so that no content, which comes
 * from the network and lies in the same file, can pass for a record. */
#ifndef PULMO_STORE_RECORD_H
#define PULMO_STORE_RECORD_H

#include "digest.h"
#include "pulmo.h"

struct record {
    int64_t number; /* counted by the store, from 1 */
    int64_t now_ms; /* of reception */
    char blob[DIGEST_HEX_SIZE];
    struct instance instance; /* without the association, which did not survive, and without the content but its size */
    uint64_t content;         /* where the content begins, after the record's own beginning */
};

/* The beginning of a record whose number is not known yet: its length does not depend on it. Freed by bytes_free. */
bool record_begin(const struct instance *instance, const char *blob, int64_t now_ms, struct bytes *out,
                  struct err *err) PULMO_MUST_USE;
/* Sets the number in it, and the digest. */
bool record_number(struct bytes *record, const char *key, int64_t number, struct err *err) PULMO_MUST_USE;
/* Reads a record's beginning at a position of a segment. *found = false when there is none. */
bool record_read(int descriptor, uint64_t position, const char *key, struct record *out, bool *found,
                 struct err *err) PULMO_MUST_USE;

#endif
