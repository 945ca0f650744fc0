/* Findings' masks as one binary Segmentation (PS3.3 A.51), one finding a segment, in the frames of the source series.
 */
#include "dicom/object.h"
#include "dicom/sr_codes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t tag_frame_content = 0x00209111, tag_plane_position = 0x00209113, tag_derivation = 0x00089124,
                      tag_segment_identification = 0x0062000A;

/* One frame: the slice k of one segment. */
struct frame {
    uint16_t segment; /* from 1 */
    int32_t k;
    const struct mask *mask;
    int32_t offset_ijk[3]; /* of the mask's box in the series' grid */
};
struct frames {
    struct frame *items; /* owned */
    size_t count;
};
static void frames_free(struct frames *frames) {
    free(frames->items);
}

/* ---- which frames ------------------------------------------------------------------------------------ */

static bool mask_offset(const struct grid *series, const struct mask *mask, int32_t offset[3], struct err *err) {
    const double first[3] = {0, 0, 0};
    double lps[3], ijk[3];
    grid_to_lps(&mask->grid, first, lps);
    if (!grid_to_ijk(series, lps, ijk))
        return err_set(err, ERR_INPUT, "the series' geometry cannot be inverted");
    for (int axis = 0; axis < 3; axis++) {
        double rounded = round(ijk[axis]);
        bool fits = rounded >= 0 && rounded + mask->grid.size_ijk[axis] <= series->size_ijk[axis];
        bool aligned =
            fabs(ijk[axis] - rounded) < 0.05 && fabs(mask->grid.spacing_mm[axis] - series->spacing_mm[axis]) < 1e-3;
        if (!fits || !aligned)
            return err_set(err, ERR_INPUT, "a finding's mask is not a box of the series' grid");
        offset[axis] = (int32_t)rounded;
    }
    return true;
}

static const uint8_t *mask_plane(const struct mask *mask, int32_t k) {
    return mask->voxel + (size_t)mask->grid.size_ijk[0] * (size_t)mask->grid.size_ijk[1] * (size_t)k;
}

static bool plane_is_empty(const struct mask *mask, int32_t k) {
    const uint8_t *voxel = mask_plane(mask, k);
    size_t count = (size_t)mask->grid.size_ijk[0] * (size_t)mask->grid.size_ijk[1];
    for (size_t n = 0; n < count; n++)
        if (voxel[n])
            return false;
    return true;
}

static bool frames_of(const struct grid *series, const struct mask *mask, uint16_t segment, struct frames *frames,
                      struct err *err) {
    struct frame frame = {.segment = segment, .mask = mask};
    if (!mask_offset(series, mask, frame.offset_ijk, err))
        return false;
    size_t before = frames->count;
    for (int32_t k = 0; k < mask->grid.size_ijk[2]; k++) {
        if (plane_is_empty(mask, k))
            continue;
        frame.k = frame.offset_ijk[2] + k;
        frames->items[frames->count++] = frame;
    }
    return frames->count > before || err_set(err, ERR_INPUT, "the mask of segment %u is empty", segment);
}

static bool frames_collect(const struct dicom_report *report, struct frames *out, struct err *err) {
    size_t planes = 0;
    uint16_t segment = 0;
    for (size_t index = 0; index < report->finding_count; index++)
        planes += report->findings[index].mask ? (size_t)report->findings[index].mask->grid.size_ijk[2] : 0;
    if (!planes)
        return err_set(err, ERR_INPUT, "no finding has a mask: nothing to segment");
    out->items = pulmo_alloc(planes, sizeof *out->items, err);
    if (!out->items)
        return false;
    for (size_t index = 0; index < report->finding_count; index++)
        if (report->findings[index].mask &&
            !frames_of(&report->series->volume->grid, report->findings[index].mask, ++segment, out, err))
            return err_within(err, "finding %u", report->findings[index].finding->id);
    return true;
}

/* ---- segments ---------------------------------------------------------------------------------------- */

/* What a reader added was pointed out by a person and outlined by the algorithm. */
static bool put_algorithm(struct shim_dataset *segment, const struct dicom_report *report, bool added,
                          struct err *err) {
    static const struct code family = {"123110", "DCM", "Artificial Intelligence"};
    struct shim_dataset *item = NULL;
    return shim_put_string(segment, 0x00620008, added ? "SEMIAUTOMATIC" : "AUTOMATIC", err) &&
           shim_put_string(segment, 0x00620009, report->model_name, err) &&
           shim_put_item(segment, 0x00620007, &item, err) && object_put_code(item, 0x0066002F, &family, err) &&
           shim_put_string(item, 0x00660036, report->model_name, err) &&
           shim_put_string(item, 0x00660031, report->model_version, err);
}

