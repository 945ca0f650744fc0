/* The CPU back-end: running programs. */
#include "infer/backend_cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "infer/precision.h"

/* Of libgomp, which libdnnl is linked to; <omp.h> belongs to each compiler's own OpenMP. */
extern int omp_get_max_threads(void);
extern void omp_set_num_threads(int count);

int infer_backend_enter(void) {
    int before = omp_get_max_threads();
    omp_set_num_threads(1);
    return before;
}

void infer_backend_leave(int before) {
    omp_set_num_threads(before);
}

bool infer_backend_ok(dnnl_status_t status, const char *what, struct err *err) {
    if (status == dnnl_success)
        return true;
    enum err_kind kind = status == dnnl_out_of_memory   ? ERR_MEMORY
                         : status == dnnl_unimplemented ? ERR_UNSUPPORTED
                                                        : ERR_INTERNAL;
    return err_set(err, kind, "oneDNN refused %s (status %d)", what, (int)status);
}

dnnl_memory_desc_t infer_backend_plain(const struct shape *shape) {
    dnnl_memory_desc_t desc = {0};
    dnnl_dims_t dims = {1}, strides = {1};
    int rank = shape->rank ? shape->rank : 1;
    int64_t step = 1;
    for (int axis = shape->rank - 1; axis >= 0; axis--) {
        dims[axis] = shape->dims[axis];
        strides[axis] = step;
        step *= shape->dims[axis];
    }
    dnnl_memory_desc_init_by_strides(&desc, rank, dims, dnnl_f32,
                                     strides); /* cannot fail: rank and sides are checked */
    return desc;
}

dnnl_memory_desc_t infer_backend_any(const struct shape *shape) {
    dnnl_memory_desc_t desc = {0};
    dnnl_dims_t dims = {0};
    memcpy(dims, shape->dims, sizeof shape->dims);
    dnnl_memory_desc_init_by_tag(&desc, shape->rank, dims, dnnl_f32, dnnl_format_tag_any); /* cannot fail, as above */
    return desc;
}

