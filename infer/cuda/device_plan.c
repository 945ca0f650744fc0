#include "infer/cuda/device_plan.h"

#include "infer/cuda/element.h"

#include <string.h>

const struct device_tensor *device_plan_tensors(const struct device_plan *plan) {
    return (const struct device_tensor *)(const void *)(plan + 1);
}

const struct device_step *device_plan_steps(const struct device_plan *plan) {
    return (const struct device_step *)(const void *)(device_plan_tensors(plan) + plan->tensor_count);
}

const void *device_plan_constants(const struct device_plan *plan) {
    return (const char *)plan + plan->constants_offset;
}

size_t device_element_size(int32_t element) {
    return element == DEVICE_F16 ? 2 : 4;
}

int64_t device_tensor_count(const struct device_tensor *tensor) {
    int64_t count = 1;
    for (int axis = 0; axis < tensor->rank; axis++)
        count *= tensor->dims[axis];
    return count;
}

double device_step_operations(const struct device_plan *plan, int index) {
    const struct device_step *step = &device_plan_steps(plan)[index];
    const struct device_tensor *tensors = device_plan_tensors(plan);
    if (step->kind != DEVICE_CONV && step->kind != DEVICE_PRODUCT)
        return 0;
    double results = (double)device_tensor_count(&tensors[step->outputs[0]]);
    if (step->kind == DEVICE_PRODUCT)
        return 2 * results * (double)step->numbers[1];
    const struct device_tensor *weights = &tensors[step->inputs[1]];
    return 2 * results * (double)(device_tensor_count(weights) / weights->dims[0]);
}

struct device_call device_call_of(const struct device_plan *plan, int index, void *arena, const void *constants,
                                  const struct device_keys *keys) {
    struct device_call call;
    const struct device_tensor *tensors = device_plan_tensors(plan);
    memset(&call, 0, sizeof call);
    call.step = device_plan_steps(plan)[index];
    call.keys = keys;
    for (int k = 0; k < DEVICE_INPUTS_MAX; k++) {
        if (call.step.inputs[k] < 0)
            continue;
        call.in[k] = tensors[call.step.inputs[k]];
        call.in_data[k] = (call.in[k].constant ? (const char *)constants : (const char *)arena) + call.in[k].offset;
    }
    for (int k = 0; k < DEVICE_OUTPUTS_MAX; k++) {
        if (call.step.outputs[k] < 0)
            continue;
        call.out[k] = tensors[call.step.outputs[k]];
        call.out_data[k] = (char *)arena + call.out[k].offset;
    }
    return call;
}

uint64_t device_plan_fingerprint(const struct device_plan *plan) {
    const uint8_t *byte = (const uint8_t *)plan;
    uint64_t hash = 0xCBF29CE484222325ULL;
    for (int64_t n = 0; n < plan->total_size; n++)
        hash = (hash ^ byte[n]) * 0x100000001B3ULL;
    return hash;
}

/* ---- check --------------------------------------------------------------------------------------------------- */

#define ELEMENTS_MAX ((int64_t)1 << 31) /* positions are counted in 32 bits on the device */

static bool tensor_check(const struct device_plan *plan, int index, struct err *err) {
    const struct device_tensor *tensor = &device_plan_tensors(plan)[index];
    int64_t count = 1, room = tensor->constant ? plan->constants_size : plan->arena_size;
    bool good = tensor->rank >= 0 && tensor->rank <= DEVICE_RANK_MAX && (tensor->element | 1) == 1 &&
                (tensor->layout == DEVICE_PLAIN || (tensor->layout == DEVICE_CHANNELS_LAST && tensor->rank == 5));
    for (int axis = 0; good && axis < tensor->rank; axis++)
        good =
            tensor->dims[axis] > 0 && tensor->dims[axis] < ELEMENTS_MAX && (count *= tensor->dims[axis]) < ELEMENTS_MAX;
    good = good && tensor->size == count * (int64_t)device_element_size(tensor->element) && tensor->offset >= 0 &&
           tensor->offset % DEVICE_ALIGNMENT == 0 && tensor->size <= room && tensor->offset <= room - tensor->size;
    return good || err_set(err, ERR_INPUT, "tensor %d of the device plan is malformed", index);
}

