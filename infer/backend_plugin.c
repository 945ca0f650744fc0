#include "infer/backend_plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "infer/device_lower.h"
#include "infer/session.h"
#include "infer/tiles.h"

#define TILES 4      /* of one batch */
#define CANDIDATES 8 /* of one batch, each with all its passes */

struct plugin {
    const struct infer_model *model;
    void *library;
    const struct cuda_plugin *table;
    struct cuda_device *device;
    struct cuda_program *detector;
    struct cuda_program *candidates[2]; /* for one pass, and for the number of passes last asked for */
    uint32_t passes[2];
};

void infer_plugin_close(struct plugin *plugin) {
    if (!plugin)
        return;
    if (plugin->device) {
        plugin->table->program_free(plugin->detector);
        plugin->table->program_free(plugin->candidates[0]);
        plugin->table->program_free(plugin->candidates[1]);
        plugin->table->device_close(plugin->device);
    }
    if (plugin->library)
        dlclose(plugin->library);
    free(plugin);
}

static void plugin_close_at(struct plugin **plugin) {
    infer_plugin_close(*plugin);
}

const char *infer_plugin_text(const struct plugin *plugin) {
    return plugin->table->device_text(plugin->device);
}

const char *infer_plugin_library(const struct plugin *plugin) {
    return plugin->table->device_library(plugin->device);
}

const char *infer_plugin_instruction_set(const struct plugin *plugin) {
    return plugin->table->device_generation(plugin->device);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* NODELETE: libraries of drivers do not bear being unloaded. */
static bool library_open(struct plugin *plugin, const char *path, struct err *err) {
    if (access(path, R_OK) != 0)
        return err_set(err, ERR_NOT_FOUND, "the CUDA plugin is not installed");
    plugin->library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!plugin->library) {
        const char *why = dlerror();
        return err_set(err, ERR_UNSUPPORTED, "the CUDA plugin cannot be loaded: %s", why ? why : "no reason given");
    }
    cuda_plugin_entry *entry = NULL;
    void *symbol = dlsym(plugin->library, CUDA_PLUGIN_SYMBOL);
    memcpy(&entry, &symbol, sizeof entry); /* POSIX: a function's address as dlsym gives it */
    plugin->table = entry ? entry() : NULL;
    const struct cuda_plugin *table = plugin->table;
    if (!table || table->version != CUDA_PLUGIN_VERSION || table->size != sizeof *table ||
        strcmp(table->pulmo, PULMO_VERSION) != 0) {
        plugin->table = NULL;
        return err_set(err, ERR_UNSUPPORTED, "the CUDA plugin belongs to another version of Pulmo");
    }
    return true;
}

static struct cuda_program *program_new(const struct plugin *plugin, const struct lower_request *request,
                                        struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes block = {0};
    if (!infer_device_lower(request, &block, err))
        return NULL;
    return plugin->table->program_new(plugin->device, block.data, block.size, err);
}

static struct shape cubes(int count, int side) {
    return (struct shape){.rank = 5, .dims = {count, 1, side, side, side}};
}

static struct cuda_program *candidates_new(const struct plugin *plugin, uint32_t passes, struct err *err) {
    const struct infer_model *model = plugin->model;
    struct shape crops = cubes(CANDIDATES, model->side);
    const struct lower_request request = {.graph = model->trunk,
                                          .inputs = &crops,
                                          .tail = model->tail,
                                          .tail_sources = model->tail_sources,
                                          .passes = (int)passes,
                                          .model = model->info.sha256};
    return program_new(plugin, &request, err);
}

static bool programs_open(struct plugin *plugin, struct err *err) {
    struct shape tiles = cubes(TILES, plugin->model->tile);
    const struct lower_request request = {
        .graph = plugin->model->detector, .inputs = &tiles, .passes = 1, .model = plugin->model->info.sha256};
    plugin->detector = program_new(plugin, &request, err);
    if (!plugin->detector)
        return err_within(err, "detector");
    plugin->candidates[0] = candidates_new(plugin, 1, err);
    plugin->passes[0] = 1;
    return plugin->candidates[0] || err_within(err, "candidate network");
}

