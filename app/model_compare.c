/* Two models on the same studies: the results of the one in use beside what the shadow said of the same images. */
#include "app/command.h"
#include "app/finding_json.h"
#include "app/model_report.h"
#include "app/processes.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Two findings are one when their centres are no further apart than this, or than half the larger one's diameter:
 * inside of it, as LUNA16 counts a hit. */
#define SAME_MM 5.0

static void cjson_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

/* ---- matching ---------------------------------------------------------------------------------------- */

static double apart_mm(const struct finding *a, const struct finding *b) {
    double sum = 0;
    for (int axis = 0; axis < 3; axis++)
        sum += pow(a->center_lps_mm[axis] - b->center_lps_mm[axis], 2);
    return sqrt(sum);
}

static bool is_same(const struct finding *a, const struct finding *b) {
    return apart_mm(a, b) <= fmax(SAME_MM, fmax(a->diameter_mm, b->diameter_mm) / 2);
}

/* Marks the nearest pairs first: partner[n] = 1 + index in `other`, 0 = none. reported: how many of the two have to be.
 */
static void match(const struct findings *one, const struct findings *other, int reported, size_t *partner,
                  size_t *back) {
    for (bool found = true; found;) {
        size_t best_one = 0, best_other = 0;
        double least = INFINITY;
        found = false;
        for (size_t a = 0; a < one->count; a++)
            for (size_t b = 0; b < other->count; b++) {
                const struct finding *left = &one->items[a], *right = &other->items[b];
                if (partner[a] || back[b] || left->reported + right->reported < reported || !is_same(left, right) ||
                    apart_mm(left, right) >= least)
                    continue;
                least = apart_mm(left, right);
                best_one = a;
                best_other = b;
                found = true;
            }
        if (found) {
            partner[best_one] = best_other + 1;
            back[best_other] = best_one + 1;
        }
    }
}

/* ---- one study --------------------------------------------------------------------------------------- */

struct side {
    struct findings findings;
    size_t *partner; /* among the other side's */
};
struct comparison {
    struct store_result result;
    struct store_shadow shadow;
    struct side in_use, other;
    struct store_verdict *verdicts; /* of the reader, on the result */
    size_t verdict_count;
    size_t both, only_in_use, only_shadow;
    double difference_sum; /* of probabilities, over both */
};

static void comparison_free(struct comparison *comparison) {
    findings_free(&comparison->in_use.findings);
    findings_free(&comparison->other.findings);
    free(comparison->in_use.partner);
    free(comparison->other.partner);
    free(comparison->verdicts);
}

static bool side_read(const struct bytes *document, struct side *out, struct err *err) {
    struct analysis_run ignored;
    if (!finding_json_read(document, &out->findings, &ignored, err))
        return false;
    out->partner = pulmo_alloc(out->findings.count + 1, sizeof *out->partner, err);
    return out->partner != NULL;
}

static void count(struct comparison *comparison) {
    for (size_t index = 0; index < comparison->in_use.findings.count; index++) {
        const struct finding *finding = &comparison->in_use.findings.items[index];
        size_t partner = comparison->in_use.partner[index];
        if (!finding->reported)
            continue;
        bool both = partner && comparison->other.findings.items[partner - 1].reported;
        comparison->both += both;
        comparison->only_in_use += !both;
        if (both)
            comparison->difference_sum +=
                fabs(finding->probability - comparison->other.findings.items[partner - 1].probability);
    }
    for (size_t index = 0; index < comparison->other.findings.count; index++) {
        size_t partner = comparison->other.partner[index];
        if (comparison->other.findings.items[index].reported &&
            !(partner && comparison->in_use.findings.items[partner - 1].reported))
            comparison->only_shadow++;
    }
}

static bool compare(struct store *store, const struct store_shadow *shadow, struct comparison *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes mine = {0};
    PULMO_SCOPED(bytes_free) struct bytes its = {0};
    char media_type[64];
    out->shadow = *shadow;
    if (!store_result_get(store, shadow->result_id, &out->result, err) ||
        !store_artifact_read(store, shadow->result_id, "analysis.json", &mine, media_type, err) ||
        !store_shadow_document(store, shadow->id, &its, err) || !side_read(&mine, &out->in_use, err) ||
        !side_read(&its, &out->other, err) ||
        !store_verdict_list(store, shadow->result_id, &out->verdicts, &out->verdict_count, err))
        return err_within(err, "shadow of result %lld", (long long)shadow->result_id);
    /* what both report first, so that a candidate below one's operating point takes no partner from it */
    match(&out->in_use.findings, &out->other.findings, 2, out->in_use.partner, out->other.partner);
    match(&out->in_use.findings, &out->other.findings, 1, out->in_use.partner, out->other.partner);
    count(out);
    return true;
}

