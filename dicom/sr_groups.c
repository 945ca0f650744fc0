#include "dicom/sr_groups.h"

#include <stdio.h>

/* ---- algorithm --------------------------------------------------------------------------------------- */

static void algorithm_parameters(const struct dicom_report *report, char *out, size_t size) {
    const char *reason = report->backend_reason ? report->backend_reason : "";
    snprintf(out, size, "model=sha256:%s backend=%s%s%s%s%s%s passes=%u dropout=%g operating_point=%g seed=%llu",
             report->model_sha256, report->backend, *reason ? " (" : "", reason, *reason ? ")" : "",
             *report->precision ? " precision=" : "", report->precision, report->passes, report->dropout,
             report->operating_point, (unsigned long long)report->seed);
}

static bool put_algorithm(struct shim_dataset *parent, enum sr_relation relation, const struct dicom_report *report,
                          struct err *err) {
    char parameters[1024];
    algorithm_parameters(report, parameters, sizeof parameters);
    return sr_put_text(parent, relation, SR_ALGORITHM_NAME, report->model_name, err) &&
           sr_put_text(parent, relation, SR_ALGORITHM_VERSION, report->model_version, err) &&
           sr_put_text(parent, relation, SR_ALGORITHM_PARAMETERS, parameters, err);
}

/* ---- one finding ------------------------------------------------------------------------------------- */

/* The diameter is the one whose error is measured (docs/EVALUATION.md), or the reader's; axes and volume are those of
 * the mask, where something was segmented. */
static bool put_sizes(struct shim_dataset *group, const struct finding *finding, struct err *err) {
    const struct sr_number sizes[] = {{SR_DIAMETER, SR_UNIT_MM, 1, finding->diameter_mm},
                                      {SR_LONG_AXIS, SR_UNIT_MM, 1, finding->long_axis_mm},
                                      {SR_SHORT_AXIS, SR_UNIT_MM, 1, finding->short_axis_mm},
                                      {SR_VOLUME, SR_UNIT_MM3, 1, finding->volume_mm3}};
    for (size_t index = 0; index < sizeof sizes / sizeof *sizes; index++)
        if (sizes[index].value > 0 && !sr_put_number(group, &sizes[index], NULL, err))
            return false;
    return true;
}

/* The probability of being a nodule, not of cancer (111047 would say that), with its interval and its causes. */
static bool put_certainty(struct shim_dataset *group, const struct dicom_report *report, const struct finding *finding,
                          struct err *err) {
    const struct sr_number numbers[] = {
        {SR_CERTAINTY, SR_UNIT_PERCENT, 1, 100 * finding->probability},
        {SR_CERTAINTY_LOW, SR_UNIT_PERCENT, 1, 100 * finding->probability_low},
        {SR_CERTAINTY_HIGH, SR_UNIT_PERCENT, 1, 100 * finding->probability_high},
        {SR_ENTROPY, SR_UNIT_ONE, 4, finding->entropy_nats},
        {SR_MUTUAL_INFORMATION, SR_UNIT_ONE, 4, finding->mutual_information_nats},
    };
    for (size_t index = 0; index < sizeof numbers / sizeof *numbers; index++) {
        struct shim_dataset *item = NULL;
        if (!sr_put_number(group, &numbers[index], &item, err) ||
            (index == 0 && !put_algorithm(item, SR_HAS_CONCEPT_MOD, report, err)))
            return false;
    }
    return true;
}

static bool put_judgement(struct shim_dataset *group, const struct dicom_report *report,
                          const struct dicom_report_finding *finding, struct err *err) {
    const struct code *texture = sr_texture_code(finding->finding->texture);
    bool is_signed =
        report->verifier_name != NULL; /* only a signed report has verdicts, and then every finding has one */
    const struct code *verdict = is_signed ? sr_verdict_code(finding->verdict) : NULL;
    bool review = finding->finding->review && !is_signed;
    bool rule = review && report->review_rule[0];
    return (!texture || sr_put_code(group, SR_CONTAINS, SR_COMPOSITION, texture, err)) &&
           (!review || sr_put_code(group, SR_CONTAINS, SR_TRIAGE, &sr_codes[SR_TRIAGE_REVIEW], err)) &&
           (!rule || sr_put_text(group, SR_CONTAINS, SR_TRIAGE_RULE, report->review_rule, err)) &&
           (!verdict || sr_put_code(group, SR_CONTAINS, SR_VERDICT, verdict, err));
}

