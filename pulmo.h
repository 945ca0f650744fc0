/* The nouns that every module shares: errors, bytes, grids, volumes, findings, instances.
 *
 * libc only. Frame of all millimetre coordinates: DICOM LPS (x to the patient's left, y to the back, z to
 * the head), PS3.3 C.7.6.2.1.1. Voxel arrays are [k][j][i], i fastest; a voxel's coordinate is its centre. */
#ifndef PULMO_H
#define PULMO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PULMO_VERSION "0.1.0"
#define PULMO_NOT_FOR_DIAGNOSIS "Research use only. Not for diagnosis."

#define PULMO_MUST_USE __attribute__((warn_unused_result))
#define PULMO_PRINTF(text_index, first) __attribute__((format(printf, text_index, first)))
/* Runs FREE(&variable) when the variable leaves its scope; an early return is then the whole error path. */
#define PULMO_SCOPED(FREE) __attribute__((cleanup(FREE)))

/* ---- errors ------------------------------------------------------------------------------------------ */

enum err_kind {
    ERR_NONE = 0,
    ERR_INPUT,       /* the data are wrong: no retry */
    ERR_UNSUPPORTED, /* valid, but not handled here: no retry */
    ERR_LIMIT,       /* beyond a configured or fixed limit: no retry */
    ERR_DENIED,      /* not allowed: AE title, address, password, role */
    ERR_NOT_FOUND,
    ERR_CONFLICT, /* contradicts what is stored */
    ERR_NO_SPACE, /* disk full or quota: retry later */
    ERR_IO,       /* disk: retry later */
    ERR_NETWORK,  /* peer down or silent: retry later */
    ERR_BUSY,     /* locked or out of slots: retry soon */
    ERR_MEMORY,
    ERR_CONFIG,  /* the administrator must change the configuration */
    ERR_INTERNAL /* a bug or an impossible state; the step fails, the process lives */
};

/* An error as a kind and a sentence, in the caller's hand. Zero-initialised = no error. */
struct err {
    enum err_kind kind;
    char text[496];
};

/* Sets *err (may be NULL) and returns false, so that a fault ends in `return err_set(...)`. */
bool err_set(struct err *err, enum err_kind kind, const char *format, ...) PULMO_PRINTF(3, 4);
/* Prefixes the sentence with context ("series 1.2.3: ...") and returns false. */
bool err_within(struct err *err, const char *format, ...) PULMO_PRINTF(2, 3);
const char *err_kind_name(enum err_kind kind);

/* ---- memory ------------------------------------------------------------------------------------------ */

#define PULMO_ALLOC_MAX ((size_t)8 << 30)

/* count * size zeroed bytes, or NULL with err set: ERR_LIMIT on overflow or more than PULMO_ALLOC_MAX,
 * ERR_MEMORY. The only allocator for sizes that come from outside. Free with free(). */
void *pulmo_alloc(size_t count, size_t size, struct err *err);
/* For PULMO_SCOPED on any pointer from malloc. */
void pulmo_free_at(void *pointer_to_pointer);

struct bytes {
    uint8_t *data; /* owned, malloc */
    size_t size;
};
void bytes_free(struct bytes *bytes); /* frees the data, zeroes the struct */
/* Appends size bytes; refuses (ERR_LIMIT) to grow beyond size_max. */
bool bytes_append(struct bytes *bytes, const void *data, size_t size, size_t size_max, struct err *err) PULMO_MUST_USE;
/* Reads a whole file of at most size_max bytes. */
bool bytes_read_file(const char *path, size_t size_max, struct bytes *out, struct err *err) PULMO_MUST_USE;
/* Writes a whole file; durable = file and folder synced, through a temporary name and a rename. */
bool bytes_write_file(const char *path, const void *data, size_t size, bool durable, struct err *err) PULMO_MUST_USE;

/* A model as its files: model.json first, then what it names. The store keeps them, the engine opens them. */
#define MODEL_FILES_MAX 16
struct model_files {
    struct model_file {
        char name[64];
        struct bytes content;
    } items[MODEL_FILES_MAX];
    size_t count;
};
void model_files_free(struct model_files *files);
/* Moves *content behind the others, whether it succeeds or not. ERR_INPUT unless name is a plain one. */
bool model_files_add(struct model_files *files, const char *name, struct bytes *content,
                     struct err *err) PULMO_MUST_USE;

/* Writes size bytes to a descriptor, through short writes and signals; false with errno set. */
bool bytes_write_all(int descriptor, const uint8_t *data, size_t size);

int64_t pulmo_now_ms(void);       /* wall clock, Unix epoch */
int64_t pulmo_monotonic_ms(void); /* for durations and deadlines */

/* ---- geometry ---------------------------------------------------------------------------------------- */

struct grid {
    int32_t size_ijk[3];        /* columns, rows, slices */
    double spacing_mm[3];       /* along i, j, k */
    double ijk_to_lps_mm[3][4]; /* affine of voxel centres; columns 0..2 = direction * spacing, 3 = origin */
};
size_t grid_voxels(const struct grid *grid);
void grid_to_lps(const struct grid *grid, const double ijk[3], double lps_mm[3]);
/* False when the affine is singular. */
bool grid_to_ijk(const struct grid *grid, const double lps_mm[3], double ijk[3]);

