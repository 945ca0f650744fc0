/* The memory plan: where each buffer lies in one arena, so that buffers that never live together may overlap. */
#ifndef PULMO_INFER_PLAN_H
#define PULMO_INFER_PLAN_H

#include "pulmo.h"

#define PLAN_ALIGNMENT 64 /* a cache line, and what AVX-512 likes */

struct plan_buffer {
    size_t size;
    int first, last; /* steps, inclusive; first > last = never used */
    size_t offset;   /* set by the plan */
};

struct plan_figures {
    size_t arena;    /* bytes planned */
    size_t least;    /* greatest sum of buffers alive in one step: no plan can do with less */
    size_t separate; /* sum of all buffers: what it would cost without the plan */
};

/* Big buffers first, each at the lowest offset that is free in all its steps. O(count^2 log count). */
bool infer_plan_memory(struct plan_buffer *buffers, int count, struct plan_figures *out,
                       struct err *err) PULMO_MUST_USE;

#endif
