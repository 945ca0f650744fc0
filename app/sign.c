/* Signing: the reader's verdicts become a VERIFIED SR, and a SEG without what was rejected, that name the first SR as
 * their predecessor (PS3.3 C.17.2, Predecessor Documents Sequence). */
#include "app/artifacts.h"
#include "app/finding_json.h"
#include "app/precision.h"
#include "app/worker.h"

#include <stdlib.h>
#include <string.h>

struct signing {
    struct store_result result;
    struct bytes document;    /* the result's analysis.json */
    struct analysis analysis; /* run, series, refusals, findings and masks only: nothing is inferred again */
    char model_name[128], model_version[64]; /* that made the result; the one in use may be another */
    struct dicom_report_finding *findings;
    size_t finding_count;
    struct store_verdict *verdicts;
    size_t verdict_count;
    struct instance predecessor;
    struct bytes predecessor_part10;
    char user[64], display_name[128];
};

static void signing_free(struct signing *signing) {
    bytes_free(&signing->document);
    analysis_free(&signing->analysis);
    free(signing->findings);
    free(signing->verdicts);
    bytes_free(&signing->predecessor_part10);
}

static const struct store_verdict *verdict_of(const struct signing *signing, uint32_t finding_id) {
    for (size_t index = 0; index < signing->verdict_count; index++)
        if (signing->verdicts[index].finding_id == finding_id)
            return &signing->verdicts[index];
    return NULL;
}

/* Appends what the reader added, as a finding with no probability of the model's. */
static bool append_added(struct signing *signing, const struct store_verdict *verdict, struct err *err) {
    struct findings *findings = &signing->analysis.findings;
    struct finding *grown = realloc(findings->items, (findings->count + 1) * sizeof *grown);
    if (!grown)
        return err_set(err, ERR_MEMORY, "out of memory for the findings");
    findings->items = grown;
    struct finding *added = &grown[findings->count];
    *added = (struct finding){.id = verdict->finding_id, .diameter_mm = verdict->diameter_mm, .reported = true};
    memcpy(added->center_lps_mm, verdict->center_lps_mm, sizeof added->center_lps_mm);
    if (!grid_to_ijk(&signing->analysis.series->volume->grid, added->center_lps_mm, added->center_ijk))
        return err_set(err, ERR_INTERNAL, "the series' geometry cannot be inverted");
    findings->count++;
    return true;
}

static bool read_document(struct appliance *appliance, const struct store_job *job, struct signing *signing,
                          struct err *err) {
    char media_type[64];
    if (!store_artifact_read(appliance->store, job->result_id, "analysis.json", &signing->document, media_type, err) ||
        !finding_json_read(&signing->document, &signing->analysis.findings, &signing->analysis.run, err) ||
        !finding_json_refusals(&signing->document, &signing->analysis.refusals, err))
        return false;
    finding_json_model(&signing->document, signing->model_name, signing->model_version);
    return true;
}

static bool read_result(struct appliance *appliance, const struct store_job *job, struct signing *signing,
                        struct err *err) {
    char media_type[64];
    return store_result_get(appliance->store, job->result_id, &signing->result, err) &&
           store_sign_user(appliance->store, job, signing->user, sizeof signing->user, signing->display_name,
                           sizeof signing->display_name, err) &&
           read_document(appliance, job, signing, err) &&
           store_artifact_read(appliance->store, job->result_id, "sr.dcm", &signing->predecessor_part10, media_type,
                               err) &&
           dicom_instance_parse(signing->predecessor_part10.data, signing->predecessor_part10.size,
                                &signing->predecessor, err) &&
           store_verdict_list(appliance->store, job->result_id, &signing->verdicts, &signing->verdict_count, err);
}

/* The images of the result alone: what came later was not on the reader's screen. */
static bool read_series(struct appliance *appliance, const struct store_job *job, struct signing *signing,
                        struct err *err) {
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    if (!store_study_paths(appliance->store, job->study_uid, &paths, err) ||
        !finding_json_inputs(&signing->document, &paths, err))
        return false;
    signing->analysis.series = dicom_series_read((const char *const *)paths.items, paths.count, err);
    if (!signing->analysis.series)
        return false;
    return strcmp(signing->analysis.series->series_uid, signing->result.series_uid) == 0 ||
           err_set(err, ERR_CONFLICT, "the result is of series %s, its images are of %s", signing->result.series_uid,
                   signing->analysis.series->series_uid);
}

static enum dicom_verdict verdict_code(const struct store_verdict *verdict) {
    static const struct {
        const char *text;
        enum dicom_verdict code;
    } rows[] = {
        {"accepted", DICOM_VERDICT_ACCEPTED}, {"rejected", DICOM_VERDICT_REJECTED}, {"added", DICOM_VERDICT_ADDED}};
    for (size_t index = 0; verdict && index < sizeof rows / sizeof *rows; index++)
        if (strcmp(rows[index].text, verdict->verdict) == 0)
            return rows[index].code;
    return DICOM_VERDICT_NONE;
}

