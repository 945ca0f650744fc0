/* Checks that a data set is well-formed before a recursive parser sees it. Private to dicom/.
 *
 * DCMTK 3.6.7 descends once per nested sequence, without a limit, and takes lengths on trust where it can: a few
 * megabytes of nested items overflow its stack, or of tiny elements in falling order keep it busy for hours. This walk
 * is iterative and bounded. */
#ifndef PULMO_DICOM_STRUCTURE_H
#define PULMO_DICOM_STRUCTURE_H

#include "dicom/part10.h"

#ifdef __cplusplus
extern "C" {
#endif

#define STRUCTURE_DEPTH_MAX 32        /* sequences within sequences; a TID 1500 report needs about 12 */
#define STRUCTURE_ELEMENTS_MAX 500000 /* elements, items and fragments; a 1,000-frame object has about 60,000 */
#define STRUCTURE_DISORDER_MAX 1000   /* elements before their predecessor's tag: DCMTK sorts them one by one */

/* ERR_INPUT: an element reaches beyond its container, an item is missing or never ends; ERR_LIMIT: see above.
 * data: a data set as transferred, inflated where the syntax is deflated. */
bool structure_check(const void *data, size_t size, struct part10_encoding encoding, struct err *err) PULMO_MUST_USE;
/* As above; *out = what the Pixel Data of the data set itself holds. */
struct structure_pixels {
    bool present;
    size_t size;      /* of uncompressed pixels in bytes, 0 where the VR is none of theirs */
    size_t fragments; /* of compressed ones, with the Basic Offset Table; 0 = they are not in fragments */
    bool is_last;     /* no element with a lower tag comes after it: the header is all that precedes it */
};
bool structure_check_image(const void *data, size_t size, struct part10_encoding encoding, struct structure_pixels *out,
                           struct err *err) PULMO_MUST_USE;
/* As above up to Pixel Data, which may be cut off: a damaged slice can then still be told which series it belongs to.
 */
bool structure_check_header(const void *data, size_t size, struct part10_encoding encoding,
                            struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
