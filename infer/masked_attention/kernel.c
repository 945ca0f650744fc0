/* The attention of infer/masked_attention.h on vectors of MASKED_LANES floats, as the function MASKED_RUN: compiled
 * once for each width. Where the compiler has no such vectors it makes them of others. */
#include "infer/masked_attention.h"

#include <string.h>

#define LANES MASKED_LANES
#define GROUP 8 /* sums together: as many as hide the time that an addition takes */
typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t bits __attribute__((vector_size(4 * LANES), may_alias));

static inline vec load(const float *at) {
    return *(const vec *)at;
}

static inline void store(float *at, vec value) {
    *(vec *)at = value;
}

static inline vec splat(float value) {
    return value - (vec){0};
}

/* one where the mask is set, two elsewhere. */
static inline vec choose(bits mask, vec one, vec two) {
    return (vec)((mask & (bits)one) | (~mask & (bits)two));
}

/* e^x for x <= 0, to 2e-7 of the value; 0 below -87, where a float is about to lose digits. Any number for NaN. Range
 * reduction and polynomial are those of expf in the Cephes library (S. L. Moshier, Methods and Programs for
 * Mathematical Functions, 1989); the nearest whole number is read off the last bits of a sum with 1.5 * 2^23. */
static inline vec exp_of(vec x) {
    vec sum = x * splat(1.44269504088896341F) + splat(12582912.0F), whole = sum - splat(12582912.0F);
    vec r = x - whole * splat(0.693359375F) + whole * splat(2.12194440e-4F);
    vec p = splat(1.9875691500e-4F);
    p = p * r + splat(1.3981999507e-3F);
    p = p * r + splat(8.3334519073e-3F);
    p = p * r + splat(4.1665795894e-2F);
    p = p * r + splat(1.6666665459e-1F);
    p = p * r + splat(5.0000001201e-1F);
    p = p * (r * r) + r + splat(1);
    vec scaled = (vec)((bits)p + ((bits)sum << 23)); /* to the power of two: added to the exponent */
    return (vec)((bits)scaled & (bits)(x >= splat(-87)));
}

/* out[g] = the sum over n, in order, of scalars[n][g] * vectors[n]. */
static inline __attribute__((always_inline)) void products(const float *scalars, int64_t scalar_pitch,
                                                           const float *vectors, int64_t vector_pitch, int64_t terms,
                                                           vec out[GROUP]) {
    vec sums[GROUP] = {{0}};
    for (int64_t n = 0; n < terms; n++, scalars += scalar_pitch, vectors += vector_pitch) {
        vec x = load(vectors);
        for (int g = 0; g < GROUP; g++)
            sums[g] += splat(scalars[g]) * x;
    }
    for (int g = 0; g < GROUP; g++)
        out[g] = sums[g];
}

/* ---- scratch ---------------------------------------------------------------------------------------------------- */

struct work {
    const struct masked_attention *shape;
    int64_t room, pitch;     /* keys and channels of a value, padded */
    float *keys, *values;    /* [depth][room], [room][pitch] of the kept keys */
    float *bias;             /* [room] */
    float *queries, *scores; /* [depth][BLOCK]; [room][BLOCK], which become the weights */
    int32_t *index;          /* [room] of the kept keys, ascending */
    int64_t count;           /* kept, or all where the mask keeps none */
    bool none;
};

static struct work work_of(const struct masked_attention *shape, void *scratch) {
    struct work work = {
        .shape = shape, .room = masked_attention_padded(shape->keys), .pitch = masked_attention_padded(shape->wide)};
    work.keys = scratch;
    work.values = work.keys + shape->depth * work.room;
    work.bias = work.values + work.room * work.pitch;
    work.queries = work.bias + work.room;
    work.scores = work.queries + shape->depth * MASKED_BLOCK;
    work.index = (int32_t *)(void *)(work.scores + work.room * MASKED_BLOCK);
    return work;
}

/* ---- what is kept ----------------------------------------------------------------------------------------------- */

static void mask_read(struct work *work, const uint8_t *mask, const float *bias) {
    int64_t keys = work->shape->keys, count = 0;
    float wrong = 0; /* NaN where the bias of any key is no number */
    for (int64_t n = 0; n < keys; n++) {
        work->index[count] = (int32_t)n;
        count += mask[n] != 0;
        wrong += bias ? bias[n] * 0 : 0;
    }
    work->none = count == 0;
    for (int64_t n = 0; work->none && n < keys; n++)
        work->index[n] = (int32_t)n;
    work->count = work->none ? keys : count;
    for (int64_t m = 0; m < work->room; m++)
        work->bias[m] = wrong + (bias && !work->none && m < work->count ? bias[work->index[m]] : 0);
}

/* Keys that were not kept are not read, but where none is kept: then they count as zeros, and all scores are alike. */
static void head_gather(struct work *work, const float *key, const float *value) {
    const struct masked_attention *shape = work->shape;
    for (int64_t d = 0; d < shape->depth; d++) {
        float *to = work->keys + d * work->room;
        for (int64_t m = 0; m < work->count; m++)
            to[m] = work->none ? 0 : key[d * shape->keys + work->index[m]];
        for (int64_t m = work->count; m < masked_attention_padded(work->count); m++)
            to[m] = 0;
    }
    for (int64_t m = 0; m < work->count; m++) {
        float *to = work->values + m * work->pitch;
        memcpy(to, value + work->index[m] * shape->wide, (size_t)shape->wide * sizeof *to);
        memset(to + shape->wide, 0, (size_t)(work->pitch - shape->wide) * sizeof *to);
    }
}

