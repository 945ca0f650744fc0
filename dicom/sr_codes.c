#include "dicom/sr_codes.h"

#include <stdio.h>

const struct code sr_codes[SR_CODE_COUNT] = {
    [SR_IMAGING_MEASUREMENT_REPORT] = {"126000", "DCM", "Imaging Measurement Report"},
    [SR_LANGUAGE] = {"121049", "DCM", "Language of Content Item and Descendants"},
    [SR_ENGLISH] = {"en", "RFC5646", "English"},
    [SR_OBSERVER_TYPE] = {"121005", "DCM", "Observer Type"},
    [SR_DEVICE] = {"121007", "DCM", "Device"},
    [SR_DEVICE_UID] = {"121012", "DCM", "Device Observer UID"},
    [SR_DEVICE_NAME] = {"121013", "DCM", "Device Observer Name"},
    [SR_PROCEDURE_REPORTED] = {"121058", "DCM", "Procedure reported"},
    [SR_CT] = {"25045-6", "LN", "CT unspecified body region"},
    [SR_IMAGE_LIBRARY] = {"111028", "DCM", "Image Library"},
    [SR_IMAGE_LIBRARY_GROUP] = {"126200", "DCM", "Image Library Group"},
    [SR_IMAGING_MEASUREMENTS] = {"126010", "DCM", "Imaging Measurements"},
    [SR_QUALITATIVE_EVALUATIONS] = {"C0034375", "UMLS", "Qualitative Evaluations"},
    [SR_MEASUREMENT_GROUP] = {"125007", "DCM", "Measurement Group"},
    [SR_TRACKING_IDENTIFIER] = {"112039", "DCM", "Tracking Identifier"},
    [SR_TRACKING_UID] = {"112040", "DCM", "Tracking Unique Identifier"},
    [SR_FINDING] = {"121071", "DCM", "Finding"},
    [SR_PULMONARY_NODULE] = {"786838002", "SCT", "Pulmonary nodule"},
    [SR_REFERENCED_SEGMENT] = {"121191", "DCM", "Referenced Segment"},
    [SR_VOLUME_SURFACE] = {"121231", "DCM", "Volume Surface"},
    [SR_SOURCE_SERIES] = {"121232", "DCM", "Source series for segmentation"},
    [SR_FINDING_SITE] = {"363698007", "SCT", "Finding Site"},
    [SR_DIAMETER] = {"81827009", "SCT", "Diameter"}, /* CID 7470 */
    [SR_LONG_AXIS] = {"103339001", "SCT", "Long axis"},
    [SR_SHORT_AXIS] = {"103340004", "SCT", "Short axis"},
    [SR_VOLUME] = {"118565006", "SCT", "Volume"},
    [SR_CERTAINTY] = {"111012", "DCM", "Certainty of Finding"},
    [SR_CERTAINTY_LOW] = {"PULMO003", "99PULMO", "Certainty of Finding, 5th percentile"},
    [SR_CERTAINTY_HIGH] = {"PULMO004", "99PULMO", "Certainty of Finding, 95th percentile"},
    [SR_ENTROPY] = {"PULMO001", "99PULMO", "Predictive entropy in nats"},
    [SR_MUTUAL_INFORMATION] = {"PULMO002", "99PULMO", "Mutual information in nats"},
    [SR_COMPOSITION] = {"PULMO010", "99PULMO", "Nodule composition"},
    [SR_VERDICT] = {"PULMO011", "99PULMO", "Reader's verdict"},
    [SR_VERDICT_ACCEPTED] = {"PULMO012", "99PULMO", "Accepted by the reader"},
    [SR_VERDICT_REJECTED] = {"PULMO013", "99PULMO", "Rejected by the reader: not a nodule"},
    [SR_VERDICT_ADDED] = {"PULMO014", "99PULMO", "Added by the reader: missed by the algorithm"},
    [SR_VERDICT_NONE] = {"PULMO017", "99PULMO", "Not judged by the reader"},
    [SR_TRIAGE] = {"PULMO015", "99PULMO", "Triage"},
    [SR_TRIAGE_REVIEW] = {"PULMO016", "99PULMO", "Uncertain: review with care"},
    [SR_TRIAGE_RULE] = {"PULMO018", "99PULMO", "What triage is worth"},
    [SR_ALGORITHM_NAME] = {"111001", "DCM", "Algorithm Name"},
    [SR_ALGORITHM_VERSION] = {"111003", "DCM", "Algorithm Version"},
    [SR_ALGORITHM_PARAMETERS] = {"111002", "DCM", "Algorithm Parameters"},
    [SR_STATUS] = {"PULMO020", "99PULMO", "Analysis status"},
    [SR_STATUS_NODULES] = {"PULMO023", "99PULMO", "Analysed: nodules reported"},
    [SR_STATUS_NO_NODULES] = {"PULMO024", "99PULMO", "Analysed: no nodule reported"},
    [SR_STATUS_FAILED] = {"PULMO025", "99PULMO", "Failed: not analysed"},
    [SR_REASON] = {"PULMO022", "99PULMO", "Reason"},
    [SR_NOTICE] = {"PULMO026", "99PULMO", "Notice"},
    [SR_UNIT_MM] = {"mm", "UCUM", "mm"},
    [SR_UNIT_MM3] = {"mm3", "UCUM", "cubic millimeter"},
    [SR_UNIT_PERCENT] = {"%", "UCUM", "Percent"},
    [SR_UNIT_ONE] = {"1", "UCUM", "no units"},
};

