/* Every kernel of ours: what it works on, and what one of its threads does. The card runs kernel_run on the device, one
 * index a thread; the host card of the tests (tests/infer_card_host.c) in a loop. */
#ifndef PULMO_INFER_CUDA_KERNEL_H
#define PULMO_INFER_CUDA_KERNEL_H

#include "infer/cuda/element.h"
#include "infer/cuda/frame.h"

enum kernel_kind {
    KERNEL_STEP = 0, /* a step of a plan but attention; index = result */
    KERNEL_ATTEND,   /* a step of attention, which needs a row of its own memory; index = query */
    KERNEL_FINITE,   /* looks for NaN and infinity in what cuDNN made; index = eight bytes */
    KERNEL_FILL,     /* floats of one value */
    KERNEL_RESAMPLE, /* index = voxel of the result */
    KERNEL_CUT,      /* tiles or crops out of the volume; index = voxel of the batch */
    KERNEL_KEEP,     /* a batch's inner cells into the maps of the volume; index = cell of channel of tile */
    KERNEL_PEAKS,    /* index = cell of the volume */
    KERNEL_RANK,     /* sorts the marks, best first; index = mark */
    KERNEL_SUPPRESS, /* one block; index = thread */
    KERNEL_KINDS
};

#define KERNEL_BLOCK 256           /* threads; KERNEL_SUPPRESS is one block */
#define KERNEL_NO_FAULT 0x7FFFFFFF /* no step gave NaN or infinity */

struct kernel_step {
    struct device_call call;
    int32_t number; /* of the step, which a fault is known by */
    int32_t *fault; /* the least number of a step that gave NaN or infinity */
};
struct kernel_finite {
    const uint64_t *data;
    int32_t number, element;
    int32_t *fault;
};
struct kernel_fill {
    float *to;
    float value;
};
struct kernel_resample {
    struct cuda_resample how;
    const int16_t *hu;
    int16_t *to;
};
struct kernel_cut {
    const int16_t *hu;
    const int32_t (
        *starts)[3]; /* i, j, k; entry n of the batch is starts[first + n], the last one again beyond count */
    int32_t size_ijk[3], side, first, count;
    uint32_t mirror; /* axes along which an entry is reversed: bit 0 = i, 1 = j, 2 = k */
    float *to;       /* [batch][side][side][side] */
};
struct kernel_keep {
    struct cuda_detect request;
    const int32_t (*starts)[3];
    int32_t first;
    const float *from[3]; /* heatmap, offset [3], log diameter of each tile */
    float *maps;          /* [FRAME_MAP_CHANNELS][cells] */
};
struct kernel_marks {
    struct cuda_detect request;
    const float *maps;
    const uint8_t *lungs;
    struct cuda_mark *marks, *sorted; /* [CUDA_MARKS_MAX] */
    int32_t *count;                   /* of marks found, also beyond CUDA_MARKS_MAX */
    uint8_t *dropped;                 /* [CUDA_MARKS_MAX] of sorted */
};

struct kernel {
    enum kernel_kind kind;
    union {
        struct kernel_step step;
        struct kernel_finite finite;
        struct kernel_fill fill;
        struct kernel_resample resample;
        struct kernel_cut cut;
        struct kernel_keep keep;
        struct kernel_marks marks;
    } on;
};

/* ---- between threads ------------------------------------------------------------------------------------------- */

DEVICE_BOTH static inline int32_t kernel_take(int32_t *counter) {
#ifdef __CUDA_ARCH__
    return atomicAdd(counter, 1);
#else
    return (*counter)++;
#endif
}

DEVICE_BOTH static inline void kernel_least(int32_t *least, int32_t value) {
#ifdef __CUDA_ARCH__
    atomicMin(least, value);
#else
    *least = value < *least ? value : *least;
#endif
}

/* Of a block. The host's block is one thread. */
DEVICE_BOTH static inline void kernel_meet(void) {
#ifdef __CUDA_ARCH__
    __syncthreads();
#endif
}

/* ---- kernels --------------------------------------------------------------------------------------------------- */

