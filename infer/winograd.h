/* Inside the CPU back-end: the convolution of 3 x 3 x 3, stride 1, one cell of zeros around, by minimal filtering
 * (Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, arXiv:1509.09308, sections 4 and 5).
 *
 * Two slices of 4 x 4 cells are computed from four of 6 x 6: F(2 x 4 x 4, 3 x 3 x 3). Input tile d, filter g and output
 * tile are brought into another domain along each axis, where a product of each of the 4 * 6 * 6 positions is all that
 * is left: 4.5 multiplications a cell and pair of channels instead of 27.
 *
 * Depth: the F(2, 3) of Lavin and Gray, whose points are 0, 1, -1 and infinity. Rows and columns: F(4, 3) at 0, 2/3,
 * -2/3, 3/2, -3/2 and infinity, by the Toom-Cook construction. With the usual 1 and 2 the error is four to five
 * times as large; with these it is about that of a sum in order (test_infer_winograd).
 *
 * A cell's sums run in one order, whatever the tile's neighbours and the width of the vectors: results are the same
 * bytes for any number of threads, of lanes, and of cells in a call. */
#ifndef PULMO_INFER_WINOGRAD_H
#define PULMO_INFER_WINOGRAD_H

#include "pulmo.h"

/* Of what it computes, to the last bit, and of the layers that it is given: a replay compares it. */
#define WINOGRAD_VERSION 1
#define WINOGRAD_DEEP 4 /* slices that enter a tile, of which 2 leave */
#define WINOGRAD_WIDE 6 /* rows and columns, of which 4 leave */
#define WINOGRAD_POSITIONS (WINOGRAD_DEEP * WINOGRAD_WIDE * WINOGRAD_WIDE)
#define WINOGRAD_CHANNELS 16 /* numbers of channels are multiples of it */
#define WINOGRAD_LANES_MAX 16

struct winograd_shape {
    int64_t batch, depth, height, width; /* of input and output */
    int64_t in, out;                     /* channels */
};

/* A convolution of one shape. Activations are [batch][channels / lanes][depth][height][width][lanes], aligned to a
 * vector. */
struct winograd {
    struct winograd_shape shape;
    int lanes;
    int64_t tiles_x, tiles_y, pairs; /* a line = one pair of slices, one row of tiles */
    int64_t lines;                   /* computed together, so that weights are read for many tiles */
    int64_t zeros, columns, strip, half, entering, leaving; /* floats of parts of the scratch */
    size_t scratch_bytes, weight_bytes;
};

struct winograd_call {
    const float *in, *weights;
    const float *residual; /* added before Relu; NULL = none; may be `out` */
    float *out;
    void *scratch; /* aligned as the arena is */
    bool relu;     /* NaN stays NaN */
};

/* Floats in a vector: 16 with AVX-512, 8 with AVX2 and FMA, 0 = no kernel for the instruction set of that name, as
 * infer_backend_instruction_set gives it, on this processor. */
int infer_winograd_lanes(const char *instruction_set);
/* False where channels do not fill their blocks or lanes is 0. */
bool infer_winograd_plan(const struct winograd_shape *shape, int lanes, struct winograd *out);
/* Whether it is to be preferred to a sum in order: a rule of the shape alone. */
bool infer_winograd_pays(const struct winograd *plan);
/* weights: [out][in][3][3][3]; bias: [out] or NULL. backward: the convolution that leads gradients of the output back,
 * from the forward one's weights, [in][out][3][3][3] then. packed: weight_bytes. */
void infer_winograd_pack(const struct winograd *plan, const float *weights, const float *bias, bool backward,
                         float *packed);
/* Returns whether the result holds neither NaN nor infinity. */
bool infer_winograd_run(const struct winograd *plan, const struct winograd_call *call);

/* winograd/kernel.c, compiled once for each width of vectors. */
bool infer_winograd_run_8(const struct winograd *plan, const struct winograd_call *call);
bool infer_winograd_run_16(const struct winograd *plan, const struct winograd_call *call);

#endif
