#include "app/model_check.h"

#include "phantom/phantom.h"
#include "uncertainty/uncertainty.h"

#include <math.h>
#include <string.h>

#define PIECE_MM 96
#define SPACING_MM 1.0 /* models/README.md: the detector's frame */

/* The cube of PIECE_MM around a point, moved inside where it would stick out. */
static struct volume *piece_of(const struct volume *iso, const double center_lps_mm[3], struct err *err) {
    struct grid grid = iso->grid;
    double center[3], corner[3];
    int32_t from[3];
    if (!grid_to_ijk(&iso->grid, center_lps_mm, center)) {
        err_set(err, ERR_INTERNAL, "the phantom's geometry cannot be inverted");
        return NULL;
    }
    for (int axis = 0; axis < 3; axis++) {
        int32_t size = iso->grid.size_ijk[axis], room = size > PIECE_MM ? size - PIECE_MM : 0;
        int32_t wanted = (int32_t)lround(center[axis]) - PIECE_MM / 2;
        from[axis] = wanted < 0 ? 0 : wanted > room ? room : wanted;
        grid.size_ijk[axis] = size < PIECE_MM ? size : PIECE_MM;
    }
    grid_to_lps(&iso->grid, (const double[3]){from[0], from[1], from[2]}, corner);
    for (int axis = 0; axis < 3; axis++)
        grid.ijk_to_lps_mm[axis][3] = corner[axis];
    struct volume *piece = volume_new(&grid, err);
    size_t row = (size_t)grid.size_ijk[0], rows = (size_t)grid.size_ijk[1], slices = (size_t)grid.size_ijk[2];
    for (size_t k = 0; piece && k < slices; k++)
        for (size_t j = 0; j < rows; j++) {
            size_t at = ((k + (size_t)from[2]) * (size_t)iso->grid.size_ijk[1] + j + (size_t)from[1]) *
                            (size_t)iso->grid.size_ijk[0] +
                        (size_t)from[0];
            memcpy(piece->hu + (k * rows + j) * row, iso->hu + at, row * sizeof *piece->hu);
        }
    return piece;
}

/* Looked at as if it were lung throughout: no tile is left out. */
static bool detect(struct engine *engine, const struct volume *piece, const struct phantom_nodule *nodule,
                   struct model_check *out, struct err *err) {
    PULMO_SCOPED(findings_free) struct findings findings = {0};
    PULMO_SCOPED(mask_free_at) struct mask *lungs = mask_new(&piece->grid, err);
    if (!lungs)
        return false;
    memset(lungs->voxel, 1, grid_voxels(&piece->grid));
    if (!infer_detect(engine->session, piece, lungs, &findings, err))
        return err_within(err, "detector");
    out->candidates = findings.count;
    for (size_t index = 0; index < findings.count; index++) {
        const struct finding *finding = &findings.items[index];
        double apart_mm2 = 0;
        for (int axis = 0; axis < 3; axis++)
            apart_mm2 += pow(finding->center_lps_mm[axis] - nodule->center_lps_mm[axis], 2);
        if (!isfinite(finding->detector_logit) || !isfinite(apart_mm2) || !isfinite(finding->diameter_mm))
            return err_set(err, ERR_INPUT, "the detector gives what is no number");
        if (out->found || apart_mm2 > pow(nodule->diameter_mm / 2, 2))
            continue; /* best first */
        out->found = true;
        out->detector_logit = finding->detector_logit;
    }
    return true;
}

static bool passes(struct engine *engine, const struct volume *piece, const struct phantom_nodule *nodule,
                   struct model_check *out, struct err *err) {
    const struct infer_model_info *info = infer_model_info(engine->model);
    const struct infer_candidate_config config = {.seed = 1, .pass_count = info->passes, .dropout = -1};
    struct infer_candidate_result result;
    struct finding finding = {.detector_logit = out->detector_logit};
    if (!infer_candidate(engine->session, piece, nodule->center_lps_mm, &config, &result, err))
        return err_within(err, "candidate network");
    for (uint32_t pass = 0; pass < result.pass_count; pass++)
        if (!isfinite(result.logits[pass]))
            return err_set(err, ERR_INPUT, "the candidate network gives what is no number");
    uncertainty_summarise(info, result.logits, result.pass_count, &finding);
    if (!isfinite(result.diameter_mm) || !(finding.probability >= 0 && finding.probability <= 1))
        return err_set(err, ERR_INPUT, "the candidate network gives what is no number");
    out->probability = finding.probability;
    out->lowest = finding.probability_low;
    out->highest = finding.probability_high;
    return true;
}

static bool maps(struct engine *engine, const struct volume *piece, const struct phantom_nodule *nodule,
                 struct err *err) {
    struct infer_cam cam;
    if (!infer_cam(engine->session, piece, nodule->center_lps_mm, &cam, err))
        return err_within(err, "gradient map");
    bool finite = true;
    for (size_t cell = 0; cell < grid_voxels(&cam.grid); cell++)
        finite = finite && isfinite(cam.map[cell]);
    infer_cam_free(&cam);
    return finite || err_set(err, ERR_INPUT, "the gradient map holds what is no number");
}

/* An empty frame: what the gate says of it does not matter, only that it says something. */
static bool gate(struct engine *engine, struct err *err) {
    struct infer_gate_result result;
    if (!infer_model_info(engine->model)->has_gate)
        return true;
    PULMO_SCOPED(pulmo_free_at) float *frame = pulmo_alloc(INFER_GATE_FRAME, sizeof *frame, err);
    if (!frame || !infer_gate(engine->session, frame, &result, err))
        return err_within(err, "gate");
    return isfinite(result.score) || err_set(err, ERR_INPUT, "the gate gives what is no number");
}

bool model_check(struct engine *engine, struct model_check *out, struct err *err) {
    const struct phantom_config config = {.seed = 1, .nodules = 1};
    int64_t start_ms = pulmo_monotonic_ms();
    PULMO_SCOPED(phantom_free) struct phantom phantom = {0};
    if (!phantom_make(&config, &phantom, err))
        return false;
    const struct phantom_nodule *nodule = &phantom.nodules[0];
    struct model_check check = {.nodule_mm = nodule->diameter_mm};
    PULMO_SCOPED(volume_free_at) struct volume *iso = volume_resample_iso(phantom.volume, SPACING_MM, err);
    PULMO_SCOPED(volume_free_at) struct volume *piece = iso ? piece_of(iso, nodule->center_lps_mm, err) : NULL;
    if (!piece || !detect(engine, piece, nodule, &check, err) || !passes(engine, piece, nodule, &check, err) ||
        !maps(engine, piece, nodule, err) || !gate(engine, err))
        return false;
    check.ms = pulmo_monotonic_ms() - start_ms;
    *out = check;
    return true;
}
