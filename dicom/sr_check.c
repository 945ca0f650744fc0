#include "dicom/sr_check.h"

#include <stdio.h>
#include <string.h>

#define VALUE_SIZE 512

static const uint32_t tag_content = 0x0040A730;

/* What the conditions of the table ask, of the document and of the group that is looked at. */
struct circumstances {
    bool findings, without_result, is_signed;
    bool by_algorithm, segment;
};

/* ---- looking ----------------------------------------------------------------------------------------- */

static bool attribute_is(const struct shim_dataset *item, uint32_t tag, const char *wanted) {
    char value[VALUE_SIZE];
    return shim_get_string(item, tag, value, sizeof value) && strcmp(value, wanted) == 0;
}

static bool code_is(const struct shim_dataset *item, uint32_t sequence_tag, const struct code *wanted) {
    const struct shim_dataset *code = shim_item(item, sequence_tag, 0);
    return code && attribute_is(code, 0x00080100, wanted->value) && attribute_is(code, 0x00080102, wanted->scheme);
}

static bool concept_is(const struct shim_dataset *item, enum sr_code concept_code) {
    if (concept_code == SR_UNNAMED)
        return !shim_item_count(item, 0x0040A043);
    return code_is(item, 0x0040A043, &sr_codes[concept_code]);
}

/* The first item of a concept below a parent, or NULL. */
static const struct shim_dataset *content_find(const struct shim_dataset *parent, enum sr_code concept_code) {
    size_t count = shim_item_count(parent, tag_content);
    for (size_t index = 0; index < count; index++) {
        const struct shim_dataset *item = shim_item(parent, tag_content, index);
        if (concept_is(item, concept_code))
            return item;
    }
    return NULL;
}

static struct circumstances circumstances_of(const struct shim_dataset *root) {
    struct circumstances out = {.is_signed = attribute_is(root, 0x0040A493, "VERIFIED")};
    const struct shim_dataset *evaluations = content_find(root, SR_QUALITATIVE_EVALUATIONS);
    const struct shim_dataset *status = evaluations ? content_find(evaluations, SR_STATUS) : NULL;
    out.findings = status && code_is(status, 0x0040A168, &sr_codes[SR_STATUS_NODULES]);
    bool none = status && code_is(status, 0x0040A168, &sr_codes[SR_STATUS_NO_NODULES]);
    out.without_result = status && !out.findings && !none;
    return out;
}

static bool applies(enum sr_when when, const struct circumstances *now) {
    switch (when) {
    case SR_ALWAYS: return true;
    case SR_WITH_FINDINGS: return now->findings;
    case SR_WITHOUT_RESULT: return now->without_result;
    case SR_WHEN_SIGNED: return now->is_signed;
    case SR_WHEN_UNSIGNED: return !now->is_signed;
    case SR_BY_ALGORITHM: return now->by_algorithm;
    case SR_WITH_SEGMENT: return now->segment;
    case SR_WITHOUT_SEGMENT: return !now->segment;
    }
    return false;
}

static bool count_checked(const struct sr_row *row, size_t count, struct err *err) {
    if (count >= row->min && count <= row->max)
        return true;
    return err_set(err, ERR_INTERNAL, "report row \"%s\": found %zu, expected %u to %u", row->id, count, row->min,
                   row->max);
}

/* ---- attributes -------------------------------------------------------------------------------------- */

static bool attribute_checked(const struct shim_dataset *parent, uint32_t tag, const struct sr_row *row,
                              struct err *err) {
    char vr[3] = "";
    bool sequence = strcmp(row->type, "SQ") == 0, present = shim_vr(parent, tag, vr);
    size_t count = !present ? 0 : sequence ? shim_item_count(parent, tag) : shim_value_count(parent, tag);
    if (row->max == 0)
        return !present || count_checked(row, 1, err);
    if (!present)
        return err_set(err, ERR_INTERNAL, "report row \"%s\": (%04X,%04X) is missing", row->id, tag >> 16,
                       tag & 0xFFFF);
    if (strcmp(vr, row->type) != 0)
        return err_set(err, ERR_INTERNAL, "report row \"%s\": VR %s instead of %s", row->id, vr, row->type);
    if (row->value && !attribute_is(parent, tag, row->value))
        return err_set(err, ERR_INTERNAL, "report row \"%s\": the value is not \"%s\"", row->id, row->value);
    return (row->may_be_empty && count == 0) || count_checked(row, count, err);
}

/* Every item of every sequence on the way down to the attribute. */
static bool attributes_checked(const struct shim_dataset *parent, const struct sr_row *row, int depth,
                               struct err *err) {
    bool last = depth == 3 || !row->tags[depth + 1];
    if (last)
        return attribute_checked(parent, row->tags[depth], row, err);
    size_t count = shim_item_count(parent, row->tags[depth]);
    for (size_t index = 0; index < count; index++)
        if (!attributes_checked(shim_item(parent, row->tags[depth], index), row, depth + 1, err))
            return false;
    return true;
}