static const char *verdict_on(const struct comparison *comparison, const struct finding *finding) {
    for (size_t index = 0; index < comparison->verdict_count; index++)
        if (comparison->verdicts[index].finding_id == finding->id &&
            strcmp(comparison->verdicts[index].verdict, "none") != 0)
            return comparison->verdicts[index].verdict;
    return NULL;
}

static const char *status_name(enum store_status status) {
    static const char *const names[] = {"", "analysed", "refused", "failed"};
    return names[status];
}

/* ---- text -------------------------------------------------------------------------------------------- */

static void print_finding(const struct comparison *comparison, bool in_use, size_t index) {
    const struct side *side = in_use ? &comparison->in_use : &comparison->other;
    const struct side *against = in_use ? &comparison->other : &comparison->in_use;
    const struct finding *finding = &side->findings.items[index];
    const struct finding *partner = side->partner[index] ? &against->findings.items[side->partner[index] - 1] : NULL;
    bool both = partner && partner->reported;
    const char *verdict = in_use ? verdict_on(comparison, finding) : NULL;
    if (!finding->reported || (both && !in_use))
        return;
    printf("  %-11s %8.1f %8.1f %8.1f mm  %5.1f mm  ",
           both     ? "both"
           : in_use ? "only in use"
                    : "only shadow",
           finding->center_lps_mm[0], finding->center_lps_mm[1], finding->center_lps_mm[2], finding->diameter_mm);
    if (both)
        printf("%.3f in use, %.3f shadow, %.1f mm apart", finding->probability, partner->probability,
               apart_mm(finding, partner));
    else if (partner)
        printf("%.3f; to the other a candidate of %.3f, not reported", finding->probability, partner->probability);
    else
        printf("%.3f; to the other no candidate", finding->probability);
    printf("%s%s\n", verdict ? "; the reader: " : "", verdict ? verdict : "");
}

static void print_study(const struct comparison *comparison) {
    printf("study %s, result %lld: %s in use, %s by the shadow; %zu in both, %zu only in use, %zu only shadow\n",
           comparison->result.study_uid, (long long)comparison->result.id, status_name(comparison->result.status),
           status_name(comparison->shadow.status), comparison->both, comparison->only_in_use, comparison->only_shadow);
    if (*comparison->shadow.reason)
        printf("  shadow: %s\n", comparison->shadow.reason);
    for (size_t index = 0; index < comparison->in_use.findings.count; index++)
        print_finding(comparison, true, index);
    for (size_t index = 0; index < comparison->other.findings.count; index++)
        print_finding(comparison, false, index);
}

/* ---- JSON -------------------------------------------------------------------------------------------- */

static void add_finding(cJSON *object, const char *name, const struct finding *finding) {
    cJSON *item = cJSON_AddObjectToObject(object, name);
    cJSON_AddNumberToObject(item, "id", finding->id);
    cJSON_AddItemToObject(item, "center_lps_mm", cJSON_CreateDoubleArray(finding->center_lps_mm, 3));
    cJSON_AddNumberToObject(item, "diameter_mm", finding->diameter_mm);
    cJSON_AddNumberToObject(item, "probability", finding->probability);
    cJSON_AddNumberToObject(item, "probability_low", finding->probability_low);
    cJSON_AddNumberToObject(item, "probability_high", finding->probability_high);
    cJSON_AddBoolToObject(item, "reported", finding->reported);
    cJSON_AddBoolToObject(item, "review", finding->review);
}

/* A row for each finding that one of the two reports; the other's candidate is in it where there is one. */
static cJSON *findings_json(const struct comparison *comparison) {
    const struct findings *mine = &comparison->in_use.findings, *its = &comparison->other.findings;
    cJSON *list = cJSON_CreateArray();
    for (size_t index = 0; index < mine->count; index++) {
        size_t partner = comparison->in_use.partner[index];
        const char *verdict = verdict_on(comparison, &mine->items[index]);
        if (!mine->items[index].reported && !(partner && its->items[partner - 1].reported))
            continue;
        cJSON *row = cJSON_CreateObject();
        cJSON_AddItemToArray(list, row);
        add_finding(row, "in_use", &mine->items[index]);
        if (partner) {
            add_finding(row, "shadow", &its->items[partner - 1]);
            cJSON_AddNumberToObject(row, "apart_mm", apart_mm(&mine->items[index], &its->items[partner - 1]));
        }
        if (verdict)
            cJSON_AddStringToObject(row, "verdict", verdict);
    }
    for (size_t index = 0; index < its->count; index++)
        if (its->items[index].reported && !comparison->other.partner[index]) {
            cJSON *row = cJSON_CreateObject();
            cJSON_AddItemToArray(list, row);
            add_finding(row, "shadow", &its->items[index]);
        }
    return list;
}