/* ---- a block of queries ----------------------------------------------------------------------------------------- */

/* Rows beyond the last are the last again, to no effect. */
static void queries_turn(const struct work *work, const float *query, int64_t rows) {
    int64_t depth = work->shape->depth, places[MASKED_BLOCK];
    for (int64_t row = 0; row < MASKED_BLOCK; row++)
        places[row] = (row < rows ? row : rows - 1) * depth;
    for (int64_t d = 0; d < depth; d++)
        for (int64_t row = 0; row < MASKED_BLOCK; row++)
            work->queries[d * MASKED_BLOCK + row] = query[places[row] + d];
}

static void scores_make(const struct work *work) {
    vec scale = splat(work->shape->scale);
    for (int64_t first = 0; first < work->count; first += GROUP)
        for (int lane = 0; lane < MASKED_BLOCK; lane += LANES) {
            vec sums[GROUP];
            products(work->keys + first, work->room, work->queries + lane, MASKED_BLOCK, work->shape->depth, sums);
            for (int g = 0; g < GROUP; g++)
                store(work->scores + (first + g) * MASKED_BLOCK + lane, sums[g] * scale + splat(work->bias[first + g]));
        }
}

/* All vectors of the block at a time: while one waits for its own last addition, the others have theirs. */
static void softmax(const struct work *work) {
    vec most[MASKED_BLOCK / LANES], sum[MASKED_BLOCK / LANES];
    for (int v = 0; v < MASKED_BLOCK / LANES; v++) {
        most[v] = load(work->scores + v * LANES);
        sum[v] = splat(0);
    }
    for (int64_t m = 0; m < work->count; m++)
        for (int v = 0; v < MASKED_BLOCK / LANES; v++) {
            vec score = load(work->scores + m * MASKED_BLOCK + v * LANES);
            most[v] = choose((bits)(score > most[v]), score, most[v]);
            sum[v] += score * splat(0); /* NaN and infinity stay in the sum */
        }
    for (int64_t m = 0; m < work->count; m++)
        for (int v = 0; v < MASKED_BLOCK / LANES; v++) {
            float *at = work->scores + m * MASKED_BLOCK + v * LANES;
            vec weight = exp_of(load(at) - most[v]);
            store(at, weight);
            sum[v] += weight;
        }
    for (int v = 0; v < MASKED_BLOCK / LANES; v++)
        sum[v] = splat(1) / sum[v];
    for (int64_t m = 0; m < work->count; m++)
        for (int v = 0; v < MASKED_BLOCK / LANES; v++) {
            float *at = work->scores + m * MASKED_BLOCK + v * LANES;
            store(at, load(at) * sum[v]);
        }
}

static void values_mix(const struct work *work, float *out, int64_t rows) {
    int64_t wide = work->shape->wide;
    for (int64_t w = 0; w < wide; w += LANES)
        for (int64_t first = 0; first < rows; first += GROUP) {
            vec sums[GROUP];
            bool whole = wide - w >= LANES && rows - first >= GROUP;
            products(work->scores + first, MASKED_BLOCK, work->values + w, work->pitch, work->count, sums);
            for (int g = 0; whole && g < GROUP; g++)
                memcpy(out + (first + g) * wide + w, &sums[g], sizeof sums[g]);
            for (int64_t row = first; !whole && row < first + GROUP && row < rows; row++)
                memcpy(out + row * wide + w, &sums[row - first],
                       (size_t)(wide - w < LANES ? wide - w : LANES) * sizeof *out);
        }
}

static void zeros(float *at, int64_t count) {
    const vec none = {0};
    int64_t n = 0;
    for (; n + LANES <= count; n += LANES)
        memcpy(at + n, &none, sizeof none);
    memset(at + n, 0, (size_t)(count - n) * sizeof *at);
}

static void weights_spread(const struct work *work, float *weights, int64_t rows) {
    int64_t keys = work->shape->keys;
    zeros(weights, rows * keys);
    for (int64_t m = 0; m < work->count; m++) {
        float *to = weights + work->index[m];
        for (int64_t row = 0; row < rows; row++, to += keys)
            *to = work->scores[m * MASKED_BLOCK + row];
    }
}

void MASKED_RUN(const struct masked_attention *shape, const struct masked_call *call) {
    struct work work = work_of(shape, call->scratch);
    int64_t keys = shape->keys;
    for (int64_t head = 0; head < shape->batch * shape->heads; head++) {
        int64_t image = head / shape->heads;
        if (head % shape->heads == 0)
            mask_read(&work, call->mask + (shape->one_mask ? 0 : image * keys),
                      call->bias ? call->bias + (shape->one_bias ? 0 : image * keys) : NULL);
        head_gather(&work, call->key + head * shape->depth * keys, call->value + head * keys * shape->wide);
        for (int64_t query = 0; query < shape->queries; query += MASKED_BLOCK) {
            int64_t at = head * shape->queries + query, rows = shape->queries - query;
            rows = rows < MASKED_BLOCK ? rows : MASKED_BLOCK;
            queries_turn(&work, call->query + at * shape->depth, rows);
            scores_make(&work);
            softmax(&work);
            values_mix(&work, call->out + at * shape->wide, rows);
            if (call->weights)
                weights_spread(&work, call->weights + at * keys, rows);
        }
    }
}
