/* The versions of one SOP instance: what newly received bytes are, beside what is stored under the same UID. */
#ifndef PULMO_STORE_VERSION_H
#define PULMO_STORE_VERSION_H

#include "digest.h"
#include "store/store.h"

enum version {
    VERSION_FIRST,      /* the UID is new: current */
    VERSION_SAME,       /* the same data set in the same transfer syntax is stored already */
    VERSION_TRANSCODED, /* equal pixels and attributes, other transfer syntax: the first stays current, if it is here */
    VERSION_CORRECTED,  /* equal pixels, other header: becomes current */
    VERSION_CONFLICT,   /* other pixels, or nobody can tell: the first stays current; alarms */
    VERSION_FOREIGN     /* new UID in a study of another patient: never current; alarms */
};
const char *version_name(enum version version); /* as in instance.version; VERSION_SAME is never stored */

/* What is being put, with what is derived of it once. */
struct version_input {
    const struct instance *instance;
    char blob[DIGEST_HEX_SIZE];       /* of the whole Part 10 content */
    char attributes[DIGEST_HEX_SIZE]; /* of the attributes in struct instance that a correction may change */
};
/* SHA-256 of the data set alone; ERR_INPUT when the content is no Part 10 file of ours. */
bool version_dataset_digest(const uint8_t *part10, size_t size, char out[DIGEST_HEX_SIZE],
                            struct err *err) PULMO_MUST_USE;
bool version_input_make(const struct instance *instance, struct version_input *out, struct err *err) PULMO_MUST_USE;

struct version_decision {
    enum version version;
    int64_t known;              /* versions of the UID that the decision saw; another number later = decide again */
    char same[DIGEST_HEX_SIZE]; /* VERSION_SAME: the stored blob */
    int64_t same_size;
    bool first_purged; /* VERSION_TRANSCODED: what is current was purged, so this one becomes current */
};
/* Reads and, where UIDs meet, decodes: call outside of a write transaction. */
bool version_decide(struct store *store, const struct version_input *input, struct version_decision *out,
                    struct err *err) PULMO_MUST_USE;
/* Of a new UID: its study is that of another patient (both name one). Asked in the transaction that stores it. */
bool version_is_foreign(struct store *store, const struct instance *instance, bool *foreign,
                        struct err *err) PULMO_MUST_USE;

#endif