static bool put_segment(struct shim_dataset *root, const struct dicom_report *report,
                        const struct dicom_report_finding *finding, uint16_t number, struct err *err) {
    static const struct code category = {"49755003", "SCT", "Morphologically Altered Structure"};
    static const struct code type = {"27925004", "SCT", "Nodule"}, region = {"39607008", "SCT", "Lung"};
    static const uint16_t color[3] = {45746, 50115, 49259}; /* CIELab, a light amber */
    struct shim_dataset *segment = NULL;
    char label[64];
    sr_tracking_identifier(finding, label);
    return shim_put_item(root, 0x00620002, &segment, err) && object_put_u16(segment, 0x00620004, number, err) &&
           shim_put_string(segment, 0x00620005, label, err) &&
           put_algorithm(segment, report, finding->verdict == DICOM_VERDICT_ADDED, err) &&
           object_put_code(segment, 0x00620003, &category, err) && object_put_code(segment, 0x0062000F, &type, err) &&
           object_put_code(segment, 0x00082218, &region, err) && shim_put_u16(segment, 0x0062000D, color, 3, err) &&
           shim_put_string(segment, 0x00620020, label, err) &&
           shim_put_string(segment, 0x00620021, finding->tracking_uid, err);
}

static bool put_segments(struct shim_dataset *root, const struct dicom_report *report, struct err *err) {
    uint16_t number = 0;
    for (size_t index = 0; index < report->finding_count; index++)
        if (report->findings[index].mask && !put_segment(root, report, &report->findings[index], ++number, err))
            return false;
    return true;
}

/* ---- functional groups ------------------------------------------------------------------------------- */

static bool put_shared_groups(struct shim_dataset *root, const struct dicom_series *series, struct err *err) {
    const struct grid *grid = &series->volume->grid;
    const double pixel[2] = {grid->spacing_mm[1], grid->spacing_mm[0]};
    double thickness = series->slice_thickness_mm > 0 ? series->slice_thickness_mm : grid->spacing_mm[2];
    double orientation[6];
    for (int axis = 0; axis < 3; axis++) {
        orientation[axis] = grid->ijk_to_lps_mm[axis][0] / grid->spacing_mm[0];
        orientation[3 + axis] = grid->ijk_to_lps_mm[axis][1] / grid->spacing_mm[1];
    }
    struct shim_dataset *shared = NULL, *plane = NULL, *measures = NULL;
    return shim_put_item(root, 0x52009229, &shared, err) && shim_put_item(shared, 0x00209116, &plane, err) &&
           object_put_numbers(plane, 0x00200037, orientation, 6, err) &&
           shim_put_item(shared, 0x00289110, &measures, err) &&
           object_put_numbers(measures, 0x00180050, &thickness, 1, err) &&
           object_put_numbers(measures, 0x00180088, &grid->spacing_mm[2], 1, err) &&
           object_put_numbers(measures, 0x00280030, pixel, 2, err);
}

/* Derivation Image with the slice it lies on: without it viewers do not overlay the segment. */
static bool put_source(struct shim_dataset *group, const struct dicom_slice *slice, struct err *err) {
    static const struct code derivation = {"113076", "DCM", "Segmentation"};
    static const struct code purpose = {"121322", "DCM", "Source image for image processing operation"};
    struct shim_dataset *item = NULL, *source = NULL;
    char frame[16];
    snprintf(frame, sizeof frame, "%u", slice->frame_number);
    return shim_put_item(group, tag_derivation, &item, err) && object_put_code(item, 0x00089215, &derivation, err) &&
           shim_put_item(item, 0x00082112, &source, err) &&
           shim_put_string(source, 0x00081150, slice->sop_class_uid, err) &&
           shim_put_string(source, 0x00081155, slice->sop_instance_uid, err) &&
           (slice->frame_number == 0 || shim_put_string(source, 0x00081160, frame, err)) &&
           shim_put_string(source, 0x0028135A, "YES", err) && object_put_code(source, 0x0040A170, &purpose, err);
}