/* int8_weight_max: 0 = no such kernels; bf16: whether it multiplies in it, where oneDNN would emulate it otherwise. */
static const struct isa {
    dnnl_cpu_isa_t isa;
    const char *name;
    int int8_weight_max;
    bool bf16;
} isas[] = {
    {dnnl_cpu_isa_sse41, "sse41", 0, false},
    {dnnl_cpu_isa_avx, "avx", 0, false},
    {dnnl_cpu_isa_avx2, "avx2", PRECISION_WEIGHT_MAX_NARROW, false},
    {dnnl_cpu_isa_avx2_vnni, "avx2_vnni", PRECISION_WEIGHT_MAX, false},
    {dnnl_cpu_isa_avx512_core, "avx512_core", PRECISION_WEIGHT_MAX_NARROW, false},
    {dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni", PRECISION_WEIGHT_MAX, false},
    {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16", PRECISION_WEIGHT_MAX, true},
    {dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx", PRECISION_WEIGHT_MAX, true},
};
#define ISA_COUNT (sizeof isas / sizeof *isas)

const char *infer_backend_instruction_set(void) {
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    for (size_t index = 0; index < ISA_COUNT; index++)
        if (isas[index].isa == isa)
            return isas[index].name;
    return "other";
}

bool infer_backend_offers(char letter, int *weight_max) {
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    *weight_max = 0;
    for (size_t index = 0; index < ISA_COUNT; index++) {
        if (isas[index].isa != isa)
            continue;
        *weight_max = isas[index].int8_weight_max;
        return letter == PRECISION_BF16 ? isas[index].bf16 : letter == PRECISION_FP32 || *weight_max > 0;
    }
    return letter == PRECISION_FP32;
}

const char *infer_backend_library(void) {
    static _Thread_local char text[64];
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, sizeof text, "oneDNN %d.%d.%d + winograd %d", version->major, version->minor, version->patch,
             WINOGRAD_VERSION);
    return text;
}

/* Both parts are constants of the process. */
const char *infer_backend_text(void) {
    static _Thread_local char text[128];
    snprintf(text, sizeof text, "%s, %s", infer_backend_library(), infer_backend_instruction_set());
    return text;
}

bool infer_backend_limit(const char *instruction_set, struct err *err) {
    if (getenv("ONEDNN_MAX_CPU_ISA") || getenv("DNNL_MAX_CPU_ISA"))
        return true;
    for (size_t index = 0; index < ISA_COUNT; index++)
        if (strcmp(isas[index].name, instruction_set) == 0)
            return dnnl_set_max_cpu_isa(isas[index].isa) == dnnl_success ||
                   err_set(err, ERR_CONFLICT, "the instruction set is in use already");
    return err_set(err, ERR_INPUT, "%s is no instruction set that oneDNN could be limited to", instruction_set);
}

/* ---- reorder, outside a run ----------------------------------------------------------------------------- */

static void primitive_desc_destroy_at(dnnl_primitive_desc_t *desc) {
    if (*desc)
        dnnl_primitive_desc_destroy(*desc);
}

static void primitive_destroy_at(dnnl_primitive_t *primitive) {
    if (*primitive)
        dnnl_primitive_destroy(*primitive);
}

static void memory_destroy_at(dnnl_memory_t *memory) {
    if (*memory)
        dnnl_memory_destroy(*memory);
}

static void stream_destroy_at(dnnl_stream_t *stream) {
    if (*stream)
        dnnl_stream_destroy(*stream);
}

static bool execute_once(dnnl_engine_t engine, dnnl_primitive_t primitive, const dnnl_exec_arg_t *arguments, int count,
                         struct err *err) {
    PULMO_SCOPED(stream_destroy_at) dnnl_stream_t stream = NULL;
    return infer_backend_ok(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "a stream", err) &&
           infer_backend_ok(dnnl_primitive_execute(primitive, stream, count, arguments), "a run", err) &&
           infer_backend_ok(dnnl_stream_wait(stream), "a run", err);
}

bool infer_backend_reorder(dnnl_engine_t engine, const dnnl_memory_desc_t *from_desc, const void *from,
                           const dnnl_memory_desc_t *to_desc, void *to, struct err *err) {
    PULMO_SCOPED(primitive_desc_destroy_at) dnnl_primitive_desc_t desc = NULL;
    PULMO_SCOPED(primitive_destroy_at) dnnl_primitive_t primitive = NULL;
    PULMO_SCOPED(memory_destroy_at) dnnl_memory_t source = NULL;
    PULMO_SCOPED(memory_destroy_at) dnnl_memory_t target = NULL;
    void *readable = NULL;
    memcpy(&readable, &from, sizeof readable); /* oneDNN takes what it only reads as void * too */
    if (!infer_backend_ok(dnnl_reorder_primitive_desc_create(&desc, from_desc, engine, to_desc, engine, NULL),
                          "a reorder", err) ||
        !infer_backend_ok(dnnl_primitive_create(&primitive, desc), "a reorder", err) ||
        !infer_backend_ok(dnnl_memory_create(&source, from_desc, engine, readable), "memory", err) ||
        !infer_backend_ok(dnnl_memory_create(&target, to_desc, engine, to), "memory", err))
        return false;
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, target}};
    return execute_once(engine, primitive, arguments, 2, err);
}

/* ---- program -------------------------------------------------------------------------------------------- */

void infer_program_free(struct program *program) {
    if (!program)
        return;
    for (int i = 0; i < program->step_count; i++) {
        if (program->steps[i].primitive)
            dnnl_primitive_destroy(program->steps[i].primitive);
        free(program->steps[i].winograd);
        free(program->steps[i].arguments);
    }
    for (int i = 0; i < program->weight_count; i++)
        if (program->weights[i].owned)
            free(program->weights[i].data);
    for (int i = 0; program->backward && i < program->graph->node_count; i++)
        free(program->backward[i]);
    if (program->engine)
        dnnl_engine_destroy(program->engine);
    free(program->backward);
    free(program->weights);
    free(program->steps);
    free(program->buffers);
    free(program->regions);
    free(program->tensors);
    free(program);
}

