#include "app/replay.h"

#include "explain/explain.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define SAME_PLACE_MM 0.5

/* ---- conditions -------------------------------------------------------------------------------------- */

static size_t condition(const char *what, const char *recorded, const char *here) {
    if (strcmp(recorded, here) == 0)
        return 0;
    printf("differs: %s: the result has %s, this machine %s\n", what, *recorded ? recorded : "none recorded", here);
    return 1;
}

size_t replay_print_conditions(const struct finding_origin *origin, const struct engine *engine) {
    return condition("pulmo version", origin->pulmo, PULMO_VERSION) +
           condition("back-end", origin->backend, infer_backend_name(engine->session)) +
           condition("library", origin->library, infer_session_library(engine->session)) +
           condition("instruction set", origin->instruction_set, infer_session_instruction_set(engine->session)) +
           condition("precision", origin->precision, engine_precision(engine));
}

void replay_print_configuration(const struct analysis_run *recorded, const struct analysis_run *configured) {
    const struct {
        const char *name;
        double recorded, configured;
    } rows[] = {{"seed", (double)recorded->configured_seed, (double)configured->configured_seed},
                {"passes", recorded->passes, configured->passes},
                {"dropout", recorded->dropout, configured->dropout},
                {"operating_point", recorded->operating_point, configured->operating_point}};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++)
        if (rows[index].recorded != rows[index].configured)
            printf("configuration: %s is %.9g now; the replay takes the recorded %.9g\n", rows[index].name,
                   rows[index].configured, rows[index].recorded);
}

/* ---- files ------------------------------------------------------------------------------------------- */

/* A picture is what it shows: how it is packed may differ between versions. */
static bool same_content(const struct store_artifact *made, const struct bytes *stored, bool *same, struct err *err) {
    struct bytes whole = {.size = made->size};
    memcpy(&whole.data, &made->data, sizeof whole.data); /* only read */
    if (strcmp(made->media_type, "image/png") == 0)
        return explain_png_same(&whole, stored, same, err);
    if (strcmp(made->name, "analysis.json") != 0) {
        *same = made->size == stored->size && memcmp(made->data, stored->data, made->size) == 0;
        return true;
    }
    PULMO_SCOPED(bytes_free) struct bytes left = {0}, right = {0};
    if (!analysis_json_comparable(&whole, &left, err) || !analysis_json_comparable(stored, &right, err))
        return false;
    *same = left.size == right.size && memcmp(left.data, right.data, left.size) == 0;
    return true;
}

bool replay_compare_files(struct store *store, int64_t result_id, const struct artifacts *made,
                          struct replay_files *out, struct err *err) {
    struct replay_files files = {.made = made->count};
    for (size_t index = 0; index < made->count; index++) {
        const struct store_artifact *item = &made->items[index];
        PULMO_SCOPED(bytes_free) struct bytes stored = {0};
        char media_type[64];
        struct err why = {0};
        bool same = false;
        bool read = store_artifact_read(store, result_id, item->name, &stored, media_type, &why);
        if (!read && why.kind != ERR_NOT_FOUND)
            return err_set(err, why.kind, "%s", why.text);
        if (read && !same_content(item, &stored, &same, err))
            return false;
        files.identical += same;
        if (!same)
            printf("different: %s%s\n", item->name, read ? "" : " is not in the result");
    }
    *out = files;
    return true;
}

/* ---- findings ---------------------------------------------------------------------------------------- */

static const struct finding *find_near(const struct findings *findings, const double center_lps_mm[3]) {
    const struct finding *nearest = NULL;
    double least_mm = SAME_PLACE_MM;
    for (size_t index = 0; index < findings->count; index++) {
        const double *other = findings->items[index].center_lps_mm;
        double apart_mm = sqrt(pow(other[0] - center_lps_mm[0], 2) + pow(other[1] - center_lps_mm[1], 2) +
                               pow(other[2] - center_lps_mm[2], 2));
        if (apart_mm <= least_mm) {
            least_mm = apart_mm;
            nearest = &findings->items[index];
        }
    }
    return nearest;
}

static double greatest(double left, double right) {
    return left > right ? left : right;
}

/* Of mean, interval and every pass. */
static double apart(const struct finding *left, const struct finding *right) {
    double worst = greatest(fabs(left->probability - right->probability),
                            greatest(fabs(left->probability_low - right->probability_low),
                                     fabs(left->probability_high - right->probability_high)));
    for (uint32_t pass = 0; pass < left->pass_count && pass < right->pass_count; pass++)
        worst = greatest(worst, fabs((double)left->pass_probabilities[pass] - (double)right->pass_probabilities[pass]));
    return left->pass_count == right->pass_count ? worst : 1;
}

bool replay_compare_findings(const struct findings *stored, const struct findings *made) {
    double worst = 0;
    size_t lost = 0;
    for (size_t index = 0; index < stored->count; index++) {
        const struct finding *finding = &stored->items[index], *again = find_near(made, finding->center_lps_mm);
        if (again)
            worst = greatest(worst, apart(finding, again));
        else
            lost++;
    }
    bool agrees = !lost && stored->count == made->count && worst <= REPLAY_TOLERANCE;
    printf(
        "findings: %zu stored, %zu computed, %zu not found again; greatest difference of a probability %.2g, %s %g\n",
        stored->count, made->count, lost, worst, agrees ? "within" : "NOT within", REPLAY_TOLERANCE);
    return agrees;
}
