/* A card that is this computer: what infer/cuda/card.h asks for, done at once with the processor. The plugin linked
 * with it is the CUDA plugin but for card_cuda.cu and conv_cudnn.c: the tests run its border, its order of work, its
 * indices and its arithmetic. What they cannot show is that a device does the same. */
#include "infer/cuda/card.h"

#include <stdlib.h>
#include <string.h>

#define RECORD_MAX 4096

struct work { /* of the compute stream, for a recording */
    struct kernel kernel;
    int64_t count;
    const struct card_conv *conv; /* NULL = the kernel */
    struct device_call call;
};

struct card_graph {
    int count;
    struct work *items;
};

struct card {
    struct card_graph *recording;
    bool lost; /* nothing works any more */
};

struct card_conv {
    float *weights; /* [tap][c][k]; made at the first run, as the constants are on the card only then */
    float *image, *sums;
};

static bool lost(void) {
    return getenv("PULMO_HOST_CARD_LOST") != NULL;
}

int card_count(struct err *err) {
    if (!getenv("PULMO_HOST_CARD_NONE"))
        return 1;
    err_set(err, ERR_UNSUPPORTED, "no card is plugged in");
    return 0;
}

struct card *card_open(int index, const char *cache, struct err *err) {
    (void)cache;
    if (index < card_count(err))
        return pulmo_alloc(1, sizeof(struct card), err);
    return NULL;
}

void card_close(struct card *card) {
    free(card);
}

const char *card_text(const struct card *card) {
    (void)card;
    return "host card, reference 1.0, host";
}

const char *card_library(const struct card *card) {
    (void)card;
    return "reference 1.0";
}

const char *card_generation(const struct card *card) {
    (void)card;
    return "host";
}

double card_peak(const struct card *card) {
    (void)card;
    return 0;
}

/* Not zeroed, as a card's is not: every byte is what a float would call NaN. */
void *card_alloc(struct card *card, size_t size, struct err *err) {
    (void)card;
    void *memory = pulmo_alloc(size, 1, err);
    if (memory)
        memset(memory, 0xFF, size);
    return memory;
}

void card_free(struct card *card, void *memory) {
    (void)card;
    free(memory);
}

void *card_pinned_alloc(struct card *card, size_t size, struct err *err) {
    return card_alloc(card, size, err);
}

void card_pinned_free(struct card *card, void *memory) {
    card_free(card, memory);
}

void card_upload(struct card *card, enum card_stream stream, void *to, const void *from, size_t size) {
    (void)stream;
    card->lost = card->lost || lost();
    memcpy(to, from, size);
}

void card_download(struct card *card, enum card_stream stream, void *to, const void *from, size_t size) {
    card_upload(card, stream, to, from, size);
}

/* ---- work ---------------------------------------------------------------------------------------------------------
 */

static void kernel_loop(const struct kernel *kernel, int64_t count) {
    count = kernel->kind == KERNEL_SUPPRESS ? 1 : count; /* the block is one thread */
    for (int64_t n = 0; n < count; n++)
        kernel_run(kernel, (uint32_t)n, (uint32_t)count);
}

static void conv_work(const struct card_conv *conv, const struct device_call *call);

static void work_run(const struct work *work) {
    if (work->conv)
        conv_work(work->conv, &work->call);
    else
        kernel_loop(&work->kernel, work->count);
}

static void work_queue(struct card *card, const struct work *work) {
    struct card_graph *graph = card->recording;
    if (!graph)
        work_run(work);
    else if (graph->count < RECORD_MAX)
        graph->items[graph->count++] = *work;
}

void card_run(struct card *card, const struct kernel *kernel, int64_t count) {
    const struct work work = {.kernel = *kernel, .count = count};
    work_queue(card, &work);
}

void card_conv_run(struct card *card, const struct card_conv *conv, const struct device_call *call, void *workspace) {
    const struct work work = {.conv = conv, .call = *call};
    (void)workspace;
    work_queue(card, &work);
}

bool card_loads_late(const struct card *card) {
    (void)card;
    return false;
}

bool card_record_begin(struct card *card, struct err *err) {
    card->recording = pulmo_alloc(1, sizeof *card->recording, err);
    if (card->recording)
        card->recording->items = pulmo_alloc(RECORD_MAX, sizeof *card->recording->items, err);
    return card->recording && card->recording->items;
}

struct card_graph *card_record_end(struct card *card, struct err *err) {
    (void)err;
    struct card_graph *graph = card->recording;
    card->recording = NULL;
    return graph;
}

void card_graph_run(struct card *card, const struct card_graph *graph) {
    (void)card;
    for (int i = 0; i < graph->count; i++)
        work_run(&graph->items[i]);
}