void infer_program_free_at(struct program **program) {
    infer_program_free(*program);
}

const struct graph *infer_program_graph(const struct program *program) {
    return program->graph;
}

const struct shape *infer_program_shape(const struct program *program, int value) {
    return &program->tensors[value].shape;
}

int infer_program_steps(const struct program *program) {
    return program->step_count;
}

const struct graph_node *infer_program_step_node(const struct program *program, int step) {
    const struct graph_node *node = program->steps[step].node;
    return node->name ? node : NULL;
}

int64_t infer_program_step_convolves(const struct program *program, int index) {
    const struct step *step = &program->steps[index];
    const_dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_kind_t kind = dnnl_undefined_primitive;
    if (step->winograd)
        return infer_shape_count(&program->tensors[step->node->outputs[0]].shape);
    if (!step->primitive || dnnl_primitive_get_primitive_desc(step->primitive, &desc) != dnnl_success ||
        dnnl_primitive_desc_query(desc, dnnl_query_primitive_kind, 0, &kind) != dnnl_success ||
        kind != dnnl_convolution)
        return 0;
    const dnnl_memory_desc_t *out = dnnl_primitive_desc_query_md(desc, dnnl_query_dst_md, 0);
    int64_t count = 1;
    for (int axis = 0; axis < out->ndims; axis++)
        count *= out->dims[axis];
    return count;
}

const struct program_figures *infer_program_figures(const struct program *program) {
    return &program->figures;
}

/* ---- runner --------------------------------------------------------------------------------------------- */

struct bound_step { /* a step with its pointers into one arena */
    dnnl_exec_arg_t *arguments;
    int argument_count;
    struct operation_call call;
    struct winograd_call winograd;
};

struct runner {
    const struct program *program;
    char *arena; /* aligned to PLAN_ALIGNMENT */
    dnnl_stream_t stream;
    struct bound_step *steps;
    double saturated; /* of the last run */
};

void infer_runner_free(struct runner *runner) {
    if (!runner)
        return;
    for (int i = 0; runner->steps && i < runner->program->step_count; i++) {
        for (int k = 0; k < runner->steps[i].argument_count; k++)
            dnnl_memory_destroy(runner->steps[i].arguments[k].memory);
        free(runner->steps[i].arguments);
    }
    if (runner->stream)
        dnnl_stream_destroy(runner->stream);
    free(runner->steps);
    free(runner->arena);
    free(runner);
}

void infer_runner_free_at(struct runner **runner) {
    infer_runner_free(*runner);
}

static void *region_data(const struct runner *runner, const struct region *region) {
    void *data = NULL;
    if (region->buffer >= 0)
        return runner->arena + runner->program->buffers[region->buffer].offset + region->offset;
    memcpy(&data, &region->fixed, sizeof data); /* weights, which oneDNN only reads */
    return data;
}

static void *buffer_data(const struct runner *runner, int buffer) {
    return buffer < 0 ? NULL : runner->arena + runner->program->buffers[buffer].offset;
}

static bool step_bind(struct runner *runner, const struct step *step, struct bound_step *out, struct err *err) {
    void *data[STEP_ARGUMENTS_MAX];
    out->arguments = pulmo_alloc((size_t)step->argument_count, sizeof *out->arguments, err);
    if (!out->arguments)
        return false;
    for (; out->argument_count < step->argument_count; out->argument_count++) {
        const struct argument *argument = &step->arguments[out->argument_count];
        dnnl_exec_arg_t *bound = &out->arguments[out->argument_count];
        bound->arg = argument->role;
        data[out->argument_count] = region_data(runner, &argument->region);
        if (!infer_backend_ok(dnnl_memory_create(&bound->memory, &argument->region.desc, runner->program->engine,
                                                 data[out->argument_count]),
                              "memory", err))
            return false;
    }
    if (step->winograd)
        infer_winograd_bind(step, data, &out->winograd);
    if (step->primitive || step->winograd)
        return true;
    out->call = step->call;
    for (int k = 0; k < step->node->input_count; k++)
        if (step->in_buffers[k] >= 0)
            out->call.in[k].data = buffer_data(runner, step->in_buffers[k]);
    for (int k = 0; k < step->node->output_count; k++)
        out->call.out[k].data = buffer_data(runner, step->out_buffers[k]);
    out->call.scratch = buffer_data(runner, step->scratch_buffer);
    return true;
}

