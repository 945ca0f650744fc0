/* Functional groups of Enhanced CT (PS3.3 A.38) and of Legacy Converted Enhanced CT (PS3.3 A.70). */
#include "dicom/ct.h"

#include <string.h>

static const uint32_t SHARED_GROUPS = 0x52009229, FRAME_GROUPS = 0x52009230;
/* The macros of PS3.3 C.7.6.16.2 and C.8.15.3. */
static const uint32_t PLANE_POSITION = 0x00209113, PLANE_ORIENTATION = 0x00209116, PIXEL_MEASURES = 0x00289110;
static const uint32_t PIXEL_VALUES = 0x00289145, CT_RECONSTRUCTION = 0x00189314, CT_FRAME_TYPE = 0x00189329;
static const uint32_t SHARED_UNASSIGNED = 0x00209170, FRAME_UNASSIGNED = 0x00209171, CONVOLUTION_KERNEL = 0x00181210;

bool ct_is_multi_frame(const char *sop_class_uid) {
    return strcmp(sop_class_uid, "1.2.840.10008.5.1.4.1.1.2.1") == 0 ||
           strcmp(sop_class_uid, "1.2.840.10008.5.1.4.1.1.2.2") == 0;
}

struct ct_places ct_places_of_image(const struct shim_dataset *dataset) {
    return (struct ct_places){dataset, dataset, dataset, dataset, dataset, dataset};
}

/* What a frame has of its own, what all have in common, and where to look when neither has it. */
struct groups {
    const struct shim_dataset *own, *shared, *none;
};

static const struct shim_dataset *macro_of(const struct groups *groups, uint32_t sequence_tag) {
    const struct shim_dataset *item = groups->own != NULL ? shim_item(groups->own, sequence_tag, 0) : NULL;
    if (item == NULL && groups->shared != NULL)
        item = shim_item(groups->shared, sequence_tag, 0);
    return item != NULL ? item : groups->none;
}

/* A converted object keeps what its macros have no place for as it was in the classic image, what differs from frame to
 * frame apart: PS3.3 C.7.6.16.2, Unassigned Shared and Per-Frame Converted Attributes. */
static const struct shim_dataset *reconstruction_of(const struct groups *groups) {
    const uint32_t macros[] = {CT_RECONSTRUCTION, FRAME_UNASSIGNED, SHARED_UNASSIGNED};
    for (size_t n = 0; n < sizeof macros / sizeof *macros; n++) {
        const struct shim_dataset *item = macro_of(groups, macros[n]);
        if (item != groups->none && shim_has(item, CONVOLUTION_KERNEL))
            return item;
    }
    return groups->none;
}

struct ct_places ct_places_of_frame(const struct shim_dataset *dataset, uint32_t frame) {
    const struct groups groups = {shim_item(dataset, FRAME_GROUPS, frame), shim_item(dataset, SHARED_GROUPS, 0),
                                  dataset};
    return (struct ct_places){.position = macro_of(&groups, PLANE_POSITION),
                              .orientation = macro_of(&groups, PLANE_ORIENTATION),
                              .measures = macro_of(&groups, PIXEL_MEASURES),
                              .values = macro_of(&groups, PIXEL_VALUES),
                              .reconstruction = reconstruction_of(&groups),
                              .type = macro_of(&groups, CT_FRAME_TYPE)};
}

size_t ct_frame_groups(const struct shim_dataset *dataset) {
    return shim_item_count(dataset, FRAME_GROUPS);
}
