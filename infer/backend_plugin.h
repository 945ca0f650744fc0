/* The other back-end: a plugin (infer/cuda/plugin.h) opened with dlopen, and the networks made ready on its card. */
#ifndef PULMO_INFER_BACKEND_PLUGIN_H
#define PULMO_INFER_BACKEND_PLUGIN_H

#include "infer/cuda/plugin.h"
#include "infer/model.h"

struct plugin; /* one card with the detector and the candidate network; one thread at a time */

/* path: of the shared library. cache: folder of the card's engine plans, or NULL. Everything that a plugin can lack is
 * found out here: ERR_NOT_FOUND no such file, ERR_UNSUPPORTED no driver, library or card, another version of the
 * border, or a layer that no kernel computes. */
struct plugin *infer_plugin_open(const struct infer_model *model, const char *path, const char *cache, struct err *err);
void infer_plugin_close(struct plugin *plugin);
const char *infer_plugin_text(const struct plugin *plugin);            /* "NVIDIA ..., cuDNN 9.19.0, sm_90" */
const char *infer_plugin_library(const struct plugin *plugin);         /* "cuDNN 9.19.0" */
const char *infer_plugin_instruction_set(const struct plugin *plugin); /* "sm_90" */

/* Marks of the volume, best first: at most model->candidates_max. */
bool infer_plugin_detect(struct plugin *plugin, const struct volume *iso, const struct mask *lungs,
                         struct cuda_mark *marks, size_t *count, struct infer_detect_figures *figures,
                         struct err *err) PULMO_MUST_USE;

/* The crops of `count` candidates, which start at `starts`, as one mirror image of them all. */
struct plugin_crops {
    const struct volume *iso;
    const int32_t (*starts)[3]; /* i, j, k */
    size_t count;
    uint32_t batch;  /* passes */
    uint32_t mirror; /* axes along which each crop is reversed: bit 0 = i, 1 = j, 2 = k */
};

/* What came of them: `batch` entries of each output of the tail, one of each of the trunk. */
struct plugin_results {
    float *values[CANDIDATE_OUTPUTS]; /* owned; [count][entries][size] */
    size_t sizes[CANDIDATE_OUTPUTS];  /* elements of one entry */
};
void infer_plugin_results_clear(struct plugin_results *results);
bool infer_plugin_candidates(struct plugin *plugin, const struct plugin_crops *crops, const struct cuda_keys *keys,
                             struct plugin_results *out, struct err *err) PULMO_MUST_USE;

#endif
