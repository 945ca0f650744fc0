/* What bench/gpu.sh carries to a machine with a card: plans, and what the CPU engine found with them.
 * tests/infer_gpu_pack.c writes it with the engine, tests/infer_gpu_measure.c reads it without: that machine needs no
 * library of Debian's. */
#ifndef PULMO_TESTS_INFER_GPU_CASE_H
#define PULMO_TESTS_INFER_GPU_CASE_H

#include "pulmo.h"

#define GPU_CASE_MAGIC 0x31455341434750ULL /* "PGCASE1", little-endian */
#define GPU_CASE_MARKS_MAX 1024

/* case.bin: this header, then marks, logits [marks][passes]. The volume is the phantom of `slices` and `seed`. */
struct gpu_case {
    uint64_t magic;
    int32_t slices, tile, margin, candidates_max, side, passes, outputs[3];
    int32_t logit_port; /* of candidate.plan */
    int32_t mark_count, reserved;
    uint64_t phantom_seed, dropout_seed;
    double spacing_mm, logit_min;
    double cpu_ms[2]; /* detection, candidates: on the processors of the machine that wrote it, for orientation only */
    char cpu[64], model[72];
};
struct gpu_case_mark {
    double center_lps_mm[3];
    double diameter_mm, logit;
};

#endif