void card_graph_free(struct card_graph *graph) {
    if (!graph)
        return;
    free(graph->items);
    free(graph);
}

void card_mark(struct card *card, enum card_stream stream, int event) {
    (void)card, (void)stream, (void)event;
}

void card_wait(struct card *card, enum card_stream stream, int event) {
    (void)card, (void)stream, (void)event;
}

bool card_reach(struct card *card, int event, struct err *err) {
    (void)event;
    return card_finish(card, err);
}

double card_elapsed_ms(struct card *card, int from, int to) {
    (void)card, (void)from, (void)to;
    return 0;
}

bool card_finish(struct card *card, struct err *err) {
    return !card->lost || err_set(err, ERR_INTERNAL, "the card has fallen off the bus");
}

/* ---- convolutions -------------------------------------------------------------------------------------------------
 */

struct card_conv *card_conv_new(struct card *card, const struct device_call *call, struct err *err) {
    (void)card;
    if (call->in[1].dims[2] == 1) { /* a library may have no engine for some */
        err_set(err, ERR_UNSUPPORTED, "no engine for windows of one voxel");
        return NULL;
    }
    struct card_conv *conv = pulmo_alloc(1, sizeof *conv, err);
    if (!conv)
        return NULL;
    conv->weights = pulmo_alloc((size_t)device_tensor_count(&call->in[1]), sizeof(float), err);
    conv->image = pulmo_alloc((size_t)device_tensor_count(&call->in[0]), sizeof(float), err);
    conv->sums = pulmo_alloc((size_t)call->out[0].dims[1], sizeof(float), err);
    if (conv->weights && conv->image && conv->sums)
        return conv;
    card_conv_free(conv);
    return NULL;
}

void card_conv_free(struct card_conv *conv) {
    if (!conv)
        return;
    free(conv->weights);
    free(conv->image);
    free(conv->sums);
    free(conv);
}

size_t card_conv_workspace(const struct card_conv *conv) {
    (void)conv;
    return 64;
}

bool card_conv_cached(const struct card_conv *conv) {
    (void)conv;
    return false;
}

/* Sums over the window in another order than the kernel's, as a library's are: [tap][c], all results at once. */
static void conv_cell(const struct card_conv *conv, const struct device_call *call, const struct device_cell *cell) {
    const int64_t *side = call->in[1].dims + 2;
    int32_t channels = (int32_t)call->in[0].dims[1], results = (int32_t)call->out[0].dims[1], strides[5];
    const float *restrict weights = conv->weights;
    float *restrict sums = conv->sums;
    memset(conv->sums, 0, (size_t)results * sizeof *conv->sums);
    element_strides(&call->in[0], strides);
    for (int32_t tap = 0; tap < (int32_t)(side[0] * side[1] * side[2]); tap++, weights += channels * results) {
        int32_t z = element_reach(call, 0, cell->at[2], tap / (int32_t)(side[1] * side[2]));
        int32_t y = element_reach(call, 1, cell->at[3], tap / (int32_t)side[2] % (int32_t)side[1]);
        int32_t x = element_reach(call, 2, cell->at[4], tap % (int32_t)side[2]);
        if (z < 0 || y < 0 || x < 0)
            continue;
        const float *restrict in =
            conv->image + cell->at[0] * strides[0] + z * strides[2] + y * strides[3] + x * strides[4];
        for (int32_t c = 0; c < channels; c++)
            for (int32_t k = 0; k < (in[c] != 0 ? results : 0); k++) /* behind a Relu half of them are 0 */
                sums[k] += in[c] * weights[c * results + k];
    }
}

static void conv_work(const struct card_conv *conv, const struct device_call *call) {
    int64_t results = call->out[0].dims[1], weights = device_tensor_count(&call->in[1]);
    for (int64_t n = 0; n < weights; n++) { /* [k][tap][c] to [tap][c][k] */
        int64_t k = n / (weights / results), rest = n % (weights / results);
        conv->weights[rest * results + k] = element_in(call, 1, n);
    }
    for (int64_t n = 0; n < device_tensor_count(&call->in[0]); n++)
        conv->image[n] = element_in(call, 0, n);
    int64_t count = device_tensor_count(&call->out[0]);
    for (int64_t n = 0; n < count; n += results) {
        struct device_cell cell = element_cell(&call->out[0], (uint32_t)n);
        conv_cell(conv, call, &cell);
        for (int64_t k = 0; k < results; k++) {
            float sum = conv->sums[k] + element_in(call, 2, k);
            if (call->in_data[3])
                sum += element_in(call, 3, n + k); /* a sum lies as the result does */
            element_store(&call->out[0], call->out_data[0], n + k, element_relu(&call->step, sum));
        }
    }
}