DEVICE_BOTH static inline void kernel_step(const struct kernel_step *k, uint32_t index) {
    if (!element_store(&k->call.out[0], k->call.out_data[0], index, element_value(&k->call, index)))
        kernel_least(k->fault, k->number);
}

DEVICE_BOTH static inline void kernel_attend(const struct kernel_step *k, uint32_t index) {
    bool masked = k->call.step.kind == DEVICE_MASKED_ATTENTION;
    if (!(masked ? element_masked_attention(&k->call, index) : element_attention(&k->call, index)))
        kernel_least(k->fault, k->number);
}

/* All exponent bits set = infinity or NaN (IEEE 754). */
DEVICE_BOTH static inline void kernel_finite(const struct kernel_finite *k, uint32_t index) {
    uint64_t bits = k->data[index];
    bool bad = false;
    for (int n = 0; n < 4 && k->element == DEVICE_F16; n++)
        bad = bad || (bits >> (16 * n) & 0x7C00U) == 0x7C00U;
    for (int n = 0; n < 2 && k->element == DEVICE_F32; n++)
        bad = bad || (bits >> (32 * n) & 0x7F800000U) == 0x7F800000U;
    if (bad)
        kernel_least(k->fault, k->number);
}

/* The voxel of a cube that lies at `voxel` once the cube is reversed. */
DEVICE_BOTH static inline uint32_t kernel_mirrored(uint32_t voxel, uint32_t side, uint32_t mirror) {
    uint32_t i = voxel % side, j = voxel / side % side, k = voxel / side / side;
    i = mirror & 1 ? side - 1 - i : i;
    j = mirror & 2 ? side - 1 - j : j;
    k = mirror & 4 ? side - 1 - k : k;
    return (k * side + j) * side + i;
}

DEVICE_BOTH static inline void kernel_cut(const struct kernel_cut *k, uint32_t index) {
    uint32_t voxels = (uint32_t)(k->side * k->side * k->side);
    uint32_t voxel = kernel_mirrored(index % voxels, (uint32_t)k->side, k->mirror);
    int32_t entry = k->first + (int32_t)(index / voxels);
    entry = entry < k->count ? entry : k->count - 1;
    k->to[index] = frame_voxel(k->hu, k->size_ijk, k->starts[entry], k->side, voxel);
}

DEVICE_BOTH static inline void kernel_keep(const struct kernel_keep *k, uint32_t index) {
    const struct cuda_detect *d = &k->request;
    uint32_t side = (uint32_t)(d->tile / FRAME_STRIDE), cells = side * side * side, cell = index % cells;
    int32_t channel = (int32_t)(index / cells % FRAME_MAP_CHANNELS);
    int32_t slot = (int32_t)(index / cells / FRAME_MAP_CHANNELS);
    if (k->first + slot >= d->tile_count)
        return;
    int64_t to = frame_cell(d, k->starts[k->first + slot], cell);
    if (to < 0)
        return;
    int source = channel == 0 ? 0 : channel < 4 ? 1 : 2, parts = source == 1 ? 3 : 1;
    int64_t from = ((int64_t)slot * parts + (source == 1 ? channel - 1 : 0)) * cells + cell;
    k->maps[(int64_t)channel * d->cells[0] * d->cells[1] * d->cells[2] + to] = k->from[source][from];
}

DEVICE_BOTH static inline void kernel_peaks(const struct kernel_marks *k, uint32_t index) {
    const struct cuda_detect *d = &k->request;
    int32_t row = (int32_t)index / d->cells[2];
    const int32_t at[3] = {row / d->cells[1], row % d->cells[1], (int32_t)index % d->cells[2]};
    if ((double)k->maps[index] < d->logit_min || !frame_is_peak(k->maps, d->cells, at))
        return;
    struct cuda_mark mark = frame_mark(d, k->maps, index);
    if (!frame_near_lung(d, k->lungs, &mark))
        return;
    int32_t slot = kernel_take(k->count);
    if (slot < CUDA_MARKS_MAX)
        k->marks[slot] = mark;
}

DEVICE_BOTH static inline int32_t kernel_mark_count(const struct kernel_marks *k) {
    return *k->count < CUDA_MARKS_MAX ? *k->count : CUDA_MARKS_MAX;
}