struct plugin *infer_plugin_open(const struct infer_model *model, const char *path, const char *cache,
                                 struct err *err) {
    PULMO_SCOPED(plugin_close_at) struct plugin *plugin = pulmo_alloc(1, sizeof *plugin, err);
    if (!plugin)
        return NULL;
    plugin->model = model;
    if (!library_open(plugin, path, err))
        return NULL;
    plugin->device = plugin->table->device_open(0, cache, err);
    if (!plugin->device || !programs_open(plugin, err))
        return NULL;
    struct plugin *result = plugin;
    plugin = NULL;
    return result;
}

/* ---- stage 1 ----------------------------------------------------------------------------------------------------- */

struct tiling {
    int32_t (*starts)[3]; /* i, j, k of those that are not empty */
    size_t count, total;
};

static void tiling_clear(struct tiling *tiling) {
    free(tiling->starts);
}

/* Cubes for any model (models/README.md, Decoding 2): a plan of the card is made ready for one size, which takes
 * seconds. */
static bool tiling_make(const struct infer_model *model, const struct volume *iso, struct tiling *out,
                        struct err *err) {
    struct tiles tiles = infer_tiles_cubes(model, iso);
    out->total = infer_tiles_count(&tiles);
    out->starts = pulmo_alloc(out->total, sizeof *out->starts, err);
    for (size_t n = 0; out->starts && n < out->total; n++) {
        int64_t tile[3], start[3];
        infer_tiles_place(&tiles, n, tile);
        infer_tiles_start(&tiles, tile, start);
        if (!infer_frame_any(iso, start, model->tile))
            continue;
        for (int axis = 0; axis < 3; axis++)
            out->starts[out->count][axis] = (int32_t)start[axis];
        out->count++;
    }
    return out->starts != NULL;
}

static struct cuda_detect request_of(const struct infer_model *model, const struct volume *iso,
                                     const struct mask *lungs, const struct tiling *tiling) {
    struct cuda_detect request = {.hu = iso->hu,
                                  .lungs = lungs->voxel,
                                  .tile = model->tile,
                                  .margin = model->margin,
                                  .logit_min = log(model->score_min / (1 - model->score_min)),
                                  .candidates_max = (int32_t)model->candidates_max,
                                  .starts = (const int32_t(*)[3])tiling->starts,
                                  .tile_count = (int32_t)tiling->count};
    for (int axis = 0; axis < 3; axis++) {
        request.size_ijk[axis] = iso->grid.size_ijk[axis];
        request.cells[2 - axis] = (iso->grid.size_ijk[axis] + MODEL_STRIDE - 1) / MODEL_STRIDE;
        request.outputs[axis] = model->detector_outputs[axis];
    }
    return request;
}

bool infer_plugin_detect(struct plugin *plugin, const struct volume *iso, const struct mask *lungs,
                         struct cuda_mark *marks, size_t *count, struct infer_detect_figures *figures,
                         struct err *err) {
    const struct infer_model *model = plugin->model;
    PULMO_SCOPED(tiling_clear) struct tiling tiling = {0};
    struct cuda_timing timing = {0};
    int32_t found = 0;
    if (!tiling_make(model, iso, &tiling, err))
        return false;
    struct cuda_detect request = request_of(model, iso, lungs, &tiling);
    if (!plugin->table->detect(plugin->detector, &request, marks, &found, NULL, &timing, err))
        return false;
    uint64_t voxels = (uint64_t)model->tile * (uint64_t)model->tile * (uint64_t)model->tile;
    *figures = (struct infer_detect_figures){.tiles = tiling.total,
                                             .tiles_run = tiling.count,
                                             .voxels = tiling.total * voxels,
                                             .voxels_run = tiling.count * voxels,
                                             .wall_ns = (uint64_t)(timing.wall_ms * 1e6),
                                             .busy_ns = (uint64_t)(timing.device_ms * 1e6),
                                             .lanes = 1};
    *count = (size_t)found;
    return true;
}

/* ---- stage 2 ----------------------------------------------------------------------------------------------------- */

void infer_plugin_results_clear(struct plugin_results *results) {
    for (int i = 0; i < CANDIDATE_OUTPUTS; i++)
        free(results->values[i]);
}

/* The program for so many passes. */
static struct cuda_program *program_for(struct plugin *plugin, uint32_t passes, struct err *err) {
    int which = passes > 1;
    if (plugin->candidates[which] && plugin->passes[which] == passes)
        return plugin->candidates[which];
    plugin->table->program_free(plugin->candidates[which]);
    plugin->candidates[which] = candidates_new(plugin, passes, err);
    plugin->passes[which] = passes;
    return plugin->candidates[which];
}

