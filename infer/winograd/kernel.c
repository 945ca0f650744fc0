/* The convolution of infer/winograd.h on vectors of WINOGRAD_LANES floats, as the function WINOGRAD_RUN: compiled once
 * for each width. Where the compiler has no such vectors it makes them of others. */
#include "infer/winograd.h"

#include <string.h>

#define LANES WINOGRAD_LANES
typedef float vec __attribute__((vector_size(4 * LANES), may_alias));

#if LANES == 8 && defined __AVX2__ && defined __FMA__
#include <immintrin.h>

static inline vec fma_of(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}

static inline vec fma_less(vec a, vec b, vec c) { /* c - a * b */
    return _mm256_fnmadd_ps(a, b, c);
}

/* NaN stays: the second operand is what an unordered comparison gives. */
static inline vec above_zero(vec a) {
    return _mm256_max_ps(_mm256_setzero_ps(), a);
}
#elif LANES == 16 && defined __AVX512F__
#include <immintrin.h>

static inline vec fma_of(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}

static inline vec fma_less(vec a, vec b, vec c) {
    return _mm512_fnmadd_ps(a, b, c);
}

static inline vec above_zero(vec a) {
    return _mm512_max_ps(_mm512_setzero_ps(), a);
}
#else
#include <math.h>

static inline vec fma_of(vec a, vec b, vec c) {
    vec out;
    for (int lane = 0; lane < LANES; lane++)
        out[lane] = fmaf(a[lane], b[lane], c[lane]);
    return out;
}

static inline vec fma_less(vec a, vec b, vec c) {
    return fma_of(-a, b, c);
}

static inline vec above_zero(vec a) {
    for (int lane = 0; lane < LANES; lane++)
        a[lane] = a[lane] < 0 ? 0 : a[lane];
    return a;
}
#endif

static inline vec load(const float *at) {
    return *(const vec *)at;
}

static inline void store(float *at, vec value) {
    *(vec *)at = value;
}

static inline vec splat(float value) {
    return value - (vec){0};
}

/* ---- domains ---------------------------------------------------------------------------------------------------- */

/* Points of the rows and columns: 0, A, -A, B, -B, infinity; A * B = 1, which saves a few products. */
#define A (2.0F / 3)
#define B (3.0F / 2)
#define A2 (4.0F / 9)
#define B2 (9.0F / 4)

/* Input side of F(4, 3): each row is the product of x - p over the other points p. */
static inline void enter(const vec d[WINOGRAD_WIDE], vec out[WINOGRAD_WIDE]) {
    vec sum = splat(A2 + B2), a2 = splat(A2), b2 = splat(B2), a = splat(A), b = splat(B);
    vec even_a = fma_less(b2, d[2], d[4]), odd_a = fma_less(b, d[1], a * d[3]);
    vec even_b = fma_less(a2, d[2], d[4]), odd_b = fma_less(a, d[1], b * d[3]);
    out[0] = fma_less(sum, d[2], d[0] + d[4]);
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = fma_less(sum, d[3], d[1] + d[5]);
}

/* Output side of F(4, 3): cell n is the sum of the products' values times their point to the power of n. */
static inline void leave(const vec m[WINOGRAD_WIDE], vec out[4]) {
    vec sum_a = m[1] + m[2], apart_a = m[1] - m[2], sum_b = m[3] + m[4], apart_b = m[3] - m[4];
    out[0] = m[0] + sum_a + sum_b;
    out[1] = fma_of(splat(A), apart_a, splat(B) * apart_b);
    out[2] = fma_of(splat(A2), sum_a, splat(B2) * sum_b);
    out[3] = fma_of(splat(A * A2), apart_a, fma_of(splat(B * B2), apart_b, m[5]));
}

/* ---- what enters ------------------------------------------------------------------------------------------------ */

/* Depth of F(2, 3): d0 - d2, d1 + d2, d2 - d1, d1 - d3. */
static const struct {
    int one, two;
    bool sum;
} depths[WINOGRAD_DEEP] = {{0, 2, false}, {1, 2, true}, {2, 1, false}, {1, 3, false}};

struct place { /* a line: image of the batch, first of its two slices, first row */
    int64_t image, slice, row;
};

static struct place place_of(const struct winograd *plan, int64_t line) {
    int64_t pair = line / plan->tiles_y;
    return (struct place){pair / plan->pairs, pair % plan->pairs * 2, line % plan->tiles_y * 4};
}

