#include "infer/plan.h"

#include <stdlib.h>

static size_t aligned(size_t size) {
    return (size + PLAN_ALIGNMENT - 1) / PLAN_ALIGNMENT * PLAN_ALIGNMENT;
}

/* Bigger first; equal ones by their first step, so that the plan never depends on the sort's mood. */
static int by_size(const void *left, const void *right) {
    const struct plan_buffer *a = *(struct plan_buffer *const *)left, *b = *(struct plan_buffer *const *)right;
    if (a->size != b->size)
        return a->size > b->size ? -1 : 1;
    if (a->first != b->first)
        return a->first < b->first ? -1 : 1;
    return a < b ? -1 : a > b;
}

static int by_offset(const void *left, const void *right) {
    const struct plan_buffer *a = *(struct plan_buffer *const *)left, *b = *(struct plan_buffer *const *)right;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static bool alive_together(const struct plan_buffer *a, const struct plan_buffer *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* Lowest offset that misses every placed neighbour in time. */
static void place(struct plan_buffer *buffer, struct plan_buffer **placed, int placed_count,
                  struct plan_buffer **neighbours) {
    int count = 0;
    for (int i = 0; i < placed_count; i++)
        if (alive_together(buffer, placed[i]))
            neighbours[count++] = placed[i];
    qsort(neighbours, (size_t)count, sizeof *neighbours, by_offset);
    size_t offset = 0;
    for (int i = 0; i < count; i++) {
        if (offset + aligned(buffer->size) <= neighbours[i]->offset)
            break;
        size_t end = neighbours[i]->offset + aligned(neighbours[i]->size);
        offset = end > offset ? end : offset;
    }
    buffer->offset = offset;
}

static size_t greatest_alive(struct plan_buffer *const *used, int count) {
    size_t greatest = 0;
    for (int i = 0; i < count; i++) { /* the sum is greatest in a step where some buffer begins */
        size_t alive = 0;
        for (int k = 0; k < count; k++)
            if (used[k]->first <= used[i]->first && used[i]->first <= used[k]->last)
                alive += aligned(used[k]->size);
        greatest = alive > greatest ? alive : greatest;
    }
    return greatest;
}

bool infer_plan_memory(struct plan_buffer *buffers, int count, struct plan_figures *out, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct plan_buffer **order = pulmo_alloc((size_t)count, sizeof(void *), err);
    PULMO_SCOPED(pulmo_free_at) struct plan_buffer **neighbours = pulmo_alloc((size_t)count, sizeof(void *), err);
    if (!order || !neighbours)
        return false;
    struct plan_figures figures = {0};
    int used = 0;
    for (int i = 0; i < count; i++) {
        if (buffers[i].first > buffers[i].last)
            continue;
        if (__builtin_add_overflow(figures.separate, aligned(buffers[i].size), &figures.separate))
            return err_set(err, ERR_LIMIT, "the graph's buffers overflow");
        order[used++] = &buffers[i];
    }
    qsort(order, (size_t)used, sizeof(void *), by_size);
    for (int i = 0; i < used; i++) {
        place(order[i], order, i, neighbours);
        size_t end = order[i]->offset + aligned(order[i]->size);
        figures.arena = end > figures.arena ? end : figures.arena;
    }
    figures.least = greatest_alive(order, used);
    *out = figures;
    return true;
}
