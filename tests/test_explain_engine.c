/* LABELS: full
 * Maps of the real networks: they lie at the finding, are the same twice, and change with the weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "digest.h"
#include "explain/explain.h"
#include "random.h"

#define SIDE 128 /* voxels of 1 mm */
#define MODEL "models/model.json"

/* Lung with a ball of 12 mm in the middle and a few vessels. */
static struct volume *lung_with_nodule(void) {
    struct grid grid = {.size_ijk = {SIDE, SIDE, SIDE}, .spacing_mm = {1, 1, 1}};
    for (int axis = 0; axis < 3; axis++) {
        grid.ijk_to_lps_mm[axis][axis] = 1;
        grid.ijk_to_lps_mm[axis][3] = -SIDE / 2.0;
    }
    struct volume *volume = volume_new(&grid, NULL);
    assert_non_null(volume);
    for (uint32_t n = 0; n < SIDE * SIDE * SIDE; n++) {
        double x = n % SIDE - SIDE / 2.0, y = n / SIDE % SIDE - SIDE / 2.0, z = n / SIDE / SIDE - SIDE / 2.0;
        uint32_t bits[4];
        random_philox((const uint32_t[2]){1, 2}, (const uint32_t[4]){n, 0, 0, 0}, bits);
        bool tissue = x * x + y * y + z * z < 36 || hypot(x - 30, y) < 2 || hypot(y + 25, z - 10) < 1.5;
        volume->hu[n] = (int16_t)lrint((tissue ? 30 : -860) + 40 * (random_uniform(bits[0]) - 0.5));
    }
    return volume;
}

/* ---- a model with other weights ---------------------------------------------------------------------- */

static uint64_t varint(const struct bytes *bytes, size_t *at) {
    uint64_t value = 0;
    for (int shift = 0; *at < bytes->size && shift < 64; shift += 7) {
        uint8_t byte = bytes->data[(*at)++];
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            break;
    }
    return value;
}

static void shake(uint8_t *raw, size_t size, uint32_t salt) {
    for (size_t n = 0; n + 4 <= size; n += 4) {
        uint32_t bits[4];
        float weight;
        memcpy(&weight, raw + n, 4);
        random_philox((const uint32_t[2]){salt, 9}, (const uint32_t[4]){(uint32_t)n, 0, 0, 0}, bits);
        weight *= 4 * random_uniform(bits[0]) - 1;
        memcpy(raw + n, &weight, 4);
    }
}

/* Walks ModelProto.graph (7), GraphProto.initializer (5), TensorProto.raw_data (9) and multiplies the floats of
 * tensors of some size, which are weights, by random factors from -1 to 3. Returns how many tensors it met. */
