/* What every report of ours must hold, beyond what the template requires: a table of rows that is checked against the
 * finished object before it leaves, and by the tests against objects with each row taken out. Private to dicom/. */
#ifndef PULMO_DICOM_SR_CHECK_H
#define PULMO_DICOM_SR_CHECK_H

#include "dicom/sr_codes.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SR_ANY 65535             /* no upper bound */
#define SR_UNNAMED SR_CODE_COUNT /* a content item without a concept name */

enum sr_when {
    SR_ALWAYS = 0,
    SR_WITH_FINDINGS,   /* the status says that nodules are reported */
    SR_WITHOUT_RESULT,  /* refused or failed */
    SR_WHEN_SIGNED,     /* the Verification Flag is VERIFIED */
    SR_WHEN_UNSIGNED,   /* */
    SR_BY_ALGORITHM,    /* in a group that no reader added */
    SR_WITH_SEGMENT,    /* in a group that refers to a segment */
    SR_WITHOUT_SEGMENT, /* */
};
/* An attribute (tags: sequences, then the attribute; type: its VR) or a content item (path: concepts below the
 * document; type: its value type; relation). For every parent there are min to max of it: values of an attribute, items
 * of a sequence or of a concept. max 0 forbids it. */
struct sr_row {
    const char *id;
    uint32_t tags[4];
    enum sr_code path[4];
    const char *type, *relation;
    uint16_t min, max;
    enum sr_when when;
    const char *value; /* what it must be; NULL = anything */
    bool may_be_empty; /* type 2: present, perhaps without a value */
};
extern const struct sr_row sr_rows[];
extern const size_t sr_row_count;

/* ERR_INTERNAL that names the first row that does not hold. */
bool sr_check(const struct shim_dataset *root, struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