/* Where a row of a block of channels begins; `zeros` outside of the volume. */
static const float *row_of(const struct winograd *plan, const float *in, const struct place *place, int64_t block,
                           int64_t slice, int64_t row, const float *zeros) {
    const struct winograd_shape *shape = &plan->shape;
    if (slice < 0 || slice >= shape->depth || row < 0 || row >= shape->height)
        return zeros;
    int64_t image = place->image * (shape->in / LANES) + block;
    return in + (((image * shape->depth + slice) * shape->height + row) * shape->width) * LANES;
}

/* Columns that are brought into all depths together: what they read stays in the first cache meanwhile. */
#define COLUMNS 8

/* Some columns of six rows of one depth, each of two slices, to a strip [6][columns]. */
static inline __attribute__((always_inline)) void columns_enter(const float *const one[WINOGRAD_WIDE],
                                                                const float *const two[WINOGRAD_WIDE], bool sum,
                                                                int64_t first, int64_t end, int64_t pitch,
                                                                float *strip) {
    for (int64_t x = first; x < end; x++) {
        vec d[WINOGRAD_WIDE], made[WINOGRAD_WIDE];
        for (int i = 0; i < WINOGRAD_WIDE; i++) {
            vec left = load(one[i] + x * LANES), right = load(two[i] + x * LANES);
            d[i] = sum ? left + right : left - right;
        }
        enter(d, made);
        for (int i = 0; i < WINOGRAD_WIDE; i++)
            store(strip + i * pitch + (x + 1) * LANES, made[i]);
    }
}

/* strips: [4][channels / lanes][6][columns] of a line; the columns outside of the volume stay 0. */
static void line_enter(const struct winograd *plan, const float *in, int64_t line, const float *zeros, float *strips) {
    struct place place = place_of(plan, line);
    int64_t blocks = plan->shape.in / LANES, width = plan->shape.width;
    for (int64_t block = 0; block < blocks; block++, strips += plan->strip) {
        const float *rows[WINOGRAD_DEEP][WINOGRAD_WIDE];
        for (int n = 0; n < WINOGRAD_DEEP * WINOGRAD_WIDE; n++)
            rows[n / WINOGRAD_WIDE][n % WINOGRAD_WIDE] = row_of(
                plan, in, &place, block, place.slice - 1 + n / WINOGRAD_WIDE, place.row - 1 + n % WINOGRAD_WIDE, zeros);
        for (int64_t x = 0; x < width; x += COLUMNS)
            for (int n = 0; n < WINOGRAD_DEEP; n++) {
                int64_t end = x + COLUMNS < width ? x + COLUMNS : width;
                const float *const *one = rows[depths[n].one], *const *two = rows[depths[n].two];
                float *strip = strips + n * blocks * plan->strip;
                if (depths[n].sum)
                    columns_enter(one, two, true, x, end, plan->columns, strip);
                else
                    columns_enter(one, two, false, x, end, plan->columns, strip);
            }
    }
}

