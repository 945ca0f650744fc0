/* The envelope of a DICOM file (PS3.10 section 7): preamble, file meta information, data set. Private to dicom/.
 *
 * In plain C and before any toolkit sees a byte, because the bytes come from the network. */
#ifndef PULMO_DICOM_PART10_H
#define PULMO_DICOM_PART10_H

#include "pulmo.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PART10_IMPLEMENTATION_UID "2.25.213995899892187767869140017813485085745"
#define PART10_IMPLEMENTATION_NAME "PULMO_0_1" /* SH: at most 16 characters */

/* What the file meta information says; empty strings where it is silent. */
struct part10 {
    char sop_class_uid[DICOM_UID_SIZE], sop_instance_uid[DICOM_UID_SIZE], transfer_syntax_uid[DICOM_UID_SIZE];
    size_t dataset_offset; /* of the first byte of the data set */
};

/* Splits a file. A missing preamble is tolerated; without meta information the syntax is told from the first element
 * (explicit or implicit, little or big endian). ERR_INPUT otherwise. */
bool part10_split(const void *file, size_t size, struct part10 *out, struct err *err) PULMO_MUST_USE;
/* Appends a zeroed preamble, "DICM" and the meta information of `meta`; calling_aet "" = left out. */
bool part10_write_meta(const struct part10 *meta, const char *calling_aet, struct bytes *out,
                       struct err *err) PULMO_MUST_USE;

/* How a transfer syntax lays out its elements. Unknown UIDs are taken as encapsulated, explicit, little endian, as
 * every syntax since 1996 is (PS3.5 A.4). */
struct part10_encoding {
    bool explicit_vr, big_endian, deflated, encapsulated;
};
struct part10_encoding part10_encoding_of(const char *transfer_syntax_uid);

#ifdef __cplusplus
}
#endif
#endif