struct runner *infer_runner_new(const struct program *program, struct err *err) {
    PULMO_SCOPED(infer_runner_free_at) struct runner *runner = pulmo_alloc(1, sizeof *runner, err);
    if (!runner)
        return NULL;
    runner->program = program;
    size_t size = program->figures.memory.arena + PLAN_ALIGNMENT;
    if (size > PULMO_ALLOC_MAX) {
        err_set(err, ERR_LIMIT, "an arena of %zu bytes", size);
        return NULL;
    }
    runner->arena = aligned_alloc(PLAN_ALIGNMENT, size / PLAN_ALIGNMENT * PLAN_ALIGNMENT);
    if (!runner->arena) {
        err_set(err, ERR_MEMORY, "out of memory for an arena of %zu bytes", size);
        return NULL;
    }
    runner->steps = pulmo_alloc((size_t)program->step_count, sizeof *runner->steps, err);
    if (!runner->steps ||
        !infer_backend_ok(dnnl_stream_create(&runner->stream, program->engine, dnnl_stream_default_flags), "a stream",
                          err))
        return NULL;
    for (int i = 0; i < program->step_count; i++)
        if (!step_bind(runner, &program->steps[i], &runner->steps[i], err))
            return NULL;
    struct runner *result = runner;
    runner = NULL;
    return result;
}

const struct program *infer_runner_program(const struct runner *runner) {
    return runner->program;
}

float *infer_runner_input(struct runner *runner, int index) {
    return region_data(runner, &runner->program->regions[runner->program->graph->inputs[index]]);
}

const float *infer_runner_output(const struct runner *runner, int index) {
    return region_data(runner, &runner->program->outputs[index]);
}

/* All exponent bits set = infinity or NaN (IEEE 754): one more there carries into the bit of the sign. */
bool infer_backend_finite(const void *data, size_t size) {
    const uint32_t *bits = data;
    uint32_t bad = 0;
    for (size_t i = 0; i < size / sizeof *bits; i++)
        bad |= (bits[i] & 0x7FFFFFFFU) + 0x00800000U;
    return bad < 0x80000000U;
}

static void relu_in_place(const struct tensor *tensor) {
    float *data = tensor->data;
    int64_t count = infer_shape_count(&tensor->shape);
    for (int64_t n = 0; n < count; n++)
        data[n] = data[n] < 0 ? 0 : data[n]; /* NaN stays, for the finite check */
}

static bool finite_halves(const void *data, size_t size) {
    const uint16_t *bits = data;
    unsigned bad = 0;
    for (size_t i = 0; i < size / sizeof *bits; i++)
        bad |= (bits[i] & 0x7F80U) == 0x7F80U; /* bfloat16 has the exponent of a float */
    return bad == 0;
}

/* Elements at the end of the range. */
static size_t saturated_count(const uint8_t *data, size_t size) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++)
        count += data[i] == 255;
    return count;
}

static bool not_finite(const struct step *step, struct err *err) {
    return err_set(err, ERR_INPUT, "layer %.120s (%s) gave NaN or infinity", step->node->name,
                   step->node->operation->name);
}