/* segment 0: none; the place is then a sphere of the finding's diameter. */
static bool put_place(struct shim_dataset *group, const struct dicom_report *report, const struct finding *finding,
                      const char *seg_instance_uid, uint16_t segment, struct err *err) {
    char frame_of_reference[DICOM_UID_SIZE];
    const struct code *site = sr_lobe_code(finding->lobe);
    if (!object_frame_of_reference(report->series, frame_of_reference, err))
        return false;
    struct sr_sphere sphere = {frame_of_reference, finding->center_lps_mm, finding->diameter_mm};
    return (segment ? sr_put_segment(group, seg_instance_uid, segment, err) : sr_put_sphere(group, &sphere, err)) &&
           sr_put_uid(group, SR_CONTAINS, SR_SOURCE_SERIES, report->series->series_uid, err) &&
           (!site || sr_put_code(group, SR_HAS_CONCEPT_MOD, SR_FINDING_SITE, site, err));
}

static bool put_group(struct shim_dataset *measurements, const struct dicom_report *report,
                      const struct dicom_report_finding *finding, const char *seg_instance_uid, uint16_t segment,
                      struct err *err) {
    struct shim_dataset *group = NULL;
    char identifier[64];
    sr_tracking_identifier(finding, identifier);
    bool by_algorithm = finding->verdict != DICOM_VERDICT_ADDED;
    return sr_put_container(measurements, SR_MEASUREMENT_GROUP, &group, err) &&
           sr_put_text(group, SR_HAS_OBS_CONTEXT, SR_TRACKING_IDENTIFIER, identifier, err) &&
           sr_put_uid(group, SR_HAS_OBS_CONTEXT, SR_TRACKING_UID, finding->tracking_uid, err) &&
           sr_put_code(group, SR_CONTAINS, SR_FINDING, &sr_codes[SR_PULMONARY_NODULE], err) &&
           put_place(group, report, finding->finding, seg_instance_uid, segment, err) &&
           put_sizes(group, finding->finding, err) &&
           (!by_algorithm || put_certainty(group, report, finding->finding, err)) &&
           put_judgement(group, report, finding, err);
}

bool sr_put_measurements(struct shim_dataset *root, const struct dicom_report *report, const char *seg_instance_uid,
                         struct err *err) {
    struct shim_dataset *measurements = NULL;
    uint16_t segments = 0;
    if (!report->finding_count)
        return true;
    if (!sr_put_container(root, SR_IMAGING_MEASUREMENTS, &measurements, err))
        return false;
    for (size_t index = 0; index < report->finding_count; index++) {
        const struct dicom_report_finding *finding = &report->findings[index];
        uint16_t segment = finding->mask && seg_instance_uid ? ++segments : 0;
        if (!put_group(measurements, report, finding, seg_instance_uid, segment, err))
            return err_within(err, "finding %u", finding->finding->id);
    }
    return true;
}

/* ---- the study --------------------------------------------------------------------------------------- */

static const struct code *status_of(const struct dicom_report *report) {
    if (report->failure)
        return &sr_codes[SR_STATUS_FAILED];
    if (report->refusals && report->refusals->count)
        return sr_refusal_code(report->refusals->items[0].code);
    return &sr_codes[report->finding_count ? SR_STATUS_NODULES : SR_STATUS_NO_NODULES];
}

static bool put_reasons(struct shim_dataset *container, const struct dicom_report *report, struct err *err) {
    if (report->failure)
        return sr_put_text(container, SR_CONTAINS, SR_REASON, report->failure, err);
    for (size_t index = 0; report->refusals && index < report->refusals->count; index++) {
        const struct refusal *refusal = &report->refusals->items[index];
        char text[256];
        snprintf(text, sizeof text, "%s: %s", refusal_name(refusal->code), refusal->text);
        if (!sr_put_text(container, SR_CONTAINS, SR_REASON, text, err))
            return false;
    }
    return true;
}

bool sr_put_evaluations(struct shim_dataset *root, const struct dicom_report *report, struct err *err) {
    struct shim_dataset *container = NULL;
    return sr_put_container(root, SR_QUALITATIVE_EVALUATIONS, &container, err) &&
           sr_put_code(container, SR_CONTAINS, SR_STATUS, status_of(report), err) &&
           put_reasons(container, report, err) && put_algorithm(container, SR_CONTAINS, report, err) &&
           sr_put_text(container, SR_CONTAINS, SR_NOTICE, PULMO_NOT_FOR_DIAGNOSIS, err);
}