/* ---- content ----------------------------------------------------------------------------------------- */

static bool value_is(const struct shim_dataset *item, const struct sr_row *row) {
    if (!row->value)
        return true;
    const struct shim_dataset *code = shim_item(item, 0x0040A168, 0);
    return code ? attribute_is(code, 0x00080100, row->value) : attribute_is(item, 0x0040A160, row->value);
}

static bool item_fits(const struct shim_dataset *item, const struct sr_row *row) {
    return attribute_is(item, 0x0040A040, row->type) && attribute_is(item, 0x0040A010, row->relation) &&
           value_is(item, row);
}

static bool content_checked(const struct shim_dataset *parent, const struct sr_row *row, int depth,
                            struct circumstances now, struct err *err) {
    bool last = depth == 3 || !row->path[depth + 1];
    size_t fitting = 0, items = shim_item_count(parent, tag_content);
    if (depth > 0 && row->path[depth - 1] == SR_MEASUREMENT_GROUP) {
        const struct shim_dataset *verdict = content_find(parent, SR_VERDICT);
        now.by_algorithm = !verdict || !code_is(verdict, 0x0040A168, &sr_codes[SR_VERDICT_ADDED]);
        now.segment = content_find(parent, SR_REFERENCED_SEGMENT) != NULL;
    }
    if (last && !applies(row->when, &now))
        return true;
    for (size_t index = 0; index < items; index++) {
        const struct shim_dataset *item = shim_item(parent, tag_content, index);
        if (!concept_is(item, row->path[depth]))
            continue;
        if (last && !item_fits(item, row))
            return err_set(err, ERR_INTERNAL, "report row \"%s\": wrong type, relationship or value", row->id);
        if (!last && !content_checked(item, row, depth + 1, now, err))
            return false;
        fitting++;
    }
    return !last || count_checked(row, fitting, err);
}

/* ---- what no row can say ----------------------------------------------------------------------------- */

static bool evidence_has(const struct shim_dataset *root, const char *instance_uid) {
    const struct shim_dataset *study = shim_item(root, 0x0040A375, 0);
    size_t series_count = study ? shim_item_count(study, 0x00081115) : 0;
    for (size_t index = 0; index < series_count; index++) {
        const struct shim_dataset *series = shim_item(study, 0x00081115, index);
        size_t count = shim_item_count(series, 0x00081199);
        for (size_t instance = 0; instance < count; instance++)
            if (attribute_is(shim_item(series, 0x00081199, instance), 0x00081155, instance_uid))
                return true;
    }
    return false;
}

static bool scheme_known(const struct shim_dataset *code) {
    static const char *const known[] = {"DCM", "SCT", "UCUM", "LN", "UMLS", "RADLEX", "RFC5646", "99PULMO"};
    for (size_t index = 0; index < sizeof known / sizeof *known; index++)
        if (attribute_is(code, 0x00080102, known[index]))
            return true;
    return false;
}

/* Codes of a retired or unknown scheme, and segments that the evidence does not list. */
static bool item_checked(const struct shim_dataset *root, const struct shim_dataset *item, struct err *err) {
    static const uint32_t code_tags[] = {0x0040A043, 0x0040A168};
    char uid[DICOM_UID_SIZE];
    for (size_t index = 0; index < 2; index++) {
        const struct shim_dataset *code = shim_item(item, code_tags[index], 0);
        if (code && !scheme_known(code))
            return err_set(err, ERR_INTERNAL, "report row \"coding scheme\": a code of an unknown scheme");
    }
    const struct shim_dataset *reference =
        concept_is(item, SR_REFERENCED_SEGMENT) ? shim_item(item, 0x00081199, 0) : NULL;
    if (reference && shim_get_string(reference, 0x00081155, uid, sizeof uid) && !evidence_has(root, uid))
        return err_set(err, ERR_INTERNAL, "report row \"evidence\": a segment is not in the evidence");
    size_t count = shim_item_count(item, tag_content);
    for (size_t index = 0; index < count; index++)
        if (!item_checked(root, shim_item(item, tag_content, index), err))
            return false;
    return true;
}

static bool check(const struct shim_dataset *root, struct err *err) {
    struct circumstances now = circumstances_of(root);
    for (size_t index = 0; index < sr_row_count; index++) {
        const struct sr_row *row = &sr_rows[index];
        bool holds = row->tags[0] ? !applies(row->when, &now) || attributes_checked(root, row, 0, err)
                                  : content_checked(root, row, 0, now, err);
        if (!holds)
            return false;
    }
    return item_checked(root, root, err);
}

bool sr_check(const struct shim_dataset *root, struct err *err) {
    return shim_concluded(root, check(root, err), err);
}
