/* For tests of infer/: .npy files, and the folders of train/dump_operators.py and dump_parity.py. */
#ifndef PULMO_TESTS_INFER_CASES_H
#define PULMO_TESTS_INFER_CASES_H

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "infer/program.h"

struct array {
    struct shape shape;
    float *data; /* owned */
};

/* NumPy format 1.0, fp32, C order: magic, version, header length, a Python dict in text, data. */
static inline bool array_read(const char *path, struct array *out) {
    struct bytes file;
    if (!bytes_read_file(path, (size_t)1 << 30, &file, NULL))
        return false;
    size_t header = file.size > 10 ? (size_t)file.data[8] + 256 * (size_t)file.data[9] : 0;
    bool good = header && file.size >= 10 + header && memcmp(file.data, "\x93NUMPY", 6) == 0;
    char text[512] = {0};
    if (good)
        memcpy(text, file.data + 10, header < sizeof text - 1 ? header : sizeof text - 1);
    good = good && strstr(text, "'<f4'") && strstr(text, "'fortran_order': False");
    struct array array = {0};
    const char *at = good ? strstr(text, "'shape': (") : NULL;
    for (at = at ? at + 10 : NULL; at && *at != ')' && array.shape.rank < GRAPH_RANK_MAX; at += strspn(at, ", "))
        array.shape.dims[array.shape.rank++] = strtoll(at, (char **)(void *)&at, 10);
    size_t size = (size_t)infer_shape_count(&array.shape) * sizeof(float);
    good = good && file.size == 10 + header + size;
    if (good && (array.data = malloc(size + 1)))
        memcpy(array.data, file.data + 10 + header, size);
    bytes_free(&file);
    if (good)
        *out = array;
    return good;
}

struct difference {
    double absolute;  /* greatest |got - want| */
    double magnitude; /* greatest |want| */
};

static inline struct difference difference_of(const float *got, const float *want, int64_t count) {
    struct difference worst = {0};
    for (int64_t i = 0; i < count; i++) {
        double gap = fabs((double)got[i] - (double)want[i]), size = fabs((double)want[i]);
        if (!(gap <= worst.absolute)) /* NaN counts */
            worst.absolute = gap;
        if (size > worst.magnitude)
            worst.magnitude = size;
    }
    return worst;
}

#define MASKS_MAX 8

struct parity_case {
    char folder[512];
    struct graph *graph;
    struct array inputs[GRAPH_PORTS_MAX], outputs[GRAPH_PORTS_MAX], masks[MASKS_MAX];
    int mask_count;
};

static inline void parity_case_free(struct parity_case *it) {
    for (int i = 0; i < GRAPH_PORTS_MAX; i++) {
        free(it->inputs[i].data);
        free(it->outputs[i].data);
    }
    for (int i = 0; i < MASKS_MAX; i++)
        free(it->masks[i].data);
    infer_graph_free(it->graph);
}

static inline bool parity_case_read(const char *folder, struct parity_case *it, struct err *err) {
    char path[1024];
    struct bytes file;
    *it = (struct parity_case){0};
    snprintf(it->folder, sizeof it->folder, "%s", folder);
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    if (!bytes_read_file(path, GRAPH_FILE_BYTES_MAX, &file, err))
        return false;
    it->graph = infer_graph_open(file.data, file.size, err);
    bytes_free(&file);
    if (!it->graph)
        return false;
    for (int i = 0; i < it->graph->input_count; i++) {
        snprintf(path, sizeof path, "%s/input_%s.npy", folder, it->graph->values[it->graph->inputs[i]].name);
        if (!array_read(path, &it->inputs[i]))
            return err_set(err, ERR_INPUT, "cannot read %s", path);
    }
    for (int i = 0; i < it->graph->output_count; i++) {
        snprintf(path, sizeof path, "%s/output_%s.npy", folder, it->graph->values[it->graph->outputs[i]].name);
        if (!array_read(path, &it->outputs[i]))
            return err_set(err, ERR_INPUT, "cannot read %s", path);
    }
    for (; it->mask_count < MASKS_MAX; it->mask_count++) {
        snprintf(path, sizeof path, "%s/mask_%d.npy", folder, it->mask_count);
        if (!array_read(path, &it->masks[it->mask_count]))
            break;
    }
    return true;
}

/* Runs the case and gives the worst difference of all outputs. */
static inline bool parity_case_run(const struct parity_case *it, bool keep, struct difference *worst, struct err *err) {
    struct shape shapes[GRAPH_PORTS_MAX];
    for (int i = 0; i < it->graph->input_count; i++)
        shapes[i] = it->inputs[i].shape;
    PULMO_SCOPED(infer_program_free_at) struct program *program = infer_program_new(it->graph, shapes, keep, err);
    if (!program)
        return false;
    PULMO_SCOPED(infer_runner_free_at) struct runner *runner = infer_runner_new(program, err);
    if (!runner)
        return false;
    for (int i = 0; i < it->graph->input_count; i++)
        memcpy(infer_runner_input(runner, i), it->inputs[i].data,
               (size_t)infer_shape_count(&shapes[i]) * sizeof(float));
    const float *masks[MASKS_MAX];
    for (int i = 0; i < it->mask_count; i++)
        masks[i] = it->masks[i].data;
    struct dropout_keys keys = {.active = it->mask_count > 0, .rate = -1, .masks = masks, .mask_count = it->mask_count};
    if (!infer_runner_run(runner, &keys, err))
        return false;
    *worst = (struct difference){0};
    for (int i = 0; i < it->graph->output_count; i++) {
        const struct shape *shape = infer_program_shape(program, it->graph->outputs[i]);
        /* NumPy's ascontiguousarray makes [1] of a scalar */
        bool scalar = shape->rank == 0 && it->outputs[i].shape.rank == 1 && it->outputs[i].shape.dims[0] == 1;
        if (!scalar && !infer_shape_equal(shape, &it->outputs[i].shape)) {
            char got[64], want[64];
            infer_shape_text(shape, got, sizeof got);
            infer_shape_text(&it->outputs[i].shape, want, sizeof want);
            return err_set(err, ERR_INTERNAL, "output %d has shape %s, not %s", i, got, want);
        }
        struct difference one =
            difference_of(infer_runner_output(runner, i), it->outputs[i].data, infer_shape_count(shape));
        if (!(one.absolute <= worst->absolute))
            worst->absolute = one.absolute;
        worst->magnitude = one.magnitude > worst->magnitude ? one.magnitude : worst->magnitude;
    }
    return true;
}

/* Runs a script of train/ with Debian's Python, which has PyTorch where python3-torch is installed. */
static inline bool python_run(const char *script, const char *folder) {
    pid_t child = fork();
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stdout);
        (void)!freopen("/dev/null", "w", stderr);
        execl("/usr/bin/python3", "python3", script, folder, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* <build>/parity/<name>, made by the script anew; false where PyTorch is missing. */
static inline bool parity_folder(const char *name, const char *script, char *out, size_t out_size) {
    const char *build = getenv("PULMO_BUILD");
    snprintf(out, out_size, "%s/parity", build ? build : "/tmp");
    mkdir(out, 0777);
    snprintf(out, out_size, "%s/parity/%s", build ? build : "/tmp", name);
    return python_run(script, out);
}

#endif
