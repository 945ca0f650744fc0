/* One study, top to bottom: files -> volume -> quality gate -> findings -> uncertainty -> masks. */
#ifndef PULMO_APP_ANALYSIS_H
#define PULMO_APP_ANALYSIS_H

#include "config.h"
#include "dicom/dicom.h"
#include "infer/infer.h"
#include "volume/volume.h"

/* The model, loaded once, with a session for one thread and the devices that have joined it. */
struct engine {
    struct infer_model *model;
    struct infer_session *session;
    struct infer_session *peers[INFER_DEVICES_MAX - 1]; /* NULL behind the last */
};
/* Opens config->model, or the model installed beside the program, in the precision of the configuration
 * (app/precision.h). */
bool engine_open(const struct config *config, struct engine *out, struct err *err) PULMO_MUST_USE;
/* The same with a model from its files, as store_model_read gives them. */
bool engine_open_files(const struct config *config, const struct model_files *files, struct engine *out,
                       struct err *err) PULMO_MUST_USE;
/* From now on in this precision, whatever the configuration says; NULL = fp32. As it was on failure. */
bool engine_set_precision(struct engine *engine, const struct config *config, const struct infer_precision *precision,
                          struct err *err) PULMO_MUST_USE;
void engine_close(struct engine *engine);
/* "fp32" or "mixed", of a card "fp16": recorded in the result. */
const char *engine_precision(const struct engine *engine);
/* Findings whose detection was computed again in fp32. */
size_t analysis_recomputed(const struct findings *findings);

struct analysis_run { /* what a replay needs beside the images */
    uint64_t configured_seed;
    uint32_t passes;
    double dropout, operating_point;
    int64_t created_ms;
    /* The SR of the result that this one replaces, which its own names; "" = none. */
    char predecessor_sop_instance_uid[DICOM_UID_SIZE], predecessor_series_uid[DICOM_UID_SIZE];
    /* Of a result that is there already: why the processor stood in for a card, as its report says. "" = it did not. */
    char backend_reason[512];
};
/* From the configuration, with the model's values where it says so, created now. */
struct analysis_run analysis_run_configured(const struct config *config, const struct infer_model *model);

struct analysis_timings_ms {
    int64_t read, resample, detect, uncertainty, segment, explain, total;
};
struct analysis {
    struct analysis_run run;
    struct dicom_series *series;
    struct refusals refusals; /* of the series and of the image */
    struct volume_quality quality;
    float *gate_frame; /* INFER_GATE_FRAME, what the model's gate judges; NULL when refused before it */
    bool gated;        /* it has judged: the model has a gate */
    struct infer_gate_result gate;
    struct volume *iso; /* NULL when refused before resampling */
    struct mask *lungs;
    struct findings findings; /* every candidate, best first */
    struct mask **masks;      /* findings.count; NULL for a candidate that is not reported */
    uint64_t study_seed;
    char (*input_sha256)[65]; /* of each file, sorted */
    size_t input_count;
    struct analysis_timings_ms timings, processor; /* by the clock; processor time of all threads */
    struct infer_detect_figures detection;         /* zero when refused */
    struct infer_recompute_figures again;          /* zeros = nothing was computed again in fp32 */
};
/* Analyses the files of one study. A refused study is success with refusals. Caller closes with analysis_free, also
 * after a failure. */
bool analysis_make(struct engine *engine, const char *const *paths, size_t count, const struct analysis_run *run,
                   struct analysis *out, struct err *err) PULMO_MUST_USE;
/* The first half of it: reads the series and lets the gate judge it, without looking for nodules. */
bool analysis_judge(struct engine *engine, const char *const *paths, size_t count, struct analysis *out,
                    struct err *err) PULMO_MUST_USE;
/* The image part of that: resampling to iso, lungs, quality, refusals, gate. True with refusals when the image is
 * refused. out: zeroed before by the caller. */
bool analysis_judge_volume(struct engine *engine, const struct volume *source, struct analysis *out,
                           struct err *err) PULMO_MUST_USE;
void analysis_free(struct analysis *analysis);
/* Processor time of this process so far, over all its threads. */
int64_t analysis_processor_ms(void);

/* The document of `pulmo analyze --json` (DESIGN 1), owned by the caller (bytes_free). failure: NULL or the sentence of
 * a failed study; analysis may then be partly empty. */
bool analysis_json(const struct analysis *analysis, const struct engine *engine, const char *failure, struct bytes *out,
                   struct err *err) PULMO_MUST_USE;
/* The same document without what differs between two runs of one computation (timings, memory): what a replay compares.
 */
bool analysis_json_comparable(const struct bytes *document, struct bytes *out, struct err *err) PULMO_MUST_USE;
/* What `pulmo survey` says of one study: status (accepted, refused, failed), reasons, quality, timings. */
bool analysis_verdict_json(const struct analysis *analysis, const char *failure, struct bytes *out,
                           struct err *err) PULMO_MUST_USE;

#endif