static bool put_frame_group(struct shim_dataset *root, const struct dicom_series *series, const struct frame *frame,
                            uint32_t position_index, struct err *err) {
    const struct dicom_slice *slice = &series->slices[frame->k];
    const uint32_t index[2] = {frame->segment, position_index};
    struct shim_dataset *group = NULL, *content = NULL, *position = NULL, *segment = NULL;
    return shim_put_item(root, 0x52009230, &group, err) && put_source(group, slice, err) &&
           shim_put_item(group, tag_frame_content, &content, err) && shim_put_u32(content, 0x00209157, index, 2, err) &&
           shim_put_item(group, tag_plane_position, &position, err) &&
           object_put_numbers(position, 0x00200032, slice->position_lps_mm, 3, err) &&
           shim_put_item(group, tag_segment_identification, &segment, err) &&
           object_put_u16(segment, 0x0062000B, frame->segment, err);
}

static int compare_k(const void *a, const void *b) {
    int32_t left = *(const int32_t *)a, right = *(const int32_t *)b;
    return (left > right) - (left < right);
}

/* Dimension Index Values of positions count the distinct positions of the object from 1 (PS3.3 C.7.6.17.1). */
static bool put_frame_groups(struct shim_dataset *root, const struct dicom_series *series, const struct frames *frames,
                             struct err *err) {
    PULMO_SCOPED(pulmo_free_at) int32_t *k = pulmo_alloc(frames->count, sizeof *k, err);
    if (!k)
        return false;
    for (size_t n = 0; n < frames->count; n++)
        k[n] = frames->items[n].k;
    qsort(k, frames->count, sizeof *k, compare_k);
    size_t distinct = 0;
    for (size_t n = 0; n < frames->count; n++)
        if (distinct == 0 || k[n] != k[distinct - 1])
            k[distinct++] = k[n];
    for (size_t n = 0; n < frames->count; n++) {
        const int32_t *found = bsearch(&frames->items[n].k, k, distinct, sizeof *k, compare_k);
        if (!put_frame_group(root, series, &frames->items[n], (uint32_t)(found - k) + 1, err))
            return false;
    }
    return true;
}

static bool put_dimension(struct shim_dataset *root, uint32_t pointer, uint32_t group, const char *organization_uid,
                          const char *label, struct err *err) {
    struct shim_dataset *item = NULL;
    return shim_put_item(root, 0x00209222, &item, err) && shim_put_string(item, 0x00209164, organization_uid, err) &&
           shim_put_u32(item, 0x00209165, &pointer, 1, err) && shim_put_u32(item, 0x00209167, &group, 1, err) &&
           shim_put_string(item, 0x00209421, label, err);
}

static bool put_dimensions(struct shim_dataset *root, const struct dicom_report *report, struct err *err) {
    struct shim_dataset *item = NULL;
    char text[160], uid[DICOM_UID_SIZE];
    snprintf(text, sizeof text, "pulmo seg dimensions of %s at %lld", report->series->series_uid,
             (long long)report->time_ms);
    return dicom_uid_derive(text, uid, err) && shim_put_item(root, 0x00209221, &item, err) &&
           shim_put_string(item, 0x00209164, uid, err) &&
           put_dimension(root, 0x0062000B, tag_segment_identification, uid, "Segment", err) &&
           put_dimension(root, 0x00200032, tag_plane_position, uid, "Position", err);
}

/* ---- pixels ------------------------------------------------------------------------------------------ */

/* Bits of all frames in one stream, the first pixel in the lowest bit, no padding between frames (PS3.5 8.1.1). */
static void pack_frame(const struct frame *frame, const struct grid *grid, size_t first_bit, uint8_t *bits) {
    const int32_t *size = frame->mask->grid.size_ijk, *offset = frame->offset_ijk;
    const uint8_t *voxel = mask_plane(frame->mask, frame->k - offset[2]);
    for (int32_t j = 0; j < size[1]; j++)
        for (int32_t i = 0; i < size[0]; i++) {
            size_t column = (size_t)(offset[0] + i), row = (size_t)(offset[1] + j);
            size_t bit = first_bit + row * (size_t)grid->size_ijk[0] + column;
            if (voxel[(size_t)j * (size_t)size[0] + (size_t)i])
                bits[bit / 8] |= (uint8_t)(1U << (bit % 8));
        }
}

static bool put_pixels(struct shim_dataset *root, const struct grid *grid, const struct frames *frames,
                       struct err *err) {
    size_t frame_bits = (size_t)grid->size_ijk[0] * (size_t)grid->size_ijk[1];
    size_t size = (frame_bits * frames->count + 7) / 8;
    size += size % 2;
    PULMO_SCOPED(pulmo_free_at) uint8_t *bits = pulmo_alloc(size, 1, err);
    if (!bits)
        return false;
    for (size_t n = 0; n < frames->count; n++)
        pack_frame(&frames->items[n], grid, frame_bits * n, bits);
    return shim_put_bytes(root, 0x7FE00010, bits, size, err);
}