struct volume {
    struct grid grid;
    int16_t *hu; /* [k][j][i], Hounsfield units */
};
struct volume *volume_new(const struct grid *grid, struct err *err);
void volume_free(struct volume *volume);
void volume_free_at(struct volume **volume);

/* Labels or a binary mask on a grid. */
struct mask {
    struct grid grid;
    uint8_t *voxel; /* [k][j][i] */
};
struct mask *mask_new(const struct grid *grid, struct err *err);
void mask_free(struct mask *mask);
void mask_free_at(struct mask **mask);

/* ---- findings ---------------------------------------------------------------------------------------- */

enum texture { TEXTURE_UNKNOWN = 0, TEXTURE_SOLID, TEXTURE_PART_SOLID, TEXTURE_GROUND_GLASS };
enum lobe { LOBE_UNKNOWN = 0, LOBE_RUL, LOBE_RML, LOBE_RLL, LOBE_LUL, LOBE_LLL };
const char *texture_name(enum texture texture); /* "solid", "part-solid", "ground-glass", "unknown" */
const char *lobe_name(enum lobe lobe);          /* "RUL" ... "unknown" */

#define FINDING_PASSES_MAX 100
#define FINDING_ATTENTION 125 /* tokens: 5 x 5 x 5 */

/* A candidate of the detector and, in the order of the pipeline, what later steps learn of it. */
struct finding {
    uint32_t id; /* from 1, best first */
    /* detector, candidate network */
    double center_lps_mm[3];
    double center_ijk[3]; /* in the source CT's grid */
    double diameter_mm;
    double detector_logit;
    int32_t detector_cell_kji[3]; /* of the detector's map, where it was found */
    bool full_precision;          /* found by a detector of lower precision, and then computed again in fp32 */
    enum texture texture;
    enum lobe lobe;
    /* uncertainty: DESIGN 6, REFERENCE 2 */
    double probability;                       /* mean of the calibrated passes */
    double probability_low, probability_high; /* 5th and 95th percentile */
    double entropy_nats, mutual_information_nats;
    uint32_t pass_count;
    float pass_probabilities[FINDING_PASSES_MAX];
    float attention[FINDING_ATTENTION]; /* of the tokens around it, [z][y][x]: what each received, mean over passes */
    bool reported;                      /* at or above the operating point */
    bool review;                        /* uncertain by the triage rule */
    /* segmentation */
    double long_axis_mm, short_axis_mm, volume_mm3;
};

struct findings {
    struct finding *items; /* owned, malloc */
    size_t count;
};
void findings_free(struct findings *findings);

/* ---- why a series is refused: DESIGN 3 --------------------------------------------------------------- */

enum refusal_code {
    REFUSAL_NOT_CT = 0,
    REFUSAL_LOCALIZER,
    REFUSAL_NOT_AXIAL,
    REFUSAL_MIXED_GEOMETRY,
    REFUSAL_MISSING_SLICES,
    REFUSAL_DUPLICATE_POSITIONS,
    REFUSAL_TOO_THICK,
    REFUSAL_TOO_FEW_SLICES,
    REFUSAL_NOT_A_CHEST,
    REFUSAL_LUNGS_CUT,
    REFUSAL_OUT_OF_DISTRIBUTION,
    REFUSAL_UNREADABLE,
    REFUSAL_CODE_COUNT
};
const char *refusal_name(enum refusal_code code); /* "NOT_CT" ... */

#define REFUSALS_MAX 8
struct refusal {
    enum refusal_code code;
    char text[200]; /* a sentence with figures: "8 slices are missing between z = -120.0 and -95.0 mm" */
};
struct refusals {
    size_t count; /* 0 = accepted */
    struct refusal items[REFUSALS_MAX];
};
void refusals_add(struct refusals *refusals, enum refusal_code code, const char *format, ...) PULMO_PRINTF(3, 4);

/* ---- an instance as it was received ------------------------------------------------------------------ */

#define DICOM_UID_SIZE 65 /* 64 characters and NUL, PS3.5 9.1 */
#define DICOM_AET_SIZE 17

/* Borrowed for the call of a sink. Strings are empty when the attribute is absent. */
struct instance {
    char sop_class_uid[DICOM_UID_SIZE], sop_instance_uid[DICOM_UID_SIZE];
    char study_uid[DICOM_UID_SIZE], series_uid[DICOM_UID_SIZE];
    char transfer_syntax_uid[DICOM_UID_SIZE];
    char calling_aet[DICOM_AET_SIZE], called_aet[DICOM_AET_SIZE], peer_address[64];
    char patient_name[256], patient_id[128], accession_number[64], study_date[16], study_time[32];
    char study_description[256], series_description[256], modality[20]; /* UTF-8 */
    int64_t instance_number;
    uint64_t association_id; /* as in dicom_event; 0 = none: a file or a STOW part */
    const uint8_t *part10;   /* preamble (zeroed), file meta information, data set as received */
    size_t part10_size;
    const char *part10_sha256; /* its digest as hexadecimal text, by who received it; NULL = not computed yet */
};

#ifdef __cplusplus
}
#endif
#endif
