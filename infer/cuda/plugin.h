/* The border of the CUDA plugin: one symbol, CUDA_PLUGIN_SYMBOL, gives this table. No type of CUDA crosses it.
 *
 * The host opens it with dlopen (infer/backend_plugin.h) and refuses another version or layout of the table. */
#ifndef PULMO_INFER_CUDA_PLUGIN_H
#define PULMO_INFER_CUDA_PLUGIN_H

#include "pulmo.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CUDA_PLUGIN_SYMBOL "pulmo_cuda_plugin"
#define CUDA_PLUGIN_VERSION 3
#define CUDA_MARKS_MAX 32768 /* peaks of one volume */
#define CUDA_CUTS_MAX 32     /* tiles or crops of one batch */

struct cuda_device;  /* one card: context, streams, memory; one thread at a time */
struct cuda_program; /* one device plan made ready on a card; belongs to it */

/* Dropout keys of infer/operators.h; entry n of the batch is pass n % passes of candidate + n / passes, where the
 * plan names the passes. */
struct cuda_keys {
    bool active;
    uint64_t seed;
    uint32_t candidate;
    double rate; /* negative = the node's own */
};

/* An aligned source volume onto an isotropic grid; axes in i, j, k. */
struct cuda_resample {
    int32_t source_size[3], size[3];
    double step[3]; /* source voxels from one result to the next; below 2, beyond that the CPU averages */
    int32_t reversed[3];
};

/* A mark of the detector; at in voxels, k, j, i. */
struct cuda_mark {
    double at[3];
    double diameter_mm, logit;
    int64_t cell;
};

/* A volume and how it is cut (models/README.md, Decoding 2 to 6). */
struct cuda_detect {
    const int16_t *hu;    /* [k][j][i], 1 mm */
    const uint8_t *lungs; /* the same grid */
    int32_t size_ijk[3];
    int32_t cells[3]; /* k, j, i */
    int32_t tile, margin;
    double logit_min;
    int32_t candidates_max;
    int32_t outputs[3];         /* of the plan: heatmap, offset, log diameter */
    const int32_t (*starts)[3]; /* [tile_count] first voxel i, j, k of each tile that is not empty */
    int32_t tile_count;
};

/* Crops of a volume. */
struct cuda_crops {
    const int16_t *hu; /* [k][j][i], 1 mm */
    int32_t size_ijk[3];
    const int32_t (*starts)[3]; /* [count] first voxel i, j, k; may lie outside */
    int32_t count;
    uint32_t mirror; /* axes along which each crop is reversed: bit 0 = i, 1 = j, 2 = k */
};

/* What a call took, by the card's own clock where it says device. */
struct cuda_timing {
    double wall_ms, device_ms; /* device: the sum over batches of the time between their first and last kernel */
    int32_t batches;
};

struct cuda_figures {
    int64_t arena_bytes, constant_bytes, workspace_bytes;
    int32_t convolutions, fused; /* fused: those that cuDNN runs with bias, sum and Relu in one kernel */
    int32_t cached;              /* engine plans taken from the cache */
};

struct cuda_plugin {
    uint32_t version;  /* CUDA_PLUGIN_VERSION */
    uint32_t size;     /* sizeof(struct cuda_plugin) */
    const char *pulmo; /* PULMO_VERSION it was built from */

    /* cache: folder of engine plans, or NULL. ERR_UNSUPPORTED says why there is no device. */
    struct cuda_device *(*device_open)(int index, const char *cache, struct err *err);
    void (*device_close)(struct cuda_device *device);
    int (*device_count)(struct err *err);                            /* 0 with err set when there is none */
    const char *(*device_text)(const struct cuda_device *device);    /* "NVIDIA ..., cuDNN 9.19.0, CUDA 13.0, sm_90" */
    const char *(*device_library)(const struct cuda_device *device); /* "cuDNN 9.19.0" */
    const char *(*device_generation)(const struct cuda_device *device); /* "sm_90" */
    /* Half-precision tensor operations per second by the card's data sheet formula; 0 = a card not in the table. */
    double (*device_peak)(const struct cuda_device *device);

    /* plan: a block that device_plan_check accepts; copied. */
    struct cuda_program *(*program_new)(struct cuda_device *device, const void *plan, size_t size, struct err *err);
    void (*program_free)(struct cuda_program *program);
    struct cuda_figures (*program_figures)(const struct cuda_program *program);
    /* Host memory in the order of the plan's ports. ERR_INPUT names the layer that gave NaN or infinity. */
    bool (*program_run)(struct cuda_program *program, const float *const *inputs, float *const *outputs,
                        const struct cuda_keys *keys, struct err *err);
    /* Milliseconds of each step alone, the median of `rounds`; [step_count]. */
    bool (*program_profile)(struct cuda_program *program, int rounds, float *out_ms, struct err *err);

    /* Resamples on the card; out: [k][j][i] of r->size. */
    bool (*resample)(struct cuda_device *device, const struct cuda_resample *r, const int16_t *hu, int16_t *out,
                     struct err *err);
    /* Runs the tiles while the volume is still on its way, and decodes. marks: at least candidates_max; maps: NULL or
     * [5][cells], for tests. */
    bool (*detect)(struct cuda_program *program, const struct cuda_detect *request, struct cuda_mark *marks,
                   int32_t *mark_count, float *maps, struct cuda_timing *timing, struct err *err);
    /* Crops of a volume, batch by batch; outputs[i]: results of `count` candidates, one behind the other.
     * keys->candidate belongs to the first. timing: NULL or what it took. */
    bool (*candidates)(struct cuda_program *program, const struct cuda_crops *request, const struct cuda_keys *keys,
                       float *const *outputs, struct cuda_timing *timing, struct err *err);
};

typedef const struct cuda_plugin *cuda_plugin_entry(void);
/* The symbol itself, for what is linked with it. */
const struct cuda_plugin *pulmo_cuda_plugin(void);

#ifdef __cplusplus
}
#endif
#endif