/* One row of a line's strips at one depth, tile by tile: out[6][tile][channel]. */
static void row_enter(const struct winograd *plan, const float *row, float *out) {
    int64_t in = plan->shape.in, pitch = plan->entering;
    for (int64_t block = 0; block < in / LANES; block++, row += plan->strip, out += LANES)
        for (int64_t tile = 0; tile < plan->tiles_x; tile++) {
            vec d[WINOGRAD_WIDE], made[WINOGRAD_WIDE];
            for (int j = 0; j < WINOGRAD_WIDE; j++)
                d[j] = load(row + (4 * tile + j) * LANES);
            enter(d, made);
            for (int j = 0; j < WINOGRAD_WIDE; j++)
                store(out + j * pitch + tile * in, made[j]);
        }
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* out[rows][columns * LANES] = in[rows][deep] times a panel [deep][columns * LANES]; rows and columns are constants
 * wherever it is called, and all sums stay in registers. */
static inline __attribute__((always_inline)) void product(int rows, int columns, const float *in, int64_t deep,
                                                          const float *panel, float *out, int64_t pitch) {
    vec sums[8][2];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
        sums[row][0] = sums[row][1] = (vec){0};
    for (int64_t c = 0; c < deep; c++, panel += columns * LANES) {
        vec one = load(panel), two = columns == 2 ? load(panel + LANES) : one;
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            vec value = splat(in[row * deep + c]);
            sums[row][0] = fma_of(value, one, sums[row][0]);
            if (columns == 2)
                sums[row][1] = fma_of(value, two, sums[row][1]);
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++) {
        store(out + row * pitch, sums[row][0]);
        if (columns == 2)
            store(out + row * pitch + LANES, sums[row][1]);
    }
}

static void product_double(int64_t rows, const float *in, int64_t deep, const float *panel, float *out, int64_t pitch) {
    switch (rows) {
    case 1: product(1, 2, in, deep, panel, out, pitch); break;
    case 2: product(2, 2, in, deep, panel, out, pitch); break;
    case 3: product(3, 2, in, deep, panel, out, pitch); break;
    case 4: product(4, 2, in, deep, panel, out, pitch); break;
    case 5: product(5, 2, in, deep, panel, out, pitch); break;
    default: product(6, 2, in, deep, panel, out, pitch);
    }
}

static void product_single(int64_t rows, const float *in, int64_t deep, const float *panel, float *out, int64_t pitch) {
    switch (rows) {
    case 1: product(1, 1, in, deep, panel, out, pitch); break;
    case 2: product(2, 1, in, deep, panel, out, pitch); break;
    case 3: product(3, 1, in, deep, panel, out, pitch); break;
    case 4: product(4, 1, in, deep, panel, out, pitch); break;
    case 5: product(5, 1, in, deep, panel, out, pitch); break;
    case 6: product(6, 1, in, deep, panel, out, pitch); break;
    case 7: product(7, 1, in, deep, panel, out, pitch); break;
    default: product(8, 1, in, deep, panel, out, pitch);
    }
}

/* All tiles of the lines at one position: out[tile][out] = in[tile][in] times the position's weights. */
static void position_run(const struct winograd *plan, int64_t tiles, const float *in, const float *weights,
                         float *out) {
    int64_t deep = plan->shape.in, wide = plan->shape.out;
    for (int64_t first = 0; first < wide; first += 2 * LANES) {
        bool whole = wide - first >= 2 * LANES;
        int64_t most = whole ? 6 : 8, groups = (tiles + most - 1) / most;
        for (int64_t group = 0, tile = 0; group < groups; group++) {
            int64_t rows = (tiles - tile + groups - group - 1) / (groups - group);
            (whole ? product_double : product_single)(rows, in + tile * deep, deep, weights + first * deep,
                                                      out + tile * wide + first, wide);
            tile += rows;
        }
    }
}

/* ---- what leaves ------------------------------------------------------------------------------------------------ */

/* One row of positions of a line, [4][6][tile][channel], by depth and by columns: out[channels / lanes][2][6][columns],
 * of whose six rows this is one. */
static void row_leave(const struct winograd *plan, const float *from, float *out) {
    int64_t wide = plan->shape.out, pitch = plan->leaving, deep = WINOGRAD_WIDE * pitch;
    for (int64_t block = 0; block < wide / LANES; block++, out += 2 * plan->half)
        for (int64_t tile = 0; tile < plan->tiles_x; tile++) {
            vec first[WINOGRAD_WIDE], second[WINOGRAD_WIDE], made[4];
            const float *at = from + tile * wide + block * LANES;
            for (int j = 0; j < WINOGRAD_WIDE; j++, at += pitch) {
                vec one = load(at + deep), two = load(at + 2 * deep);
                first[j] = load(at) + one + two;
                second[j] = one - two - load(at + 3 * deep);
            }
            leave(first, made);
            for (int j = 0; j < 4; j++)
                store(out + (4 * tile + j) * LANES, made[j]);
            leave(second, made);
            for (int j = 0; j < 4; j++)
                store(out + plan->half + (4 * tile + j) * LANES, made[j]);
        }
}

/* One row of four of a slice's cells: bias, sum and Relu. */
static inline vec cell_finish(const struct winograd_call *call, vec value, int64_t at) {
    if (call->residual)
        value += load(call->residual + at);
    return call->relu ? above_zero(value) : value;
}

/* Six rows by rows, and the cells that lie in the volume; at: of the first. Gives 0, NaN where one was not finite. */
static vec rows_leave(const struct winograd *plan, const struct winograd_call *call, const float *half, vec bias,
                      int64_t at, int64_t rows) {
    vec wrong = {0};
    int64_t width = plan->shape.width, pitch = 4 * plan->tiles_x * LANES;
    for (int64_t x = 0; x < width; x++, at += LANES) {
        vec m[WINOGRAD_WIDE], made[4];
        for (int i = 0; i < WINOGRAD_WIDE; i++)
            m[i] = load(half + i * pitch + x * LANES);
        leave(m, made);
        for (int64_t i = 0; i < rows; i++) {
            vec value = cell_finish(call, made[i] + bias, at + i * width * LANES);
            wrong = fma_of(value, (vec){0}, wrong);
            store(call->out + at + i * width * LANES, value);
        }
    }
    return wrong;
}

static vec line_leave(const struct winograd *plan, const struct winograd_call *call, int64_t line, const float *half) {
    const struct winograd_shape *shape = &plan->shape;
    struct place place = place_of(plan, line);
    int64_t rows = shape->height - place.row < 4 ? shape->height - place.row : 4;
    const float *bias = call->weights + WINOGRAD_POSITIONS * shape->in * shape->out;
    vec wrong = {0};
    for (int64_t n = 0; n < shape->out / LANES * 2; n++) {
        int64_t slice = place.slice + n % 2, image = place.image * (shape->out / LANES) + n / 2;
        int64_t row = (image * shape->depth + slice) * shape->height + place.row;
        if (slice < shape->depth)
            wrong += rows_leave(plan, call, half + n * plan->half, load(bias + n / 2 * LANES),
                                row * shape->width * LANES, rows);
    }
    return wrong;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static bool all_zero(vec value) {
    for (int lane = 0; lane < LANES; lane++)
        if (!(value[lane] == 0))
            return false;
    return true;
}

struct scratch {
    float *zeros;    /* a row */
    float *strips;   /* [line][4][in / lanes][6][columns] */
    float *entering; /* [6][tile][in] */
    float *leaving;  /* [4][6][tile][out] */
    float *halves;   /* [line][out / lanes][2][6][columns] */
};

static struct scratch scratch_begin(const struct winograd *plan, float *memory) {
    const struct winograd_shape *shape = &plan->shape;
    struct scratch scratch = {.zeros = memory};
    scratch.strips = scratch.zeros + plan->zeros;
    scratch.entering = scratch.strips + plan->lines * WINOGRAD_DEEP * shape->in / LANES * plan->strip;
    scratch.leaving = scratch.entering + WINOGRAD_WIDE * plan->entering;
    scratch.halves = scratch.leaving + WINOGRAD_DEEP * WINOGRAD_WIDE * plan->leaving;
    memset(memory, 0, (size_t)(scratch.entering - memory) * sizeof *memory); /* zeros, and the strips' edges */
    return scratch;
}

/* Row `row` of the six of all positions, for some lines. */
static void row_run(const struct winograd *plan, const struct scratch *scratch, int row, int64_t lines,
                    const float *weights) {
    int64_t in = plan->shape.in, out = plan->shape.out, strips = in / LANES * plan->strip, tiles = plan->tiles_x;
    for (int depth = 0; depth < WINOGRAD_DEEP; depth++) {
        for (int64_t n = 0; n < lines; n++)
            row_enter(plan, scratch->strips + (n * WINOGRAD_DEEP + depth) * strips + row * plan->columns,
                      scratch->entering + n * tiles * in);
        for (int j = 0; j < WINOGRAD_WIDE; j++) {
            int position = depth * WINOGRAD_WIDE + j;
            position_run(plan, lines * tiles, scratch->entering + j * plan->entering, weights + position * in * out,
                         scratch->leaving + position * plan->leaving);
        }
    }
    for (int64_t n = 0; n < lines; n++)
        row_leave(plan, scratch->leaving + n * tiles * out,
                  scratch->halves + n * (out / LANES) * 2 * plan->half + row * 4 * tiles * LANES);
}

bool WINOGRAD_RUN(const struct winograd *plan, const struct winograd_call *call) {
    const struct winograd_shape *shape = &plan->shape;
    int64_t all = shape->batch * plan->pairs * plan->tiles_y, matrix = shape->in * shape->out;
    struct scratch scratch = scratch_begin(plan, call->scratch);
    vec wrong = {0};
    for (int64_t first = 0; first < all; first += plan->lines) {
        int64_t lines = all - first < plan->lines ? all - first : plan->lines;
        for (int64_t n = 0; n < lines; n++)
            line_enter(plan, call->in, first + n, scratch.zeros,
                       scratch.strips + n * WINOGRAD_DEEP * shape->in / LANES * plan->strip);
        for (int row = 0; row < WINOGRAD_WIDE; row++)
            row_run(plan, &scratch, row, lines, call->weights + row * WINOGRAD_DEEP * WINOGRAD_WIDE * matrix);
        for (int64_t n = 0; n < lines; n++)
            wrong += line_leave(plan, call, first + n, scratch.halves + n * (shape->out / LANES) * 2 * plan->half);
    }
    return all_zero(wrong);
}
