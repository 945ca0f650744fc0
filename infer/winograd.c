#include "infer/winograd.h"

#include <string.h>

/* Tiles that are computed together at least, where there are so many: with them, what enters one depth and what leaves
 * four stays in a second-level cache of 512 KiB for the layers of 16 and 32 channels. */
#define TILES_TOGETHER 16
/* Cells of a volume below which its tiles do not pay, and the least share of the tiles' cells that are the volume's. */
#define CELLS_MIN 512
#define COVERED_MIN 0.6

int infer_winograd_lanes(const char *instruction_set) {
    if (strncmp(instruction_set, "avx512", 6) == 0 && __builtin_cpu_supports("avx512f"))
        return 16;
    if (strncmp(instruction_set, "avx2", 4) == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 8;
    return 0;
}

/* An odd number of cache lines, so that the positions of one tile do not all fall into the same set of a cache. */
static int64_t spread(int64_t floats) {
    return ((floats + 15) / 16 | 1) * 16;
}

bool infer_winograd_plan(const struct winograd_shape *shape, int lanes, struct winograd *out) {
    if (!lanes || shape->in % WINOGRAD_CHANNELS || shape->out % WINOGRAD_CHANNELS)
        return false;
    struct winograd plan = {.shape = *shape, .lanes = lanes};
    plan.tiles_x = (shape->width + 3) / 4;
    plan.tiles_y = (shape->height + 3) / 4;
    plan.pairs = (shape->depth + 1) / 2;
    int64_t lines = (TILES_TOGETHER + plan.tiles_x - 1) / plan.tiles_x, all = shape->batch * plan.pairs * plan.tiles_y;
    plan.lines = lines < all ? lines : all;
    plan.zeros = spread(shape->width * lanes);
    plan.columns = (4 * plan.tiles_x + 2) * lanes;
    plan.strip = spread(WINOGRAD_WIDE * plan.columns);
    plan.half = spread(WINOGRAD_WIDE * 4 * plan.tiles_x * lanes);
    plan.entering = spread(plan.lines * plan.tiles_x * shape->in);
    plan.leaving = spread(plan.lines * plan.tiles_x * shape->out);
    int64_t floats = plan.zeros + plan.lines * WINOGRAD_DEEP * shape->in / lanes * plan.strip +
                     WINOGRAD_WIDE * (plan.entering + WINOGRAD_DEEP * plan.leaving) +
                     plan.lines * shape->out / lanes * 2 * plan.half;
    plan.scratch_bytes = (size_t)floats * sizeof(float);
    plan.weight_bytes = (size_t)((WINOGRAD_POSITIONS * shape->in + 1) * shape->out) * sizeof(float); /* and the bias */
    *out = plan;
    return true;
}

bool infer_winograd_pays(const struct winograd *plan) {
    const struct winograd_shape *shape = &plan->shape;
    int64_t cells = shape->depth * shape->height * shape->width;
    int64_t covered = plan->pairs * plan->tiles_y * plan->tiles_x * 2 * 4 * 4;
    return shape->batch * cells >= CELLS_MIN && (double)cells >= COVERED_MIN * (double)covered;
}

/* ---- weights ---------------------------------------------------------------------------------------------------- */

/* Filter side of F(2, 3) and F(4, 3): row = the filter as a polynomial at a point, over the product of the point's
 * differences to the others; the last row is infinity. */
#define A2 (4.0 / 9)
#define B2 (9.0 / 4)
static const double deep_filter[WINOGRAD_DEEP][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};

static void wide_filter(double out[WINOGRAD_WIDE][3]) {
    const double points[WINOGRAD_WIDE - 1] = {0, 2.0 / 3, -2.0 / 3, 3.0 / 2, -3.0 / 2};
    const double products[WINOGRAD_WIDE - 1] = {A2 * B2, 2 * A2 * (A2 - B2), 2 * A2 * (A2 - B2), 2 * B2 * (B2 - A2),
                                                2 * B2 * (B2 - A2)};
    for (int row = 0; row < WINOGRAD_WIDE - 1; row++)
        for (int power = 0; power < 3; power++)
            out[row][power] = (power == 0 ? 1 : power == 1 ? points[row] : points[row] * points[row]) / products[row];
    out[WINOGRAD_WIDE - 1][0] = out[WINOGRAD_WIDE - 1][1] = 0;
    out[WINOGRAD_WIDE - 1][2] = 1;
}

/* One filter [3][3][3] to [6][4][6] (row, depth, column: the order in which they are used), in double so that only the
 * result is rounded. */
static void filter_transform(const float *filter, bool flipped, const double wide[WINOGRAD_WIDE][3],
                             float out[WINOGRAD_POSITIONS]) {
    double columns[3][3][WINOGRAD_WIDE] = {{{0}}}, rows[3][WINOGRAD_WIDE][WINOGRAD_WIDE] = {{{0}}};
    for (int n = 0; n < 27; n++)
        for (int j = 0; j < WINOGRAD_WIDE; j++)
            columns[n / 9][n / 3 % 3][j] += wide[j][n % 3] * (double)filter[flipped ? 26 - n : n];
    for (int n = 0; n < 9; n++)
        for (int i = 0; i < WINOGRAD_WIDE; i++)
            for (int j = 0; j < WINOGRAD_WIDE; j++)
                rows[n / 3][i][j] += wide[i][n % 3] * columns[n / 3][n % 3][j];
    for (int n = 0; n < WINOGRAD_POSITIONS; n++) {
        int i = n / (WINOGRAD_DEEP * WINOGRAD_WIDE), e = n / WINOGRAD_WIDE % WINOGRAD_DEEP, j = n % WINOGRAD_WIDE;
        out[n] = (float)(deep_filter[e][0] * rows[0][i][j] + deep_filter[e][1] * rows[1][i][j] +
                         deep_filter[e][2] * rows[2][i][j]);
    }
}

/* Where the weight of a pair of channels lies in the matrix of a position: in panels of two vectors of outputs (one, at
 * the end), each [in][outputs]. */
static int64_t panel_place(const struct winograd *plan, int64_t in, int64_t out) {
    int64_t wide = 2 * plan->lanes, first = out / wide * wide;
    int64_t here = plan->shape.out - first < wide ? plan->shape.out - first : wide;
    return first * plan->shape.in + in * here + (out - first);
}

void infer_winograd_pack(const struct winograd *plan, const float *weights, const float *bias, bool backward,
                         float *packed) {
    int64_t ins = plan->shape.in, outs = plan->shape.out, blocks = outs / WINOGRAD_CHANNELS;
    double wide[WINOGRAD_WIDE][3];
    float made[WINOGRAD_CHANNELS][WINOGRAD_POSITIONS];
    wide_filter(wide);
    for (int64_t block = 0; block < ins * blocks; block++) { /* of outputs, which lie side by side */
        int64_t in = block / blocks, first = block % blocks * WINOGRAD_CHANNELS;
        for (int64_t out = first; out < first + WINOGRAD_CHANNELS; out++)
            filter_transform(weights + 27 * (backward ? in * outs + out : out * ins + in), backward,
                             (const double(*)[3])wide, made[out - first]);
        for (int n = 0; n < WINOGRAD_POSITIONS; n++)
            for (int out = 0; out < WINOGRAD_CHANNELS; out++)
                packed[n * ins * outs + panel_place(plan, in, first) + out] = made[out][n];
    }
    float *row = packed + WINOGRAD_POSITIONS * ins * outs;
    for (int64_t out = 0; out < outs; out++)
        row[out] = bias ? bias[out] : 0;
}

bool infer_winograd_run(const struct winograd *plan, const struct winograd_call *call) {
    return plan->lanes == 16 ? infer_winograd_run_16(plan, call) : infer_winograd_run_8(plan, call);
}
