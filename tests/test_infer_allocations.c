/* No allocation behind the plan: what a run asks the allocator for is counted, and by whom.
 *
 * This program's malloc stands in front of the C library's for itself and every library that it loads; a sanitizer has
 * its own, which tells us by a hook. oneDNN 2.6 makes a table of arguments for each primitive that it runs, and its
 * matrix product a panel of 16 KiB; there is no way to hand it either. They are counted apart, must be small, and must
 * all be gone when the run is over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "infer/model.h"
#include "infer/program.h"

#define LIBRARY_BYTES_MAX 65536 /* of one of oneDNN's allocations */

/* volatile: a compiler takes it that malloc reads and writes nothing of ours. */
static volatile struct {
    bool on;
    long ours, theirs, freed;
    size_t greatest;
    const void *base; /* where this program is loaded */
} counted;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED
/* The hook does not say who asked: everything counts as the library's, and only sizes and balance are judged. */
extern int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                                     void (*on_free)(const volatile void *));

static void on_malloc(const volatile void *data, size_t size) {
    (void)data;
    counted.theirs += counted.on;
    if (counted.on && size > counted.greatest)
        counted.greatest = size;
}

static void on_free(const volatile void *data) {
    counted.freed += counted.on && data;
}

static int counting_begin(void **state) {
    (void)state;
    return __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0 ? 0 : -1;
}
#else
static void count(size_t size, const void *caller) {
    Dl_info info;
    if (!counted.on)
        return;
    counted.on = false; /* dladdr may allocate */
    bool ours = dladdr(caller, &info) && info.dli_fbase == counted.base;
    counted.on = true;
    counted.ours += ours;
    counted.theirs += !ours;
    counted.greatest = size > counted.greatest ? size : counted.greatest;
}

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t items, size_t size);
extern void *__libc_realloc(void *data, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *data);

void *malloc(size_t size) {
    count(size, __builtin_return_address(0));
    return __libc_malloc(size);
}

void *calloc(size_t items, size_t size) {
    count(items * size, __builtin_return_address(0));
    return __libc_calloc(items, size);
}

void *realloc(void *data, size_t size) {
    counted.freed += counted.on && data;
    count(size, __builtin_return_address(0));
    return __libc_realloc(data, size);
}

void *memalign(size_t alignment, size_t size) {
    count(size, __builtin_return_address(0));
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    count(size, __builtin_return_address(0));
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    count(size, __builtin_return_address(0));
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}

void free(void *data) {
    counted.freed += counted.on && data;
    __libc_free(data);
}

static int counting_begin(void **state) {
    (void)state;
    Dl_info info;
    void *(*own)(size_t) = malloc;
    const void *at = NULL;
    memcpy(&at, &own, sizeof at);
    counted.base = dladdr(at, &info) ? info.dli_fbase : NULL;
    return counted.base ? 0 : -1;
}
#endif

/* Through pointers, or the compiler leaves out what it knows to be without effect. */
static void *(*volatile ask)(size_t) = malloc;
static void (*volatile give_back)(void *) = free;

static void the_counter_counts(void **state) {
    (void)state;
    counted.on = true;
    give_back(ask(100));
    counted.on = false;
    assert_int_equal(counted.ours + counted.theirs, 1);
    assert_int_equal(counted.freed, 1);
    assert_int_equal(counted.greatest, 100);
#ifndef SANITIZED
    assert_int_equal(counted.ours, 1);
#endif
}

static void run_counted(const struct graph *graph, const struct shape *inputs, const struct dropout_keys *keys) {
    struct err err = {0};
    struct program *program = infer_program_new(graph, inputs, false, &err);
    struct runner *runner = program ? infer_runner_new(program, &err) : NULL;
    if (!runner)
        fail_msg("%s", err.text);
    for (int round = 0; round < 3; round++) {
        for (int input = 0; input < graph->input_count; input++)
            memset(infer_runner_input(runner, input), 0, (size_t)infer_shape_count(&inputs[input]) * sizeof(float));
        counted.ours = counted.theirs = counted.freed = 0;
        counted.greatest = 0;
        counted.on = round > 0; /* the first run may load what the library puts off */
        bool good = infer_runner_run(runner, keys, &err);
        counted.on = false;
        assert_true(good);
    }
    int primitives = infer_program_figures(program)->primitives + infer_program_figures(program)->reorders;
    print_message("%d nodes, %d primitives: ours %ld, the library's %ld, freed %ld, greatest %zu bytes\n",
                  graph->node_count, primitives, counted.ours, counted.theirs, counted.freed, counted.greatest);
    assert_int_equal(counted.ours, 0);
    assert_int_equal(counted.theirs, counted.freed);
    assert_true(counted.greatest <= LIBRARY_BYTES_MAX);
    if (primitives == 0)
        assert_int_equal(counted.theirs, 0);
    infer_runner_free(runner);
    infer_program_free(program);
}

static void a_run_allocates_nothing(void **state) {
    (void)state;
    struct err err = {0};
    struct infer_model *model = infer_model_open("models/model.json", &err);
    if (!model)
        fail_msg("%s", err.text);
    const struct shape tile = {.rank = 5, .dims = {1, 1, 64, 64, 64}};
    const struct shape crop = {.rank = 5, .dims = {1, 1, model->side, model->side, model->side}};
    run_counted(model->detector, &tile, NULL);
    run_counted(model->trunk, &crop, NULL);
    if (model->tail) {
        struct shape inputs[GRAPH_PORTS_MAX];
        PULMO_SCOPED(pulmo_free_at)
        struct tensor *tensors = pulmo_alloc((size_t)model->trunk->value_count, sizeof *tensors, &err);
        assert_true(tensors && infer_graph_shapes(model->trunk, &crop, tensors, &err));
        for (int input = 0; input < model->tail->input_count; input++) {
            inputs[input] = tensors[model->trunk->outputs[model->tail_sources[input]]].shape;
            inputs[input].dims[0] = 30;
        }
        const struct dropout_keys keys = {.active = true, .seed = 1, .rate = -1};
        run_counted(model->tail, inputs, &keys);
    }
    infer_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_counter_counts), cmocka_unit_test(a_run_allocates_nothing)};
    return cmocka_run_group_tests(tests, counting_begin, NULL);
}