/* The place of a mark is the number of better ones: no two are alike, since their cells differ. */
DEVICE_BOTH static inline void kernel_rank(const struct kernel_marks *k, uint32_t index) {
    int32_t count = kernel_mark_count(k), place = 0;
    if ((int32_t)index >= count)
        return;
    for (int32_t n = 0; n < count; n++)
        place += frame_better(&k->marks[n], &k->marks[index]);
    k->sorted[place] = k->marks[index];
    k->dropped[place] = 0;
}

/* Each mark in turn, unless a better one has dropped it, drops those behind it; the threads share those out. The kept
 * ones come to the front of marks, and their number becomes the count (negative = there was no room for all). */
DEVICE_BOTH static inline void kernel_suppress(const struct kernel_marks *k, uint32_t thread, uint32_t threads) {
    int32_t found = *k->count, count = kernel_mark_count(k), kept = 0;
    for (int32_t n = 0; n < count && kept < k->request.candidates_max; n++) {
        if (k->dropped[n]) /* the same for all threads: whoever drops it has met the others since */
            continue;
        if (thread == 0)
            k->marks[kept] = k->sorted[n];
        kept++;
        for (int32_t other = n + 1 + (int32_t)thread; other < count; other += (int32_t)threads)
            if (frame_suppresses(&k->sorted[n], &k->sorted[other]))
                k->dropped[other] = 1;
        kernel_meet();
    }
    kernel_meet(); /* every thread has read the count */
    if (thread == 0)
        *k->count = found > CUDA_MARKS_MAX ? -1 : kept;
}

DEVICE_BOTH static inline void kernel_run(const struct kernel *kernel, uint32_t index, uint32_t count) {
    switch (kernel->kind) {
    case KERNEL_STEP: kernel_step(&kernel->on.step, index); break;
    case KERNEL_ATTEND: kernel_attend(&kernel->on.step, index); break;
    case KERNEL_FINITE: kernel_finite(&kernel->on.finite, index); break;
    case KERNEL_FILL: kernel->on.fill.to[index] = kernel->on.fill.value; break;
    case KERNEL_RESAMPLE:
        kernel->on.resample.to[index] = frame_resample(&kernel->on.resample.how, kernel->on.resample.hu, index);
        break;
    case KERNEL_CUT: kernel_cut(&kernel->on.cut, index); break;
    case KERNEL_KEEP: kernel_keep(&kernel->on.keep, index); break;
    case KERNEL_PEAKS: kernel_peaks(&kernel->on.marks, index); break;
    case KERNEL_RANK: kernel_rank(&kernel->on.marks, index); break;
    case KERNEL_SUPPRESS: kernel_suppress(&kernel->on.marks, index, count); break;
    case KERNEL_KINDS: break;
    }
}

#ifdef __CUDACC__
/* The same with the kind known to the compiler. */
template <int KIND> __device__ inline void kernel_run_as(const struct kernel *kernel, uint32_t index, uint32_t count) {
    if (KIND == KERNEL_STEP)
        kernel_step(&kernel->on.step, index);
    else if (KIND == KERNEL_ATTEND)
        kernel_attend(&kernel->on.step, index);
    else if (KIND == KERNEL_FINITE)
        kernel_finite(&kernel->on.finite, index);
    else if (KIND == KERNEL_FILL)
        kernel->on.fill.to[index] = kernel->on.fill.value;
    else if (KIND == KERNEL_RESAMPLE)
        kernel->on.resample.to[index] = frame_resample(&kernel->on.resample.how, kernel->on.resample.hu, index);
    else if (KIND == KERNEL_CUT)
        kernel_cut(&kernel->on.cut, index);
    else if (KIND == KERNEL_KEEP)
        kernel_keep(&kernel->on.keep, index);
    else if (KIND == KERNEL_PEAKS)
        kernel_peaks(&kernel->on.marks, index);
    else if (KIND == KERNEL_RANK)
        kernel_rank(&kernel->on.marks, index);
    else
        kernel_suppress(&kernel->on.marks, index, count);
}
#endif

#endif
