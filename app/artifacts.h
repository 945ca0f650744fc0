/* What a result leaves behind, as named files: analysis.json, sr.dcm, seg.dcm, overlays and contours for the viewer.
 * The worker puts them into the store, `pulmo analyze --out` into a folder. */
#ifndef PULMO_APP_ARTIFACTS_H
#define PULMO_APP_ARTIFACTS_H

#include "app/analysis.h"
#include "store/store.h"

struct artifacts {
    struct store_artifact *items; /* names, media types and contents owned by the list */
    size_t count;
};
void artifacts_free(struct artifacts *artifacts);
/* Moves *content into the list, whether it succeeds or not. media_type: a literal. */
bool artifacts_add(struct artifacts *artifacts, const char *name, const char *media_type, struct bytes *content,
                   bool send, struct err *err) PULMO_MUST_USE;

/* Everything of an analysis, refused ones too: those have analysis.json and sr.dcm. Fills the explain timing. */
bool artifacts_make(struct analysis *analysis, struct engine *engine, const char *device_uid, struct artifacts *out,
                    struct err *err) PULMO_MUST_USE;
/* A failed study that could be read: its SR says why. */
bool artifacts_make_failed(const struct analysis *analysis, const struct engine *engine, const char *device_uid,
                           const char *failure, struct artifacts *out, struct err *err) PULMO_MUST_USE;

/* The decoded series for the viewer: series.json and slices.i16 (int16 little endian, slice by slice). */
bool artifacts_make_series(const struct dicom_series *series, struct artifacts *out, struct err *err) PULMO_MUST_USE;

/* UID by which a finding of a result is tracked across SEG, SR and the signed SR (PS3.16 TID 1411). */
bool artifacts_tracking_uid(const char *series_uid, const char *model_sha256, const struct finding *finding,
                            char out[DICOM_UID_SIZE], struct err *err) PULMO_MUST_USE;
/* A report with what is the same in the first and the signed SR. */
struct dicom_report artifacts_report(const struct analysis *analysis, const struct engine *engine,
                                     const char *device_uid);

#endif
