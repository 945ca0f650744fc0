/* Appending to the audit chain inside the transaction of the fact. */
#ifndef PULMO_STORE_AUDIT_H
#define PULMO_STORE_AUDIT_H

#include "digest.h"
#include "store/store.h"

/* DICOM PS3.15 A.5, EventID. */
#define AUDIT_APPLICATION "110100"
#define AUDIT_BEGIN_TRANSFERRING "110102"
#define AUDIT_INSTANCES_ACCESSED "110103"
#define AUDIT_INSTANCES_TRANSFERRED "110104"
#define AUDIT_STUDY_DELETED "110105"
#define AUDIT_EXPORT "110106"
#define AUDIT_IMPORT "110107"
#define AUDIT_SECURITY_ALERT "110113"
#define AUDIT_USER_AUTHENTICATION "110114"
#define AUDIT_SUCCESS 0
#define AUDIT_MINOR_FAILURE 4
#define AUDIT_SERIOUS_FAILURE 8

/* Needs an open write transaction. */
bool audit_add(struct store *store, const struct store_audit *audit, struct err *err) PULMO_MUST_USE;

/* A row and its digest, as somebody outside of this store knows them. */
struct audit_point {
    int64_t rows;
    char digest[DIGEST_HEX_SIZE];
};
/* Walks the chain; it must pass through point (NULL = anything that holds together). */
bool audit_verify(struct store *store, const struct audit_point *point, struct store_audit_verdict *out,
                  struct err *err) PULMO_MUST_USE;

#endif