static cJSON *study_json(const struct comparison *comparison) {
    cJSON *study = cJSON_CreateObject();
    cJSON_AddStringToObject(study, "study_uid", comparison->result.study_uid);
    cJSON_AddNumberToObject(study, "result", (double)comparison->result.id);
    cJSON_AddStringToObject(study, "model_sha256", comparison->result.model_sha256);
    cJSON_AddStringToObject(study, "status", status_name(comparison->result.status));
    cJSON_AddStringToObject(study, "shadow_status", status_name(comparison->shadow.status));
    cJSON_AddStringToObject(study, "shadow_reason", comparison->shadow.reason);
    cJSON_AddNumberToObject(study, "both", (double)comparison->both);
    cJSON_AddNumberToObject(study, "only_in_use", (double)comparison->only_in_use);
    cJSON_AddNumberToObject(study, "only_shadow", (double)comparison->only_shadow);
    cJSON_AddItemToObject(study, "findings", findings_json(comparison));
    return study;
}

/* ---- all of them ------------------------------------------------------------------------------------- */

struct totals {
    size_t studies, other_status, both, only_in_use, only_shadow;
    double difference_sum;
};

static void totals_add(struct totals *totals, const struct comparison *comparison) {
    totals->studies++;
    totals->other_status += comparison->result.status != comparison->shadow.status;
    totals->both += comparison->both;
    totals->only_in_use += comparison->only_in_use;
    totals->only_shadow += comparison->only_shadow;
    totals->difference_sum += comparison->difference_sum;
}

static void print_totals(const struct totals *totals, const struct store_model *shadow) {
    size_t all = totals->both + totals->only_in_use + totals->only_shadow;
    printf("%zu studies seen by %s %s, sha256 %.16s, too; %zu of them with another status\n", totals->studies,
           shadow->name, shadow->version, shadow->sha256, totals->other_status);
    printf("%zu findings: %zu in both, %zu only in use, %zu only shadow", all, totals->both, totals->only_in_use,
           totals->only_shadow);
    if (totals->both)
        printf("; probabilities of those in both differ by %.3f on average",
               totals->difference_sum / (double)totals->both);
    printf("\n");
}

static void add_totals(cJSON *document, const struct totals *totals) {
    cJSON *object = cJSON_AddObjectToObject(document, "totals");
    cJSON_AddNumberToObject(object, "studies", (double)totals->studies);
    cJSON_AddNumberToObject(object, "other_status", (double)totals->other_status);
    cJSON_AddNumberToObject(object, "both", (double)totals->both);
    cJSON_AddNumberToObject(object, "only_in_use", (double)totals->only_in_use);
    cJSON_AddNumberToObject(object, "only_shadow", (double)totals->only_shadow);
    if (totals->both)
        cJSON_AddNumberToObject(object, "mean_difference", totals->difference_sum / (double)totals->both);
}

/* studies: where the document goes; NULL = lines. */
static bool visit_all(struct store *store, const char *sha256, cJSON *studies, struct totals *totals, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct store_shadow *shadows = NULL;
    size_t shadow_count = 0;
    if (!store_shadow_list(store, sha256, &shadows, &shadow_count, err))
        return false;
    for (size_t index = 0; index < shadow_count; index++) {
        PULMO_SCOPED(comparison_free) struct comparison comparison = {0};
        if (!compare(store, &shadows[index], &comparison, err))
            return false;
        totals_add(totals, &comparison);
        if (studies)
            cJSON_AddItemToArray(studies, study_json(&comparison));
        else
            print_study(&comparison);
    }
    return true;
}

/* The one that is named, or the present shadow. */
static bool find_shadow(struct store *store, const char *digest, struct store_model *out, struct err *err) {
    char sha256[65];
    if (digest)
        return store_model_find(store, digest, out, err);
    if (!store_model_shadowing(store, sha256, err))
        return false;
    if (!*sha256)
        return err_set(err, ERR_NOT_FOUND, "no model is a shadow now: name one that was (pulmo model list)");
    return store_model_find(store, sha256, out, err);
}

int model_compare(const struct config *config, const struct model_request *request, const char *digest) {
    struct err err = {0};
    struct store_model shadow;
    struct totals totals = {0};
    PULMO_SCOPED(cjson_free_at) cJSON *document = request->json ? cJSON_CreateObject() : NULL;
    cJSON *studies = document ? cJSON_CreateArray() : NULL;
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(config, &err);
    if (document)
        cJSON_AddItemToObject(document, "studies", studies);
    if (!store || !find_shadow(store, digest, &shadow, &err) ||
        !visit_all(store, shadow.sha256, studies, &totals, &err))
        return command_fail(&command_model, &err);
    if (!document) {
        print_totals(&totals, &shadow);
        return EXIT_DONE;
    }
    cJSON_AddStringToObject(document, "shadow_sha256", shadow.sha256);
    add_totals(document, &totals);
    PULMO_SCOPED(pulmo_free_at) char *text = cJSON_Print(document);
    printf("%s\n", text ? text : "");
    return text ? EXIT_DONE : EXIT_FAILED;
}
