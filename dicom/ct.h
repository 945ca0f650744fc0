/* The parts of dicom_series_read: headers, choice of a series, geometry and gate, pixels. Private to dicom/. */
#ifndef PULMO_DICOM_CT_H
#define PULMO_DICOM_CT_H

#include "dicom/dicom.h"
#include "dicom/pixels.h"

#define CT_FILES_MAX 20000
#define CT_FILE_BYTES_MAX ((size_t)512 << 20)
#define CT_VOXELS_MAX ((size_t)1 << 30)
#define CT_SLICES_MIN 16      /* fewer cannot hold lungs */
#define CT_SPACING_MAX_MM 5.5 /* 5 mm series are read; nodules vanish between thicker slices */
#define CT_OBLIQUE_MAX_DEGREES 20.0
#define CT_TILT_MAX_DEGREES 1.0

/* What one file's header says. Strings are empty and has_... false where it is silent. */
struct ct_header {
    size_t path_index;
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

/* ct_header.c: false with err = not a DICOM file that can be read; otherwise *out is filled and `problem` tells. */
bool ct_header_read(const char *path, struct ct_header *out, struct err *err) PULMO_MUST_USE;

/* ct_select.c: sorts the headers by series and points at the one to analyse. Localizers that lie beside axial slices
 * in the chosen series and repeated files of one SOP instance are left out. */
struct ct_group {
    struct ct_header *headers; /* borrowed from the sorted array */
    size_t count;
};
struct ct_group ct_select(struct ct_header *headers, size_t count);

/* ct_geometry.c: sorts the group along its normal and adds to `refusals` what speaks against its geometry. *grid and
 * *spacing_mm are valid when nothing was added. */
void ct_geometry(struct ct_group *group, struct grid *grid, struct refusals *refusals);

/* ct_pixels.c: fills the volume's k-th slice each; a slice that cannot be decoded adds REFUSAL_UNREADABLE. */
bool ct_pixels(const struct ct_group *group, const char *const *paths, struct volume *volume, struct refusals *refusals,
               struct err *err) PULMO_MUST_USE;

#endif