static bool result_check(struct runner *runner, const struct step *step, int which, struct err *err) {
    const struct checked *checked = &step->checked[which];
    const char *data = (const char *)buffer_data(runner, checked->buffer) + checked->offset;
    if (checked->type == dnnl_u8) {
        double share = (double)saturated_count((const uint8_t *)data, checked->size) / (double)checked->size;
        runner->saturated = share > runner->saturated ? share : runner->saturated;
        return true;
    }
    return (checked->type == dnnl_bf16 ? finite_halves(data, checked->size)
                                       : infer_backend_finite(data, checked->size)) ||
           not_finite(step, err);
}

static bool step_run(struct runner *runner, int index, const struct dropout_keys *dropout, struct err *err) {
    const struct step *step = &runner->program->steps[index];
    struct bound_step *bound = &runner->steps[index];
    if (step->primitive) {
        if (!infer_backend_ok(
                dnnl_primitive_execute(step->primitive, runner->stream, bound->argument_count, bound->arguments),
                "a run", err))
            return false;
    } else if (step->winograd) {
        if (!infer_winograd_run(step->winograd, &bound->winograd))
            return not_finite(step, err);
    } else {
        bound->call.dropout = dropout;
        step->node->operation->run(&bound->call);
        if (step->node->relu)
            relu_in_place(&bound->call.out[0]);
    }
    for (int i = 0; i < step->checked_count; i++)
        if (!result_check(runner, step, i, err))
            return false;
    return true;
}

bool infer_runner_run(struct runner *runner, const struct dropout_keys *dropout, struct err *err) {
    int before = infer_backend_enter();
    bool good = true;
    runner->saturated = 0;
    for (int i = 0; good && i < runner->program->step_count; i++)
        good = step_run(runner, i, dropout, err);
    infer_backend_leave(before);
    return good;
}

/* What else runs on the machine does not show in it. */
static uint64_t processor_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

double infer_runner_saturated(const struct runner *runner) {
    return runner->saturated;
}

bool infer_runner_time(struct runner *runner, const struct dropout_keys *dropout, uint64_t *step_ns, struct err *err) {
    int before = infer_backend_enter();
    bool good = true;
    uint64_t mark = processor_ns();
    runner->saturated = 0;
    for (int i = 0; good && i < runner->program->step_count; i++) {
        good = step_run(runner, i, dropout, err);
        uint64_t now = processor_ns();
        step_ns[i] += now - mark;
        mark = now;
    }
    infer_backend_leave(before);
    return good;
}

bool infer_runner_read(const struct runner *runner, int value, float *out, struct err *err) {
    const struct region *region = &runner->program->regions[value];
    dnnl_memory_desc_t plain = infer_backend_plain(&runner->program->tensors[value].shape);
    if (!runner->program->keep)
        return err_set(err, ERR_INTERNAL, "the program does not keep its activations");
    if (runner->program->tensors[value].element == ELEMENT_BOOL) {
        const uint8_t *bytes = region_data(runner, region);
        for (int64_t n = 0; n < infer_shape_count(&runner->program->tensors[value].shape); n++)
            out[n] = bytes[n] != 0;
        return true;
    }
    int before = infer_backend_enter();
    bool good =
        infer_backend_reorder(runner->program->engine, &region->desc, region_data(runner, region), &plain, out, err);
    infer_backend_leave(before);
    return good;
}

/* ---- gradient of a convolution -------------------------------------------------------------------------- */

struct backward { /* one backward_data primitive and its memories in oneDNN's own layouts */
    dnnl_primitive_desc_t forward, desc;
    dnnl_primitive_t primitive;
    void *memory[4]; /* diff_src, weights, diff_dst, scratchpad */
    dnnl_memory_desc_t layout[4];
    dnnl_memory_t bound[4];
};

static void backward_clear(struct backward *b) {
    for (int i = 0; i < 4; i++) {
        memory_destroy_at(&b->bound[i]);
        free(b->memory[i]);
    }
    primitive_destroy_at(&b->primitive);
    primitive_desc_destroy_at(&b->desc);
    primitive_desc_destroy_at(&b->forward);
}

