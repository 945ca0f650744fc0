/* The parts of dicom_series_read: headers, choice of a series, geometry and gate, pixels. Private to dicom/. */
#ifndef PULMO_DICOM_CT_H
#define PULMO_DICOM_CT_H

#include "dicom/dicom.h"
#include "dicom/pixels.h"

#define CT_FILES_MAX 20000
#define CT_FRAMES_MAX 20000 /* of all files together */
#define CT_FILE_BYTES_MAX ((size_t)512 << 20)
#define CT_VOXELS_MAX ((size_t)1 << 30)
#define CT_SLICES_MIN 16      /* fewer cannot hold lungs */
#define CT_SPACING_MAX_MM 5.5 /* 5 mm series are read; nodules vanish between thicker slices */
#define CT_OBLIQUE_MAX_DEGREES 20.0
#define CT_TILT_MAX_DEGREES 1.0

/* What a file's header says of one frame. Strings are empty and has_... false where it is silent. */
struct ct_header {
    size_t path_index;
    uint32_t frame; /* of the file, from 0 */
    char sop_class_uid[DICOM_UID_SIZE], sop_instance_uid[DICOM_UID_SIZE];
    char study_uid[DICOM_UID_SIZE], series_uid[DICOM_UID_SIZE], frame_of_reference_uid[DICOM_UID_SIZE];
    char modality[20], series_description[256], kernel[64];
    int64_t instance_number;
    bool is_ct_image, is_localizer;
    char problem[160]; /* why the slice cannot be used; "" = usable */
    double position_lps_mm[3], row_direction[3], column_direction[3];
    double spacing_ij_mm[2], thickness_mm;
    double slope, intercept;
    bool has_padding;
    int32_t padding_first, padding_last; /* stored values, PS3.3 C.7.5.1.1.2 */
    struct pixel_format format;
    double along_mm; /* position on the normal, set by ct_geometry */
};

struct ct_headers {
    struct ct_header *items; /* owned, malloc */
    size_t count, capacity;
};
void ct_headers_free(struct ct_headers *headers);
/* ct_header.c: adds a header for each frame of a file, or the only one where it cannot be told how many there are;
 * `problem` tells. False with err, and nothing added: not a DICOM file that can be read; ERR_LIMIT. */
bool ct_headers_read(const char *path, size_t path_index, struct ct_headers *headers, struct err *err) PULMO_MUST_USE;

/* ct_frames.c: where a frame keeps what a classic CT image keeps in its data set: the items of its functional groups
 * (PS3.3 C.7.6.16), its own before the shared ones; of a group that is missing, and of a classic image, the data set
 * itself. Borrowed from the data set. */
struct ct_places {
    const struct shim_dataset *position, *orientation, *measures, *values, *reconstruction, *type;
};
bool ct_is_multi_frame(const char *sop_class_uid); /* Enhanced CT, Legacy Converted Enhanced CT */
struct ct_places ct_places_of_image(const struct shim_dataset *dataset);
struct ct_places ct_places_of_frame(const struct shim_dataset *dataset, uint32_t frame);
/* Items of the Per-Frame Functional Groups Sequence, one a frame. */
size_t ct_frame_groups(const struct shim_dataset *dataset);

/* ct_select.c: sorts the headers by series and points at the one to analyse. Localizers that lie beside axial slices
 * in the chosen series and repeated frames of one SOP instance are left out. */
struct ct_group {
    struct ct_header *headers; /* borrowed from the sorted array */
    size_t count;
};
struct ct_group ct_select(struct ct_header *headers, size_t count);

/* ct_geometry.c: sorts the group along its normal and adds to `refusals` what speaks against its geometry. *grid and
 * *spacing_mm are valid when nothing was added. */
void ct_geometry(struct ct_group *group, struct grid *grid, struct refusals *refusals);

/* ct_pixels.c: fills the volume's slices, k from the k-th header, each file read once; a slice that cannot be decoded
 * adds REFUSAL_UNREADABLE. */
bool ct_pixels(const struct ct_group *group, const char *const *paths, struct volume *volume, struct refusals *refusals,
               struct err *err) PULMO_MUST_USE;

#endif