static int shake_weights(struct bytes *bytes, size_t at, size_t end, int depth) {
    static const uint64_t path[3] = {7, 5, 9};
    int met = 0;
    while (at < end) {
        uint64_t key = varint(bytes, &at), size = (key & 7) == 2 ? varint(bytes, &at) : 0;
        if ((key & 7) == 0)
            varint(bytes, &at);
        at += (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : 0;
        assert_true(size <= end - at);
        if ((key & 7) == 2 && key >> 3 == path[depth]) {
            if (depth < 2)
                met += shake_weights(bytes, at, at + size, depth + 1);
            else if (size >= 2000 && ++met)
                shake(bytes->data + at, size, (uint32_t)at);
        }
        at += size;
    }
    return met;
}

static void replace(struct bytes *text, const char *from, const char *to) {
    char *at = memmem(text->data, text->size, from, strlen(from));
    assert_non_null(at);
    memcpy(at, to, strlen(from)); /* digests are of one length */
}

/* Copies both graphs with shaken weights into `folder`, and the model.json that names their digests. */
static void make_shaken_model(const char *folder) {
    char path[256], before[DIGEST_HEX_SIZE], after[DIGEST_HEX_SIZE];
    PULMO_SCOPED(bytes_free) struct bytes json = {0};
    assert_true(bytes_read_file(MODEL, 1 << 20, &json, NULL));
    const char *const names[] = {"detector.onnx", "candidate.onnx"};
    for (int n = 0; n < 2; n++) {
        PULMO_SCOPED(bytes_free) struct bytes graph = {0};
        snprintf(path, sizeof path, "models/%s", names[n]);
        assert_true(bytes_read_file(path, 1 << 26, &graph, NULL));
        assert_true(digest_hex(graph.data, graph.size, before, NULL));
        assert_true(shake_weights(&graph, 0, graph.size, 0) >= 3);
        assert_true(digest_hex(graph.data, graph.size, after, NULL));
        snprintf(path, sizeof path, "%s/%s", folder, names[n]);
        assert_true(bytes_write_file(path, graph.data, graph.size, false, NULL));
        replace(&json, before, after);
    }
    PULMO_SCOPED(bytes_free) struct bytes gate = {0}; /* as it is: it has no part in the maps */
    assert_true(bytes_read_file("models/gate.onnx", 1 << 26, &gate, NULL));
    snprintf(path, sizeof path, "%s/gate.onnx", folder);
    assert_true(bytes_write_file(path, gate.data, gate.size, false, NULL));
    snprintf(path, sizeof path, "%s/model.json", folder);
    assert_true(bytes_write_file(path, json.data, json.size, false, NULL));
}

static void remove_shaken_model(const char *folder) {
    const char *const names[] = {"detector.onnx", "candidate.onnx", "gate.onnx", "model.json"};
    for (int n = 0; n < 4; n++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", folder, names[n]);
        unlink(path);
    }
    rmdir(folder);
}

/* ---- maps -------------------------------------------------------------------------------------------- */

struct maps {
    float *heat[2]; /* attention, CAM: [SIDE][SIDE][SIDE] */
};

static void maps_free(struct maps *maps) {
    free(maps->heat[0]);
    free(maps->heat[1]);
}

static struct maps maps_of(const char *model_path, const struct volume *volume) {
    struct err err = {0};
    struct infer_model *model = infer_model_open(model_path, &err);
    if (!model)
        fail_msg("%s", err.text);
    struct infer_session *session = infer_session_new(model, &(struct infer_session_config){.threads = 1}, &err);
    if (!session)
        fail_msg("%s", err.text);
    const struct infer_candidate_config passes = {.seed = 42, .candidate = 1, .pass_count = 5, .dropout = -1};
    struct finding finding = {.id = 1, .diameter_mm = 12, .pass_count = 5, .reported = true};
    struct infer_candidate_result result;
    if (!infer_candidate(session, volume, finding.center_lps_mm, &passes, &result, &err))
        fail_msg("%s", err.text);
    memcpy(finding.attention, result.attention, sizeof finding.attention);
    struct maps maps = {{NULL, NULL}};
    for (int kind = 0; kind < 2; kind++) {
        struct explain_map *map = explain_map_new(&volume->grid, &err);
        assert_non_null(map);
        if (!explain_map_add_reported(map, session, volume, &(struct findings){.items = &finding, .count = 1},
                                      (enum explain_kind)kind, &err))
            fail_msg("%s", err.text);
        maps.heat[kind] = malloc(sizeof(float) * SIDE * SIDE * SIDE);
        assert_non_null(maps.heat[kind]);
        for (int32_t k = 0; k < SIDE; k++)
            memcpy(maps.heat[kind] + (size_t)k * SIDE * SIDE, explain_map_slice(map, k), sizeof(float) * SIDE * SIDE);
        explain_map_free(map);
    }
    infer_session_free(session);
    infer_model_free(model);
    return maps;
}

static double difference(const float *a, const float *b) {
    double sum = 0, size = 0;
    for (size_t n = 0; n < SIDE * SIDE * SIDE; n++) {
        sum += fabs((double)a[n] - (double)b[n]);
        size += (double)a[n] + (double)b[n];
    }
    return size > 0 ? sum / size : 0;
}

static void heat_is_near_the_finding(const char *name, const float *heat, double reach_mm) {
    float most = 0;
    for (size_t n = 0; n < SIDE * SIDE * SIDE; n++) {
        double x = (double)(n % SIDE) - SIDE / 2.0, y = (double)(n / SIDE % SIDE) - SIDE / 2.0;
        double z = (double)(n / SIDE / SIDE) - SIDE / 2.0;
        if (heat[n] > 0 && fmax(fabs(x), fmax(fabs(y), fabs(z))) > reach_mm)
            fail_msg("%s: heat %.2f at %.0f %.0f %.0f mm", name, heat[n], x, y, z);
        most = heat[n] > most ? heat[n] : most;
    }
    printf("%s: hottest %.2f\n", name, most);
    assert_true(most > 0.5F && most <= 1); /* 1 at a cell's centre; voxels lie beside it */
}

static void maps_come_from_the_weights(void **state) {
    (void)state;
    struct volume *volume = lung_with_nodule();
    char folder[] = "/tmp/pulmo-explain-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    make_shaken_model(folder);
    snprintf(path, sizeof path, "%s/model.json", folder);
    PULMO_SCOPED(maps_free) struct maps first = maps_of(MODEL, volume);
    PULMO_SCOPED(maps_free) struct maps again = maps_of(MODEL, volume);
    PULMO_SCOPED(maps_free) struct maps shaken = maps_of(path, volume);
    remove_shaken_model(folder);
    volume_free(volume);
    heat_is_near_the_finding("attention", first.heat[0], 24.5);
    heat_is_near_the_finding("HiResCAM", first.heat[1], 56);
    const char *const names[] = {"attention", "HiResCAM"};
    for (int kind = 0; kind < 2; kind++) {
        double change = difference(first.heat[kind], shaken.heat[kind]);
        printf("%s: %.2f of the heat moved with the weights\n", names[kind], change);
        assert_true(difference(first.heat[kind], again.heat[kind]) == 0);
        assert_true(change > 0.02);
    }
}

int main(void) {
    if (access(MODEL, R_OK) != 0) {
        printf("[  SKIPPED ] no model at %s\n", MODEL);
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(maps_come_from_the_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
