#include "dicom/sr_content.h"

#include <stdio.h>

static const uint32_t tag_content = 0x0040A730, tag_relation = 0x0040A010, tag_value_type = 0x0040A040,
                      tag_concept_name = 0x0040A043, tag_concept_value = 0x0040A168, tag_referenced_sop = 0x00081199;

static const char *relation_name(enum sr_relation relation) {
    static const char *const names[] = {"CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT"};
    return names[relation];
}

/* concept_code NULL: an item without a name. */
static bool put_item(struct shim_dataset *parent, enum sr_relation relation, const char *value_type,
                     const struct code *concept_code, struct shim_dataset **item, struct err *err) {
    return shim_put_item(parent, tag_content, item, err) &&
           shim_put_string(*item, tag_relation, relation_name(relation), err) &&
           shim_put_string(*item, tag_value_type, value_type, err) &&
           (!concept_code || object_put_code(*item, tag_concept_name, concept_code, err));
}

bool sr_put_container(struct shim_dataset *parent, enum sr_code concept_code, struct shim_dataset **item,
                      struct err *err) {
    return put_item(parent, SR_CONTAINS, "CONTAINER", &sr_codes[concept_code], item, err) &&
           shim_put_string(*item, 0x0040A050, "SEPARATE", err);
}

bool sr_put_text(struct shim_dataset *parent, enum sr_relation relation, enum sr_code concept_code, const char *text,
                 struct err *err) {
    struct shim_dataset *item = NULL;
    return put_item(parent, relation, "TEXT", &sr_codes[concept_code], &item, err) &&
           shim_put_string(item, 0x0040A160, text, err);
}

bool sr_put_uid(struct shim_dataset *parent, enum sr_relation relation, enum sr_code concept_code, const char *uid,
                struct err *err) {
    struct shim_dataset *item = NULL;
    return put_item(parent, relation, "UIDREF", &sr_codes[concept_code], &item, err) &&
           shim_put_string(item, 0x0040A124, uid, err);
}

bool sr_put_code(struct shim_dataset *parent, enum sr_relation relation, enum sr_code concept_code,
                 const struct code *value, struct err *err) {
    struct shim_dataset *item = NULL;
    return put_item(parent, relation, "CODE", &sr_codes[concept_code], &item, err) &&
           object_put_code(item, tag_concept_value, value, err);
}

bool sr_put_number(struct shim_dataset *parent, const struct sr_number *number, struct shim_dataset **item,
                   struct err *err) {
    struct shim_dataset *own = NULL, *measured = NULL;
    char text[64];
    snprintf(text, sizeof text, "%.*f", number->decimals, number->value);
    text[16] = '\0'; /* DS, PS3.5 6.2 */
    if (!put_item(parent, SR_CONTAINS, "NUM", &sr_codes[number->concept_code], &own, err) ||
        !shim_put_item(own, 0x0040A300, &measured, err) || !shim_put_string(measured, 0x0040A30A, text, err) ||
        !object_put_code(measured, 0x004008EA, &sr_codes[number->unit], err))
        return false;
    if (item)
        *item = own;
    return true;
}

bool sr_put_image(struct shim_dataset *parent, const char *sop_class_uid, const char *sop_instance_uid,
                  struct err *err) {
    struct shim_dataset *item = NULL;
    return put_item(parent, SR_CONTAINS, "IMAGE", NULL, &item, err) &&
           object_put_reference(item, tag_referenced_sop, sop_class_uid, sop_instance_uid, err);
}

bool sr_put_segment(struct shim_dataset *parent, const char *seg_instance_uid, uint16_t segment, struct err *err) {
    struct shim_dataset *item = NULL;
    return put_item(parent, SR_CONTAINS, "IMAGE", &sr_codes[SR_REFERENCED_SEGMENT], &item, err) &&
           object_put_reference(item, tag_referenced_sop, SOP_CLASS_SEG, seg_instance_uid, err) &&
           object_put_u16(shim_item(item, tag_referenced_sop, 0), 0x0062000B, segment, err);
}

bool sr_put_sphere(struct shim_dataset *parent, const struct sr_sphere *sphere, struct err *err) {
    struct shim_dataset *item = NULL;
    float points[6][3];
    for (int end = 0; end < 6; end++)
        for (int axis = 0; axis < 3; axis++) {
            double reach = axis == end / 2 ? sphere->diameter_mm / 2 : 0;
            points[end][axis] = (float)(sphere->center_lps_mm[axis] + (end % 2 ? reach : -reach));
        }
    return put_item(parent, SR_CONTAINS, "SCOORD3D", &sr_codes[SR_VOLUME_SURFACE], &item, err) &&
           shim_put_string(item, 0x00700023, "ELLIPSOID", err) && shim_put_f32(item, 0x00700022, points[0], 18, err) &&
           shim_put_string(item, 0x30060024, sphere->frame_of_reference_uid, err);
}