static bool in_range(int32_t index, int32_t count, bool may_miss) {
    return index < count && index >= (may_miss ? -1 : 0);
}

/* The least and the greatest element that strides reach must lie in the operand. */
static bool strides_fit(const struct device_tensor *out, const struct device_tensor *in, int64_t start,
                        const int64_t *strides) {
    int64_t low = start, high = start, limit = device_tensor_count(in);
    for (int axis = 0; axis < out->rank; axis++) {
        if (strides[axis] <= -ELEMENTS_MAX || strides[axis] >= ELEMENTS_MAX)
            return false;
        int64_t reach = strides[axis] * (out->dims[axis] - 1);
        low += reach < 0 ? reach : 0;
        high += reach > 0 ? reach : 0;
    }
    return low >= 0 && high < limit;
}

static bool window_fits(const struct device_step *step, const struct device_tensor *in,
                        const struct device_tensor *out) {
    if (in->rank != 5 || out->rank != 5 || in->dims[0] != out->dims[0])
        return false;
    for (int i = 0; i < 12; i++)
        if (step->numbers[i] < (i < 3 || (i >= 6 && i < 9) ? 1 : 0) || step->numbers[i] > 64)
            return false;
    return true;
}

static bool conv_fits(const struct device_step *step, const struct device_tensor *const in[],
                      const struct device_tensor *out) {
    const struct device_tensor *weights = in[1];
    return weights && in[2] && window_fits(step, in[0], out) && weights->rank == 5 && weights->constant &&
           weights->layout == DEVICE_CHANNELS_LAST && in[2]->constant && in[2]->element == DEVICE_F32 &&
           weights->dims[0] == out->dims[1] && weights->dims[1] == in[0]->dims[1] &&
           device_tensor_count(in[2]) == out->dims[1] &&
           (!in[3] || device_tensor_count(in[3]) == device_tensor_count(out));
}

static bool concat_fits(const struct device_tensor *const in[], const struct device_tensor *out) {
    int64_t channels = 0;
    for (int k = 0; k < DEVICE_INPUTS_MAX; k++) {
        if (!in[k])
            continue;
        channels += in[k]->rank == 5 ? in[k]->dims[1] : ELEMENTS_MAX;
        for (int axis = 0; axis < 5; axis++)
            if (axis != 1 && in[k]->dims[axis] != out->dims[axis])
                return false;
    }
    return out->rank == 5 && channels == out->dims[1];
}

static bool positive(const int64_t *numbers, int count) {
    for (int i = 0; i < count; i++)
        if (numbers[i] < 1 || numbers[i] >= ELEMENTS_MAX)
            return false;
    return true;
}

static bool product_fits(const struct device_step *step, const struct device_tensor *const in[], int64_t results) {
    const int64_t *n = step->numbers;
    if (!in[1] || !positive(n, 3) || n[3] < 0 || n[4] < 0 || n[3] >= ELEMENTS_MAX || n[4] >= ELEMENTS_MAX ||
        n[0] * n[2] >= ELEMENTS_MAX || results % (n[0] * n[2]) != 0)
        return false;
    int64_t last = results / (n[0] * n[2]) - 1;
    return last * n[3] + n[0] * n[1] <= device_tensor_count(in[0]) &&
           last * n[4] + n[1] * n[2] <= device_tensor_count(in[1]) && (!in[2] || device_tensor_count(in[2]) == n[2]);
}