/* Room for every port of the plan; `ports` points to it. What the engine does not read (values between trunk and tail
 * alone) has its room, too. */
struct ports {
    float *values[2 * GRAPH_PORTS_MAX];
    int count;
};

static void ports_clear(struct ports *ports) {
    for (int i = 0; i < ports->count; i++)
        free(ports->values[i]);
}

/* Elements of one entry of a graph's output, for one entry of its inputs. */
static size_t entry_size(const struct graph *graph, const struct shape *inputs, int output, struct err *err) {
    PULMO_SCOPED(pulmo_free_at)
    struct tensor *tensors = pulmo_alloc((size_t)graph->value_count, sizeof *tensors, err);
    if (!tensors || !infer_graph_shapes(graph, inputs, tensors, err))
        return 0;
    return (size_t)infer_shape_count(&tensors[graph->outputs[output]].shape);
}

static bool tail_shapes(const struct infer_model *model, const struct shape *crop, struct shape *out, struct err *err) {
    PULMO_SCOPED(pulmo_free_at)
    struct tensor *tensors = pulmo_alloc((size_t)model->trunk->value_count, sizeof *tensors, err);
    if (!tensors || !infer_graph_shapes(model->trunk, crop, tensors, err))
        return false;
    for (int i = 0; i < model->tail->input_count; i++)
        out[i] = tensors[model->trunk->outputs[model->tail_sources[i]]].shape;
    return true;
}

/* The plan's outputs are those of the trunk, then those of the tail. */
static bool ports_make(const struct infer_model *model, size_t count, uint32_t batch, struct ports *ports,
                       struct plugin_results *out, struct err *err) {
    struct shape crop = cubes(1, model->side), inputs[GRAPH_PORTS_MAX];
    int trunk = model->trunk->output_count, tail = model->tail ? model->tail->output_count : 0;
    if (model->tail && !tail_shapes(model, &crop, inputs, err))
        return false;
    for (; ports->count < trunk + tail; ports->count++) {
        bool behind = ports->count >= trunk;
        size_t size = behind ? entry_size(model->tail, inputs, ports->count - trunk, err)
                             : entry_size(model->trunk, &crop, ports->count, err);
        ports->values[ports->count] =
            size ? pulmo_alloc(count * (behind ? batch : 1), size * sizeof(float), err) : NULL;
        if (!ports->values[ports->count])
            return false;
        for (int i = 0; i < CANDIDATE_OUTPUTS; i++)
            if (model->candidate_outputs[i].in_tail == behind &&
                model->candidate_outputs[i].index + (behind ? trunk : 0) == ports->count)
                out->sizes[i] = size;
    }
    return true;
}

static void ports_give(const struct infer_model *model, struct ports *ports, struct plugin_results *out) {
    for (int i = 0; i < CANDIDATE_OUTPUTS; i++) {
        const struct candidate_port *port = &model->candidate_outputs[i];
        int index = port->index + (port->in_tail ? model->trunk->output_count : 0);
        out->values[i] = ports->values[index];
        ports->values[index] = NULL;
    }
}

bool infer_plugin_candidates(struct plugin *plugin, const struct plugin_crops *crops, const struct cuda_keys *keys,
                             struct plugin_results *out, struct err *err) {
    PULMO_SCOPED(ports_clear) struct ports ports = {0};
    struct plugin_results results = {0};
    size_t count = crops->count;
    uint32_t batch = crops->batch;
    struct cuda_crops request = {
        .hu = crops->iso->hu, .starts = crops->starts, .count = (int32_t)count, .mirror = crops->mirror};
    memcpy(request.size_ijk, crops->iso->grid.size_ijk, sizeof request.size_ijk);
    if (count > INT_MAX)
        return err_set(err, ERR_LIMIT, "%zu candidates", count);
    struct cuda_program *program = program_for(plugin, batch, err);
    if (!program || !ports_make(plugin->model, count, batch, &ports, &results, err) ||
        !plugin->table->candidates(program, &request, keys, ports.values, NULL, err))
        return false;
    ports_give(plugin->model, &ports, &results);
    *out = results;
    return true;
}