static bool put_image_module(struct shim_dataset *root, const struct grid *grid, size_t frames, struct err *err) {
    const struct {
        uint32_t tag;
        int32_t value;
    } rows[] = {{0x00280002, 1},
                {0x00280010, grid->size_ijk[1]},
                {0x00280011, grid->size_ijk[0]},
                {0x00280100, 1},
                {0x00280101, 1},
                {0x00280102, 0},
                {0x00280103, 0}};
    char count[16];
    snprintf(count, sizeof count, "%zu", frames);
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++)
        if (!object_put_u16(root, rows[row].tag, (uint16_t)rows[row].value, err))
            return false;
    const struct object_row text[] = {
        {0x00080008, "DERIVED\\PRIMARY"},
        {0x00280004, "MONOCHROME2"},
        {0x00280008, count},
        {0x00282110, "00"},
        {0x00620001, "BINARY"},
        {0x00620013, "NO"},
        {0x00700080, "PULMO_NODULES"},
        {0x00700081, PULMO_NOT_FOR_DIAGNOSIS},
        {0x00700084, ""},
    };
    return object_put_rows(root, text, sizeof text / sizeof *text, err);
}

/* ---- the object -------------------------------------------------------------------------------------- */

/* Common Instance Reference: each source instance once. */
static bool put_references(struct shim_dataset *root, const struct dicom_series *series, const struct frames *frames,
                           struct err *err) {
    PULMO_SCOPED(pulmo_free_at) bool *used = pulmo_alloc(series->slice_count, sizeof *used, err);
    struct shim_dataset *item = NULL;
    if (!used || !shim_put_item(root, 0x00081115, &item, err) ||
        !shim_put_string(item, 0x0020000E, series->series_uid, err))
        return false;
    for (size_t n = 0; n < frames->count; n++)
        used[frames->items[n].k] = true;
    for (size_t k = 0; k < series->slice_count; k++)
        if (used[k] && object_first_of_instance(series, used, k) &&
            !object_put_reference(item, 0x0008114A, series->slices[k].sop_class_uid, series->slices[k].sop_instance_uid,
                                  err))
            return false;
    return true;
}

static bool put_frame_of_reference(struct shim_dataset *root, const struct dicom_series *series, struct err *err) {
    char uid[DICOM_UID_SIZE];
    return object_frame_of_reference(series, uid, err) && shim_put_string(root, 0x00200052, uid, err) &&
           shim_put_string(root, 0x00201040, "", err);
}

static bool series_checked(const struct dicom_series *series, struct err *err) {
    if (!series->volume || !series->slices)
        return err_set(err, ERR_INPUT, "the series has no volume to lay masks on");
    if (series->slice_count != (size_t)series->volume->grid.size_ijk[2])
        return err_set(err, ERR_INTERNAL, "the series has %zu slices and a volume of %d", series->slice_count,
                       series->volume->grid.size_ijk[2]);
    return true;
}

bool dicom_seg_write(const struct dicom_report *report, struct bytes *out, char sop_instance_uid[DICOM_UID_SIZE],
                     struct err *err) {
    static const struct object_series series = {"SEG", "Pulmo nodules. " PULMO_NOT_FOR_DIAGNOSIS, "9002"};
    PULMO_SCOPED(frames_free) struct frames frames = {0};
    if (!series_checked(report->series, err) || !frames_collect(report, &frames, err))
        return false;
    PULMO_SCOPED(shim_dataset_free_at) struct shim_dataset *root = shim_dataset_new(err);
    const struct grid *grid = &report->series->volume->grid;
    return root && shim_put_string(root, 0x00080016, SOP_CLASS_SEG, err) &&
           object_put_study(root, report->series, err) && object_put_series(root, report, &series, err) &&
           put_frame_of_reference(root, report->series, err) && put_image_module(root, grid, frames.count, err) &&
           put_segments(root, report, err) && put_dimensions(root, report, err) &&
           put_shared_groups(root, report->series, err) && put_frame_groups(root, report->series, &frames, err) &&
           put_references(root, report->series, &frames, err) && put_pixels(root, grid, &frames, err) &&
           object_finish(root, "seg", out, sop_instance_uid, err);
}