static bool attention_fits(const struct device_step *step, const struct device_tensor *const in[], int64_t results,
                           const struct device_tensor *weights) {
    const int64_t *n = step->numbers; /* queries, depth, keys, wide, keep */
    if (!in[1] || !in[2] || !positive(n, 5) || n[2] > DEVICE_KEYS_MAX || n[4] > n[2] || n[0] * n[3] >= ELEMENTS_MAX ||
        results % (n[0] * n[3]) != 0)
        return false;
    int64_t heads = results / (n[0] * n[3]);
    return device_tensor_count(in[0]) == heads * n[0] * n[1] && device_tensor_count(in[1]) == heads * n[1] * n[2] &&
           device_tensor_count(in[2]) == heads * n[2] * n[3] &&
           (!weights || device_tensor_count(weights) == heads * n[0] * n[2]);
}

static bool masked_fits(const struct device_step *step, const struct device_tensor *const in[],
                        const struct device_tensor *const out[]) {
    const int64_t *n = step->numbers; /* queries, depth, keys, wide, heads, elements between images of mask and bias */
    struct device_step plain = *step;
    plain.numbers[4] = 1;
    if (!in[3] || !positive(n, 5) || !attention_fits(&plain, in, device_tensor_count(out[0]), out[1]))
        return false;
    int64_t heads = device_tensor_count(out[0]) / (n[0] * n[3]), images = heads / n[4];
    for (int k = 0; k < 2; k++)
        if (n[5 + k] < 0 || n[5 + k] > n[2] ||
            (in[3 + k] && (images - 1) * n[5 + k] + n[2] > device_tensor_count(in[3 + k])))
            return false;
    return heads % n[4] == 0;
}

static bool select_fits(const struct device_step *step, const struct device_tensor *const in[],
                        const struct device_tensor *out) {
    for (int k = 0; k < 3; k++)
        if (!in[k] || !strides_fit(out, in[k], 0, step->numbers + 6 * k))
            return false;
    return true;
}

static bool binary_fits(const struct device_step *step, const struct device_tensor *const in[],
                        const struct device_tensor *out) {
    if (!in[1] || step->numbers[0] < 0 || step->numbers[0] >= DEVICE_BINARIES)
        return false;
    if (step->numbers[13])
        return device_tensor_count(in[0]) == device_tensor_count(out) &&
               device_tensor_count(in[1]) == device_tensor_count(out);
    return strides_fit(out, in[0], 0, step->numbers + 1) && strides_fit(out, in[1], 0, step->numbers + 7);
}

/* Whether a step's numbers keep it inside its operands; in[k] is NULL where input k is absent. */
static bool step_fits(const struct device_step *step, const struct device_tensor *const in[],
                      const struct device_tensor *const out[]) {
    int64_t results = device_tensor_count(out[0]), given = device_tensor_count(in[0]);
    const int64_t *n = step->numbers;
    switch ((enum device_step_kind)step->kind) {
    case DEVICE_CONV: return conv_fits(step, in, out[0]);
    case DEVICE_POOL_MAX:
        return window_fits(step, in[0], out[0]) && in[0]->dims[1] == out[0]->dims[1] && positive(n + 12, 3);
    case DEVICE_RESIZE:
        return in[0]->rank == 5 && out[0]->rank == 5 && in[0]->dims[0] == out[0]->dims[0] &&
               in[0]->dims[1] == out[0]->dims[1];
    case DEVICE_CONCAT: return concat_fits(in, out[0]);
    case DEVICE_CONVERT: return given == results && in[0]->rank == out[0]->rank;
    case DEVICE_BINARY: return binary_fits(step, in, out[0]);
    case DEVICE_UNARY: return given == results && n[0] >= 0 && n[0] < DEVICE_UNARIES;
    case DEVICE_REDUCE:
        return positive(n, 2) && given == results * n[0] && results % n[1] == 0 && n[2] >= 0 && n[2] < DEVICE_REDUCES;
    case DEVICE_VIEW: return strides_fit(out[0], in[0], n[0], n + 1);
    case DEVICE_PRODUCT: return product_fits(step, in, results);
    case DEVICE_ATTENTION: return attention_fits(step, in, results, out[1]);
    case DEVICE_MASKED_ATTENTION: return masked_fits(step, in, out);
    case DEVICE_SELECT: return select_fits(step, in, out[0]);
    case DEVICE_TOP:
        return positive(n, 2) && n[1] <= n[0] && n[0] <= DEVICE_KEYS_MAX && given % n[0] == 0 &&
               results == given / n[0] * n[1];
    case DEVICE_DROPOUT: return given == results && positive(n, 1) && results % n[0] == 0 && n[1] >= 0;
    case DEVICE_REPEAT: return positive(n, 2) && given % n[0] == 0 && given * n[1] == results;
    case DEVICE_KINDS: break;
    }
    return false;
}