/* One finding of the signed report. A rejected one keeps its place in the SR but has no mask: viewers shall not paint
 * what the reader does not believe. */
static bool judge(struct signing *signing, struct finding *finding, struct err *err) {
    struct dicom_report_finding *judged = &signing->findings[signing->finding_count];
    *judged =
        (struct dicom_report_finding){.finding = finding, .verdict = verdict_code(verdict_of(signing, finding->id))};
    struct mask *mask = volume_segment_nodule(signing->analysis.series->volume, finding, err);
    if (!mask)
        return false;
    signing->analysis.masks[finding - signing->analysis.findings.items] = mask;
    if (judged->verdict != DICOM_VERDICT_REJECTED)
        judged->mask = mask;
    signing->finding_count++;
    return artifacts_tracking_uid(signing->analysis.series->series_uid, signing->result.model_sha256, finding,
                                  judged->tracking_uid, err);
}

/* What was reported, and a candidate below the operating point that the reader holds for a nodule. */
static bool belongs(const struct signing *signing, const struct finding *finding) {
    return finding->reported || verdict_code(verdict_of(signing, finding->id)) == DICOM_VERDICT_ACCEPTED;
}

static bool judge_all(struct signing *signing, struct err *err) {
    struct analysis *analysis = &signing->analysis;
    if (!analysis->series->volume)
        return true; /* refused by its headers: nothing was found, nothing can have been added */
    for (size_t index = 0; index < signing->verdict_count; index++)
        if (verdict_code(&signing->verdicts[index]) == DICOM_VERDICT_ADDED &&
            !append_added(signing, &signing->verdicts[index], err))
            return false;
    signing->findings = pulmo_alloc(analysis->findings.count, sizeof *signing->findings, err);
    analysis->masks = pulmo_alloc(analysis->findings.count, sizeof(struct mask *), err);
    if (!signing->findings || !analysis->masks)
        return false;
    for (size_t index = 0; index < analysis->findings.count; index++)
        if (belongs(signing, &analysis->findings.items[index]) &&
            !judge(signing, &analysis->findings.items[index], err))
            return false;
    return true;
}

static bool has_mask(const struct signing *signing) {
    for (size_t index = 0; index < signing->finding_count; index++)
        if (signing->findings[index].mask)
            return true;
    return false;
}

/* In which precision the result was computed, not in which this process computes. */
static bool precision_of_result(const struct bytes *document, char *out, size_t size, struct err *err) {
    struct finding_origin origin;
    if (!finding_json_origin(document, &origin, err))
        return false;
    *out = '\0';
    if (*origin.plan.layers)
        precision_report_text(&origin.plan, origin.findings_full, origin.tiles_full, out, size);
    return true;
}

static bool write_signed(struct appliance *appliance, const struct signing *signing, struct artifacts *out,
                         struct err *err) {
    struct dicom_report report = artifacts_report(&signing->analysis, &appliance->engine, appliance->device_uid);
    report.model_name = signing->model_name;
    report.model_version = signing->model_version;
    finding_json_review_rule(&signing->document, report.review_rule, sizeof report.review_rule);
    report.model_sha256 = signing->result.model_sha256;
    report.backend = signing->result.backend;
    report.backend_reason = *signing->analysis.run.backend_reason ? signing->analysis.run.backend_reason : NULL;
    if (!precision_of_result(&signing->document, report.precision, sizeof report.precision, err))
        return false;
    report.findings = signing->findings;
    report.finding_count = signing->finding_count;
    report.time_ms = pulmo_now_ms();
    report.verifier_name = *signing->display_name ? signing->display_name : signing->user;
    report.verifier_organization = appliance->config->organization;
    report.predecessor_sop_instance_uid = signing->predecessor.sop_instance_uid;
    report.predecessor_series_uid = signing->predecessor.series_uid;
    char uid[DICOM_UID_SIZE];
    PULMO_SCOPED(bytes_free) struct bytes seg = {0}, sr = {0};
    bool masked = has_mask(signing);
    return (!masked || dicom_seg_write(&report, &seg, uid, err)) &&
           dicom_sr_write(&report, masked ? &seg : NULL, &sr, uid, err) &&
           (!masked || artifacts_add(out, "signed-seg.dcm", "application/dicom", &seg, true, err)) &&
           artifacts_add(out, "signed-sr.dcm", "application/dicom", &sr, true, err);
}

bool job_sign(struct appliance *appliance, const struct store_job *job, struct err *err) {
    PULMO_SCOPED(signing_free) struct signing signing = {0};
    PULMO_SCOPED(artifacts_free) struct artifacts artifacts = {0};
    return read_result(appliance, job, &signing, err) && read_series(appliance, job, &signing, err) &&
           judge_all(&signing, err) && write_signed(appliance, &signing, &artifacts, err) &&
           store_sign_finish(appliance->store, job, artifacts.items, artifacts.count, err);
}
