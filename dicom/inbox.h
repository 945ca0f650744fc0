/* Where an association receives the data set of a command. Private to dicom/.
 *
 * It is kept from command to command: memory that was touched once need not be asked of the kernel again for each
 * slice. An object to be stored becomes a Part 10 file as it comes, its meta information first, and each piece is
 * digested while the processor's cache still holds it. */
#ifndef PULMO_DICOM_INBOX_H
#define PULMO_DICOM_INBOX_H

#include "digest.h"

struct inbox {               /* zero-initialised; one thread at a time */
    struct bytes content;    /* what has come, behind what it began with */
    size_t capacity, offset; /* offset: where the data set begins */
    struct digest *digest;
};
/* For a data set alone. */
void inbox_begin(struct inbox *inbox);
/* For one behind file meta information; both are digested. */
bool inbox_begin_file(struct inbox *inbox, const struct bytes *meta, struct err *err) PULMO_MUST_USE;
bool inbox_add(struct inbox *inbox, const void *data, size_t size, struct err *err) PULMO_MUST_USE;
/* The digest of a file that is complete. */
bool inbox_end_file(struct inbox *inbox, char sha256[DIGEST_HEX_SIZE], struct err *err) PULMO_MUST_USE;
/* Forgets the content; memory beyond that of a usual slice is given back. */
void inbox_empty(struct inbox *inbox);
void inbox_free(struct inbox *inbox);

#endif