const struct code *sr_texture_code(enum texture texture) {
    static const struct code codes[] = {
        [TEXTURE_SOLID] = {"RID5741", "RADLEX", "solid"},
        [TEXTURE_PART_SOLID] = {"RID46011", "RADLEX", "partially solid"},
        [TEXTURE_GROUND_GLASS] = {"RID46016", "RADLEX", "non-solid"},
    };
    return texture > TEXTURE_UNKNOWN && texture <= TEXTURE_GROUND_GLASS ? &codes[texture] : NULL;
}

const struct code *sr_lobe_code(enum lobe lobe) {
    static const struct code codes[] = {
        [LOBE_RUL] = {"42400003", "SCT", "Structure of upper lobe of right lung"},
        [LOBE_RML] = {"72481006", "SCT", "Structure of middle lobe of right lung"},
        [LOBE_RLL] = {"266005", "SCT", "Structure of lower lobe of right lung"},
        [LOBE_LUL] = {"44714003", "SCT", "Structure of upper lobe of left lung"},
        [LOBE_LLL] = {"41224006", "SCT", "Structure of lower lobe of left lung"},
    };
    return lobe > LOBE_UNKNOWN && lobe <= LOBE_LLL ? &codes[lobe] : NULL;
}

const struct code *sr_refusal_code(enum refusal_code refusal) {
    static const struct code codes[REFUSAL_CODE_COUNT] = {
        [REFUSAL_NOT_CT] = {"PULMO030", "99PULMO", "Refused: not a CT"},
        [REFUSAL_LOCALIZER] = {"PULMO031", "99PULMO", "Refused: localizer"},
        [REFUSAL_NOT_AXIAL] = {"PULMO032", "99PULMO", "Refused: not axial"},
        [REFUSAL_MIXED_GEOMETRY] = {"PULMO033", "99PULMO", "Refused: mixed geometry"},
        [REFUSAL_MISSING_SLICES] = {"PULMO034", "99PULMO", "Refused: missing slices"},
        [REFUSAL_DUPLICATE_POSITIONS] = {"PULMO035", "99PULMO", "Refused: duplicate positions"},
        [REFUSAL_TOO_THICK] = {"PULMO036", "99PULMO", "Refused: slices too thick"},
        [REFUSAL_TOO_FEW_SLICES] = {"PULMO037", "99PULMO", "Refused: too few slices"},
        [REFUSAL_NOT_A_CHEST] = {"PULMO021", "99PULMO", "Refused: not a chest"},
        [REFUSAL_LUNGS_CUT] = {"PULMO038", "99PULMO", "Refused: lungs not completely in view"},
        [REFUSAL_OUT_OF_DISTRIBUTION] = {"PULMO039", "99PULMO", "Refused: unlike what the model was made for"},
        [REFUSAL_UNREADABLE] = {"PULMO040", "99PULMO", "Refused: unreadable"},
    };
    return refusal < REFUSAL_CODE_COUNT ? &codes[refusal] : &codes[REFUSAL_UNREADABLE];
}

const struct code *sr_verdict_code(enum dicom_verdict verdict) {
    switch (verdict) {
    case DICOM_VERDICT_ACCEPTED: return &sr_codes[SR_VERDICT_ACCEPTED];
    case DICOM_VERDICT_REJECTED: return &sr_codes[SR_VERDICT_REJECTED];
    case DICOM_VERDICT_ADDED: return &sr_codes[SR_VERDICT_ADDED];
    case DICOM_VERDICT_NONE: break;
    }
    return &sr_codes[SR_VERDICT_NONE];
}

void sr_tracking_identifier(const struct dicom_report_finding *finding, char out[64]) {
    const char *verdict = finding->verdict == DICOM_VERDICT_REJECTED ? ", rejected by the reader"
                          : finding->verdict == DICOM_VERDICT_ADDED  ? ", added by the reader"
                                                                     : "";
    snprintf(out, 64, "nodule %u%s", finding->finding->id, verdict);
}
