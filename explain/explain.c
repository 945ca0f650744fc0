#include "explain/explain.h"
#include "explain/heat.h"

#include <math.h>

#define TOKENS INFER_ATTENTION_SIDE
#define TOKEN_VOXELS 8
#define CROP_TOLERANCE 1e-6 /* voxels, as stage 2 cuts its crop */

bool explain_attention_grid(const struct grid *iso, const double center_lps_mm[3], struct grid *out, struct err *err) {
    double ijk[3], origin[3];
    if (!grid_to_ijk(iso, center_lps_mm, ijk) || !isfinite(ijk[0] + ijk[1] + ijk[2]))
        return err_set(err, ERR_INPUT, "a finding without a place in the volume");
    struct grid grid = {0};
    for (int axis = 0; axis < 3; axis++) {
        double middle = floor(ijk[axis] + CROP_TOLERANCE) + 0.5; /* between the crop's voxels 19 and 20 */
        ijk[axis] = middle - (TOKENS / 2) * TOKEN_VOXELS;
        grid.size_ijk[axis] = TOKENS;
        grid.spacing_mm[axis] = iso->spacing_mm[axis] * TOKEN_VOXELS;
    }
    grid_to_lps(iso, ijk, origin);
    for (int row = 0; row < 3; row++) {
        for (int column = 0; column < 3; column++)
            grid.ijk_to_lps_mm[row][column] = iso->ijk_to_lps_mm[row][column] * TOKEN_VOXELS;
        grid.ijk_to_lps_mm[row][3] = origin[row];
    }
    *out = grid;
    return true;
}

/* What a token receives above an equal share of the attention: with all shares equal the network looked at nothing
 * in particular, and the map says so by being empty. */
static bool add_attention(struct explain_map *map, const struct volume *iso, const struct finding *finding,
                          struct err *err) {
    float token[FINDING_ATTENTION], sum = 0;
    struct grid grid;
    if (!explain_attention_grid(&iso->grid, finding->center_lps_mm, &grid, err))
        return false;
    for (int n = 0; n < FINDING_ATTENTION; n++)
        sum += finding->attention[n];
    for (int n = 0; n < FINDING_ATTENTION; n++)
        token[n] = finding->attention[n] - sum / (float)FINDING_ATTENTION;
    return explain_map_add_cells(map, &grid, token, err);
}

static bool add_attentions(struct explain_map *map, const struct volume *iso, const struct findings *reported,
                           struct err *err) {
    for (size_t index = 0; index < reported->count; index++)
        if (!add_attention(map, iso, &reported->items[index], err))
            return err_within(err, "finding %u, attention map", reported->items[index].id);
    return true;
}

static bool add_cams(struct explain_map *map, struct infer_session *session, const struct volume *iso,
                     const struct findings *reported, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct infer_cam *cams = pulmo_alloc(reported->count, sizeof *cams, err);
    bool good = cams && infer_cams(session, iso, reported, cams, err);
    for (size_t index = 0; cams && index < reported->count; index++) {
        good = good && explain_map_add_cells(map, &cams[index].grid, cams[index].map, err);
        infer_cam_free(&cams[index]);
    }
    return good || err_within(err, "gradient map");
}

bool explain_map_add_reported(struct explain_map *map, struct infer_session *session, const struct volume *iso,
                              const struct findings *findings, enum explain_kind kind, struct err *err) {
    struct findings reported = {.items = pulmo_alloc(findings->count, sizeof *reported.items, err)};
    if (!reported.items)
        return false;
    for (size_t index = 0; index < findings->count; index++)
        if (findings->items[index].reported)
            reported.items[reported.count++] = findings->items[index];
    bool good = reported.count == 0 || (kind == EXPLAIN_ATTENTION ? add_attentions(map, iso, &reported, err)
                                                                  : add_cams(map, session, iso, &reported, err));
    findings_free(&reported);
    return good;
}