static bool backward_create(const struct program *program, const struct graph_node *node, struct backward *b,
                            struct err *err) {
    dnnl_memory_desc_t any[3];
    int values[] = {node->inputs[0], node->inputs[1], node->outputs[0]};
    for (int i = 0; i < 3; i++)
        any[i] = infer_backend_any(&program->tensors[values[i]].shape);
    struct window_dims w;
    dnnl_convolution_desc_t forward, backward;
    if (!infer_backend_window(program, node, &w, err))
        return false;
    return infer_backend_ok(dnnl_dilated_convolution_forward_desc_init(
                                &forward, dnnl_forward_training, dnnl_convolution_direct, &any[0], &any[1], NULL,
                                &any[2], w.stride, w.dilation, w.before, w.after),
                            "a convolution", err) &&
           infer_backend_ok(dnnl_primitive_desc_create(&b->forward, &forward, NULL, program->engine, NULL),
                            "a convolution", err) &&
           infer_backend_ok(dnnl_dilated_convolution_backward_data_desc_init(&backward, dnnl_convolution_direct,
                                                                             &any[0], &any[1], &any[2], w.stride,
                                                                             w.dilation, w.before, w.after),
                            "a gradient", err) &&
           infer_backend_ok(dnnl_primitive_desc_create(&b->desc, &backward, NULL, program->engine, b->forward),
                            "a gradient", err) &&
           infer_backend_ok(dnnl_primitive_create(&b->primitive, b->desc), "a gradient", err);
}

static bool backward_allocate(const struct program *program, struct backward *b, struct err *err) {
    static const dnnl_query_t queries[] = {dnnl_query_diff_src_md, dnnl_query_weights_md, dnnl_query_diff_dst_md};
    for (int i = 0; i < 3; i++) {
        b->layout[i] = *dnnl_primitive_desc_query_md(b->desc, queries[i], 0);
        b->memory[i] = pulmo_alloc(dnnl_memory_desc_get_size(&b->layout[i]), 1, err);
        if (!b->memory[i] ||
            !infer_backend_ok(dnnl_memory_create(&b->bound[i], &b->layout[i], program->engine, b->memory[i]), "memory",
                              err))
            return false;
    }
    return true;
}

static bool backward_run(const struct program *program, const struct graph_node *node, struct backward *b,
                         const float *gradient_out, float *gradient_in, struct err *err) {
    const struct tensor *weights = &program->graph->values[node->inputs[1]].tensor;
    dnnl_memory_desc_t plain_weights = infer_backend_plain(&weights->shape);
    dnnl_memory_desc_t plain_out = infer_backend_plain(&program->tensors[node->outputs[0]].shape);
    dnnl_memory_desc_t plain_in = infer_backend_plain(&program->tensors[node->inputs[0]].shape);
    dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_DIFF_SRC, b->bound[0]}, {DNNL_ARG_WEIGHTS, b->bound[1]}, {DNNL_ARG_DIFF_DST, b->bound[2]}};
    dnnl_engine_t engine = program->engine;
    return infer_backend_reorder(engine, &plain_weights, weights->data, &b->layout[1], b->memory[1], err) &&
           infer_backend_reorder(engine, &plain_out, gradient_out, &b->layout[2], b->memory[2], err) &&
           execute_once(engine, b->primitive, arguments, 3, err) &&
           infer_backend_reorder(engine, &b->layout[0], b->memory[0], &plain_in, gradient_in, err);
}

bool infer_conv_backward(const struct program *program, const struct graph_node *node, const float *gradient_out,
                         float *gradient_in, struct err *err) {
    struct backward backward = {0};
    bool taken = false;
    int before = infer_backend_enter();
    bool good = infer_winograd_backward(program, node, gradient_out, gradient_in, &taken, err);
    if (good && !taken)
        good = backward_create(program, node, &backward, err) && backward_allocate(program, &backward, err) &&
               backward_run(program, node, &backward, gradient_out, gradient_in, err);
    backward_clear(&backward);
    infer_backend_leave(before);
    return good;
}
