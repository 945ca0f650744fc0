/* Content items of a structured report (PS3.3 C.17.3): each call appends one below its parent. Private to dicom/. */
#ifndef PULMO_DICOM_SR_CONTENT_H
#define PULMO_DICOM_SR_CONTENT_H

#include "dicom/sr_codes.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sr_relation { SR_CONTAINS = 0, SR_HAS_CONCEPT_MOD, SR_HAS_OBS_CONTEXT };

/* *item, where asked for, is borrowed from the document: a parent for further items. */
bool sr_put_container(struct shim_dataset *parent, enum sr_code concept_code, struct shim_dataset **item,
                      struct err *err) PULMO_MUST_USE;
bool sr_put_text(struct shim_dataset *parent, enum sr_relation relation, enum sr_code concept_code, const char *text,
                 struct err *err) PULMO_MUST_USE;
bool sr_put_uid(struct shim_dataset *parent, enum sr_relation relation, enum sr_code concept_code, const char *uid,
                struct err *err) PULMO_MUST_USE;
bool sr_put_code(struct shim_dataset *parent, enum sr_relation relation, enum sr_code concept_code,
                 const struct code *value, struct err *err) PULMO_MUST_USE;
/* A measurement of `decimals` digits after the point. */
struct sr_number {
    enum sr_code concept_code, unit;
    int decimals;
    double value;
};
bool sr_put_number(struct shim_dataset *parent, const struct sr_number *number, struct shim_dataset **item,
                   struct err *err) PULMO_MUST_USE;
/* An image without a concept name, as the image library lists them. */
bool sr_put_image(struct shim_dataset *parent, const char *sop_class_uid, const char *sop_instance_uid,
                  struct err *err) PULMO_MUST_USE;
bool sr_put_segment(struct shim_dataset *parent, const char *seg_instance_uid, uint16_t segment,
                    struct err *err) PULMO_MUST_USE;
/* A sphere as the ellipsoid of TID 1411's Volume Surface: the ends of three axes, PS3.3 C.18.9.1.2. */
struct sr_sphere {
    const char *frame_of_reference_uid;
    const double *center_lps_mm;
    double diameter_mm;
};
bool sr_put_sphere(struct shim_dataset *parent, const struct sr_sphere *sphere, struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