static bool step_check(const struct device_plan *plan, int index, struct err *err) {
    const struct device_step *step = &device_plan_steps(plan)[index];
    const struct device_tensor *tensors = device_plan_tensors(plan);
    const struct device_tensor *in[DEVICE_INPUTS_MAX] = {NULL}, *out[DEVICE_OUTPUTS_MAX] = {NULL};
    bool good = step->kind >= 0 && step->kind < DEVICE_KINDS && memchr(step->name, 0, sizeof step->name) != NULL;
    for (int k = 0; good && k < DEVICE_INPUTS_MAX; k++) {
        good = in_range(step->inputs[k], plan->tensor_count, k > 0);
        in[k] = good && step->inputs[k] >= 0 ? &tensors[step->inputs[k]] : NULL;
    }
    for (int k = 0; good && k < DEVICE_OUTPUTS_MAX; k++) {
        good = in_range(step->outputs[k], plan->tensor_count, k > 0);
        out[k] = good && step->outputs[k] >= 0 ? &tensors[step->outputs[k]] : NULL;
        good = good && (!out[k] || !out[k]->constant);
    }
    good = good && step_fits(step, in, out);
    return good || err_set(err, ERR_INPUT, "step %d of the device plan is malformed", index);
}

static bool sizes_check(const struct device_plan *plan, size_t size) {
    if (plan->magic != DEVICE_PLAN_MAGIC || plan->total_size != (int64_t)size || plan->tensor_count < 1 ||
        plan->tensor_count > DEVICE_TENSORS_MAX || plan->step_count < 1 || plan->step_count > DEVICE_STEPS_MAX ||
        plan->arena_size < 0 || plan->arena_size > (int64_t)PULMO_ALLOC_MAX || plan->passes < 1)
        return false;
    int64_t tables = (int64_t)sizeof *plan + plan->tensor_count * (int64_t)sizeof(struct device_tensor) +
                     plan->step_count * (int64_t)sizeof(struct device_step);
    return plan->constants_offset >= tables && plan->constants_offset % DEVICE_ALIGNMENT == 0 &&
           plan->constants_offset <= plan->total_size && plan->constants_size >= 0 &&
           plan->constants_size == plan->total_size - plan->constants_offset &&
           memchr(plan->model, 0, sizeof plan->model) != NULL;
}

static bool ports_check(const struct device_plan *plan, const int32_t *ports, int32_t count) {
    const struct device_tensor *tensors = device_plan_tensors(plan);
    bool good = count >= 1 && count <= DEVICE_PORTS_MAX;
    for (int32_t i = 0; good && i < count; i++)
        good = in_range(ports[i], plan->tensor_count, false) && tensors[ports[i]].element == DEVICE_F32 &&
               tensors[ports[i]].layout == DEVICE_PLAIN && !tensors[ports[i]].constant;
    return good;
}

bool device_plan_check(const void *block, size_t size, struct err *err) {
    const struct device_plan *plan = block;
    if (size < sizeof *plan || !sizes_check(plan, size))
        return err_set(err, ERR_INPUT, "these %zu bytes are no device plan of this version", size);
    for (int i = 0; i < plan->tensor_count; i++)
        if (!tensor_check(plan, i, err))
            return false;
    if (!ports_check(plan, plan->inputs, plan->input_count) || !ports_check(plan, plan->outputs, plan->output_count))
        return err_set(err, ERR_INPUT, "the ports of the device plan are malformed");
    for (int i = 0; i < plan->step_count; i++)
        if (!step_check(plan, i, err))
            return false;
    return true;
}
