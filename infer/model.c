/* model.json and what it names (models/README.md). */
#include "infer/model.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"

#define MODEL_JSON_BYTES_MAX ((size_t)1 << 16)
#define DIAMETER_MIN_MM 2.0 /* as the detector has it */

static void json_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

static void model_free_at(struct infer_model **model) {
    infer_model_free(*model);
}

void infer_model_free(struct infer_model *model) {
    if (!model)
        return;
    infer_graph_free(model->detector);
    infer_graph_free(model->trunk);
    infer_graph_free(model->tail);
    infer_graph_free(model->gate);
    free(model->name);
    free(model->version);
    free(model);
}

const struct infer_model_info *infer_model_info(const struct infer_model *model) {
    return &model->info;
}

/* ---- JSON, every member checked --------------------------------------------------------------------------- */

struct range {
    double low, high;
};

static bool json_number(const cJSON *object, const char *name, struct range range, double *out, struct err *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!cJSON_IsNumber(item))
        return err_set(err, ERR_INPUT, "%s is missing or no number", name);
    if (!(item->valuedouble >= range.low && item->valuedouble <= range.high))
        return err_set(err, ERR_INPUT, "%s = %g is not within %g to %g", name, item->valuedouble, range.low,
                       range.high);
    *out = item->valuedouble;
    return true;
}

static bool json_whole(const cJSON *object, const char *name, struct range range, int *out, struct err *err) {
    double number = 0;
    if (!json_number(object, name, range, &number, err))
        return false;
    if (number != floor(number))
        return err_set(err, ERR_INPUT, "%s = %g is not whole", name, number);
    *out = (int)number;
    return true;
}

/* What a model need not say: *out stays. */
static bool json_whole_if(const cJSON *object, const char *name, struct range range, int *out, struct err *err) {
    return !cJSON_GetObjectItemCaseSensitive(object, name) || json_whole(object, name, range, out, err);
}

static const char *json_text(const cJSON *object, const char *name, size_t size_max, struct err *err) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    if (text && *text && strlen(text) < size_max)
        return text;
    err_set(err, ERR_INPUT, "%s is missing, empty or too long", name);
    return NULL;
}

static const cJSON *json_object(const cJSON *object, const char *name, struct err *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (cJSON_IsObject(item))
        return item;
    err_set(err, ERR_INPUT, "%s is missing or no object", name);
    return NULL;
}

/* ---- graphs ------------------------------------------------------------------------------------------------ */

/* `file` lies beside model.json and nowhere else. */
static bool beside(const char *json_path, const char *file, char *out, size_t out_size, struct err *err) {
    const char *slash = strrchr(json_path, '/');
    int folder = slash ? (int)(slash - json_path + 1) : 0;
    if (strchr(file, '/') || file[0] == '.')
        return err_set(err, ERR_INPUT, "file %.100s is not a plain name", file);
    int wrote = snprintf(out, out_size, "%.*s%s", folder, json_path, file);
    if (wrote < 0 || (size_t)wrote >= out_size)
        return err_set(err, ERR_LIMIT, "the path of %.100s is too long", file);
    return true;
}

/* Where a model's files come from: the folder of a model.json, or memory. */
struct source {
    const char *json_path;
    const struct model_files *files; /* NULL = the folder */
};

/* The file's content: *held when it was read for the caller, otherwise borrowed from the source. */
static bool source_read(const struct source *source, const char *name, struct bytes *held, struct bytes *out,
                        struct err *err) {
    char path[4096];
    if (!source->files) {
        bool read = beside(source->json_path, name, path, sizeof path, err) &&
                    bytes_read_file(path, GRAPH_FILE_BYTES_MAX, held, err);
        *out = *held;
        return read;
    }
    for (size_t index = 0; index < source->files->count; index++)
        if (strcmp(source->files->items[index].name, name) == 0) {
            *out = source->files->items[index].content;
            return true;
        }
    return err_set(err, ERR_NOT_FOUND, "file %.100s of the model is missing", name);
}

static struct graph *graph_open(const struct source *source, const cJSON *part, struct err *err) {
    char digest[DIGEST_HEX_SIZE];
    PULMO_SCOPED(bytes_free) struct bytes held = {0};
    struct bytes file = {0};
    const char *name = json_text(part, "file", 256, err);
    const char *wanted = name ? json_text(part, "sha256", DIGEST_HEX_SIZE, err) : NULL;
    if (!wanted || !source_read(source, name, &held, &file, err) || !digest_hex(file.data, file.size, digest, err))
        return NULL;
    if (strcmp(digest, wanted) != 0) {
        err_set(err, ERR_INPUT, "%s has digest %.12s..., model.json says %.12s...", name, digest, wanted);
        return NULL;
    }
    struct graph *graph = infer_graph_open(file.data, file.size, err);
    if (!graph)
        err_within(err, "%s", name);
    return graph;
}

/* Shape of one output for one input, or rank -1. */
static struct shape output_shape(const struct graph *graph, const struct shape *input, int output, struct err *err) {
    PULMO_SCOPED(pulmo_free_at)
    struct tensor *tensors = pulmo_alloc((size_t)graph->value_count, sizeof *tensors, err);
    if (!tensors || !infer_graph_shapes(graph, input, tensors, err))
        return (struct shape){.rank = -1};
    return tensors[graph->outputs[output]].shape;
}

static bool expect_shape(const struct shape *got, const struct shape *want, const char *name, struct err *err) {
    char one[96], two[96];
    if (got->rank < 0)
        return false;
    if (infer_shape_equal(got, want))
        return true;
    infer_shape_text(got, one, sizeof one);
    infer_shape_text(want, two, sizeof two);
    return err_set(err, ERR_INPUT, "output %s has shape %s instead of %s", name, one, two);
}

static bool detector_check(struct infer_model *model, struct err *err) {
    static const char *const names[DETECTOR_OUTPUTS] = {"heatmap", "offset", "log_diameter"};
    static const int64_t channels[DETECTOR_OUTPUTS] = {1, 3, 1};
    struct graph *graph = model->detector;
    int64_t tile = model->tile, cells = tile / MODEL_STRIDE;
    struct shape input = {.rank = 5, .dims = {1, 1, tile, tile, tile}};
    if (graph->input_count != 1)
        return err_set(err, ERR_INPUT, "%d inputs instead of one", graph->input_count);
    for (int i = 0; i < DETECTOR_OUTPUTS; i++) {
        int value = infer_graph_value(graph, names[i]);
        model->detector_outputs[i] = -1;
        for (int k = 0; k < graph->output_count; k++)
            if (graph->outputs[k] == value)
                model->detector_outputs[i] = k;
        if (model->detector_outputs[i] < 0)
            return err_set(err, ERR_INPUT, "there is no output %s", names[i]);
        struct shape want = {.rank = 5, .dims = {1, channels[i], cells, cells, cells}};
        struct shape got = output_shape(graph, &input, model->detector_outputs[i], err);
        if (!expect_shape(&got, &want, names[i], err))
            return false;
    }
    return true;
}

static bool detector_read(struct infer_model *model, const struct source *source, const cJSON *root, struct err *err) {
    const cJSON *part = json_object(root, "detector", err);
    double candidates = 0;
    if (!part || !json_whole(part, "tile", (struct range){32, 256}, &model->tile, err) ||
        !json_whole(part, "margin", (struct range){0, 64}, &model->margin, err) ||
        !json_number(part, "score_min", (struct range){1e-6, 0.999}, &model->score_min, err) ||
        !json_number(part, "candidates_max", (struct range){1, 1000}, &candidates, err))
        return false;
    model->candidates_max = (size_t)candidates;
    if (model->tile % 8 || model->margin % MODEL_STRIDE || 2 * model->margin >= model->tile)
        return err_set(err, ERR_INPUT, "tile %d and margin %d do not fit the strides", model->tile, model->margin);
    model->cam_side = model->tile;
    if (!json_whole_if(part, "cam_side", (struct range){32, 256}, &model->cam_side, err))
        return false;
    if (model->cam_side % 8 || 2 * model->margin >= model->cam_side)
        return err_set(err, ERR_INPUT, "cam_side %d does not fit the strides or the margin", model->cam_side);
    if (!json_whole_if(part, "inner_max", (struct range){0, 256}, &model->inner_max, err))
        return false;
    if (model->inner_max % 8)
        return err_set(err, ERR_INPUT, "inner_max %d is no multiple of 8", model->inner_max);
    if (!json_whole_if(part, "recompute_side", (struct range){32, 256}, &model->recompute_side, err))
        return false;
    if (model->recompute_side % 8 || (model->recompute_side && 2 * model->margin >= model->recompute_side))
        return err_set(err, ERR_INPUT, "recompute_side %d does not fit the strides or the margin",
                       model->recompute_side);
    const char *layer = json_text(part, "cam_layer", 256, err);
    if (!layer || !(model->detector = graph_open(source, part, err)))
        return false;
    model->cam_value = infer_graph_value(model->detector, layer);
    if (model->cam_value < 0 || model->detector->values[model->cam_value].producer < 0)
        return err_set(err, ERR_INPUT, "cam_layer %.100s is no layer of the fused graph", layer);
    return detector_check(model, err);
}

/* The values between trunk and passes are batched, or repeating them would be wrong. */
static bool candidate_check(const struct infer_model *model, struct err *err) {
    int64_t side = model->side;
    struct shape input = {.rank = 5, .dims = {1, 1, side, side, side}}, inputs[GRAPH_PORTS_MAX];
    for (int i = 0; model->tail && i < model->tail->input_count; i++) {
        inputs[i] = output_shape(model->trunk, &input, model->tail_sources[i], err);
        if (inputs[i].rank < 0)
            return false;
        if (inputs[i].rank < 1 || inputs[i].dims[0] != 1)
            return err_set(err, ERR_UNSUPPORTED, "a value that enters the passes has no batch axis");
    }
    static const struct shape wanted[CANDIDATE_OUTPUTS] = {
        {.rank = 2, .dims = {1, 1}},
        {.rank = 2, .dims = {1, 3}},
        {.rank = 2, .dims = {1, 1}},
        {.rank = 5, .dims = {1, 1, INFER_ATTENTION_SIDE, INFER_ATTENTION_SIDE, INFER_ATTENTION_SIDE}}};
    static const char *const names[] = {"logit", "texture", "log_diameter", "attention"};
    for (int i = 0; i < CANDIDATE_OUTPUTS; i++) {
        const struct candidate_port *port = &model->candidate_outputs[i];
        struct shape got = port->in_tail ? output_shape(model->tail, inputs, port->index, err)
                                         : output_shape(model->trunk, &input, port->index, err);
        if (!expect_shape(&got, &wanted[i], names[i], err))
            return false;
    }
    return true;
}

/* A model that does not say sees each crop once, as it lies. */
static bool flips_read(const cJSON *part, uint32_t *out, struct err *err) {
    int flips = 1;
    if (!json_whole_if(part, "flips", (struct range){1, INFER_FLIPS_MAX}, &flips, err))
        return false;
    if (flips & (flips - 1))
        return err_set(err, ERR_INPUT, "flips = %d is not 1, 2, 4 or 8", flips);
    *out = (uint32_t)flips;
    return true;
}

static bool candidate_read(struct infer_model *model, const struct source *source, const cJSON *root, struct err *err) {
    const cJSON *part = json_object(root, "candidate", err);
    if (!part || !json_whole(part, "side", (struct range){8, 128}, &model->side, err) ||
        !json_number(part, "dropout", (struct range){0, 0.95}, &model->info.dropout, err) ||
        !flips_read(part, &model->info.flips, err))
        return false;
    if (model->side % 2)
        return err_set(err, ERR_INPUT, "a crop of odd side %d has no middle between voxels", model->side);
    PULMO_SCOPED(infer_graph_free_at) struct graph *graph = graph_open(source, part, err);
    return graph && infer_model_split(model, graph, err) && candidate_check(model, err);
}

/* ---- the gate, which a model need not have ------------------------------------------------------------------ */

static bool limits_read(const cJSON *limits, const char *name, double out[INFER_GATE_CHANNELS], struct err *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(limits, name);
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != INFER_GATE_CHANNELS)
        return err_set(err, ERR_INPUT, "limits: %s is no list of %d", name, INFER_GATE_CHANNELS);
    for (int i = 0; i < INFER_GATE_CHANNELS; i++) {
        const cJSON *item = cJSON_GetArrayItem(list, i);
        if (!cJSON_IsNumber(item) || !(item->valuedouble > 0 && item->valuedouble < 1e6))
            return err_set(err, ERR_INPUT, "limits: %s holds what is no limit", name);
        out[i] = item->valuedouble;
    }
    return true;
}

static bool gate_read(struct infer_model *model, const struct source *source, const cJSON *root, struct err *err) {
    if (!cJSON_GetObjectItemCaseSensitive(root, "gate"))
        return true;
    const cJSON *part = json_object(root, "gate", err);
    const cJSON *limits = part ? json_object(part, "limits", err) : NULL;
    if (!limits || !limits_read(limits, "whole", model->gate_limits[GATE_WHOLE], err) ||
        !limits_read(limits, "slice", model->gate_limits[GATE_SLICE], err) ||
        !json_number(limits, "turned", (struct range){1e-6, 1e6}, &model->gate_turned_limit, err) ||
        !json_number(limits, "repeated", (struct range){1e-6, 1e6}, &model->gate_repeated_limit, err) ||
        !(model->gate = graph_open(source, part, err)))
        return false;
    const struct graph *graph = model->gate;
    int value = infer_graph_value(graph, "reconstruction");
    model->gate_output = -1;
    for (int k = 0; k < graph->output_count; k++)
        if (graph->outputs[k] == value)
            model->gate_output = k;
    if (graph->input_count != 1 || model->gate_output < 0)
        return err_set(err, ERR_INPUT, "gate: not one input and an output reconstruction");
    struct shape frame = {
        .rank = 5, .dims = {GATE_TURNS, INFER_GATE_CHANNELS, INFER_GATE_SLICES, INFER_GATE_ROWS, INFER_GATE_COLUMNS}};
    struct shape got = output_shape(graph, &frame, model->gate_output, err);
    model->info.has_gate = true;
    return expect_shape(&got, &frame, "reconstruction", err);
}

/* ---- the rest of model.json --------------------------------------------------------------------------------- */

static bool tally_read(const cJSON *review, const char *name, struct infer_tally *out, struct err *err) {
    const cJSON *part = json_object(review, name, err);
    int findings = 0, wrong = 0;
    if (!part || !json_whole(part, "findings", (struct range){0, 1e9}, &findings, err) ||
        !json_whole(part, "wrong", (struct range){0, findings}, &wrong, err))
        return err_within(err, "%s", name);
    *out = (struct infer_tally){(uint32_t)findings, (uint32_t)wrong};
    return true;
}

/* The threshold, and where it was measured what it is worth. */
static bool review_read(const cJSON *root, struct infer_model_info *info, struct err *err) {
    const cJSON *review = cJSON_GetObjectItemCaseSensitive(root, "review");
    info->review_mutual_information_nats = -1;
    if (!review)
        return true;
    if (!json_number(review, "mutual_information_nats", (struct range){0, 1}, &info->review_mutual_information_nats,
                     err))
        return err_within(err, "review");
    if (!cJSON_GetObjectItemCaseSensitive(review, "reviewed"))
        return true;
    return (tally_read(review, "reviewed", &info->reviewed, err) &&
            tally_read(review, "others", &info->not_reviewed, err)) ||
           err_within(err, "review");
}

/* [[from, to], ...], two points or more; missing = none. */
static bool curve_read(const cJSON *calibration, struct infer_curve *out, struct err *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(calibration, "curve"), *point = NULL;
    if (!list)
        return true;
    int size = cJSON_GetArraySize(list);
    if (!cJSON_IsArray(list) || size < 2 || size > INFER_CURVE_MAX)
        return err_set(err, ERR_INPUT, "curve is no list of 2 to %d points", INFER_CURVE_MAX);
    uint32_t count = 0;
    cJSON_ArrayForEach(point, list) {
        const cJSON *from = cJSON_GetArrayItem(point, 0), *to = cJSON_GetArrayItem(point, 1);
        if (!cJSON_IsNumber(from) || !cJSON_IsNumber(to) || !(fabs(from->valuedouble) <= 1e3) ||
            !(fabs(to->valuedouble) <= 1e3))
            return err_set(err, ERR_INPUT, "point %u of curve is no pair of logits", count);
        if (count > 0 && !(from->valuedouble > out->from[count - 1] && to->valuedouble > out->to[count - 1]))
            return err_set(err, ERR_INPUT, "point %u of curve does not lie beyond the one before", count);
        out->from[count] = from->valuedouble;
        out->to[count++] = to->valuedouble;
    }
    out->count = count;
    return true;
}

static bool diameter_read(const cJSON *root, struct infer_diameter *out, struct err *err) {
    const cJSON *diameter = cJSON_GetObjectItemCaseSensitive(root, "diameter");
    return !diameter ||
           (json_number(diameter, "offset_mm", (struct range){-5, 5}, &out->offset_mm, err) &&
            json_number(diameter, "slope", (struct range){0.5, 2}, &out->slope, err) &&
            json_number(diameter, "mask", (struct range){0, 2}, &out->mask, err) &&
            json_number(diameter, "reach", (struct range){0, 1}, &out->reach, err)) ||
           err_within(err, "diameter");
}

double infer_diameter_mm(const struct infer_diameter *diameter, double network_mm, double mask_mm3) {
    if (diameter->slope <= 0)
        return network_mm;
    double reach_mm = diameter->reach * network_mm;
    double more_mm = mask_mm3 > 0 ? cbrt(6 * mask_mm3 / M_PI) - network_mm : 0;
    double mm =
        diameter->offset_mm + diameter->slope * network_mm + diameter->mask * fmin(fmax(more_mm, -reach_mm), reach_mm);
    return fmax(mm, DIAMETER_MIN_MM);
}

static bool info_read(struct infer_model *model, const cJSON *root, struct err *err) {
    struct infer_model_info *info = &model->info;
    const char *name = json_text(root, "name", 128, err);
    const char *version = name ? json_text(root, "version", 64, err) : NULL;
    const cJSON *calibration = version ? json_object(root, "calibration", err) : NULL;
    static const struct range any = {-1e6, 1e6};
    int passes = 0;
    if (!calibration || !json_number(calibration, "a", any, &info->calibration_a, err) ||
        !json_number(calibration, "b", any, &info->calibration_b, err) ||
        !json_number(calibration, "c", any, &info->calibration_c, err) ||
        !curve_read(calibration, &info->calibration_curve, err) ||
        !json_number(root, "operating_point", (struct range){0, 1}, &info->operating_point, err) ||
        !json_whole(root, "passes", (struct range){1, FINDING_PASSES_MAX}, &passes, err))
        return false;
    info->passes = (uint32_t)passes;
    if (!review_read(root, info, err) || !diameter_read(root, &info->diameter, err))
        return false;
    model->name = strdup(name);
    model->version = strdup(version);
    info->name = model->name;
    info->version = model->version;
    return (model->name && model->version) || err_set(err, ERR_MEMORY, "out of memory for a name");
}

static bool model_read(struct infer_model *model, const struct source *source, const struct bytes *text,
                       struct err *err) {
    if (!digest_hex(text->data, text->size, model->info.sha256, err))
        return false;
    PULMO_SCOPED(json_free_at) cJSON *root = cJSON_ParseWithLength((const char *)text->data, text->size);
    if (!cJSON_IsObject(root))
        return err_set(err, ERR_INPUT, "not a JSON object");
    return info_read(model, root, err) && detector_read(model, source, root, err) &&
           candidate_read(model, source, root, err) && gate_read(model, source, root, err);
}

static struct infer_model *model_open(const struct source *source, const struct bytes *text, struct err *err) {
    PULMO_SCOPED(model_free_at) struct infer_model *model = pulmo_alloc(1, sizeof *model, err);
    if (!model || !model_read(model, source, text, err))
        return NULL;
    struct infer_model *result = model;
    model = NULL;
    return result;
}

struct infer_model *infer_model_open(const char *model_json_path, struct err *err) {
    const struct source source = {.json_path = model_json_path};
    PULMO_SCOPED(bytes_free) struct bytes text = {0};
    struct infer_model *model = NULL;
    if (bytes_read_file(model_json_path, MODEL_JSON_BYTES_MAX, &text, err))
        model = model_open(&source, &text, err);
    if (!model)
        err_within(err, "model %.200s", model_json_path);
    return model;
}

/* ---- a model as its files ----------------------------------------------------------------------------------- */

#define MODEL_JSON "model.json"

struct infer_model *infer_model_open_files(const struct model_files *files, struct err *err) {
    const struct source source = {.files = files};
    if (!files->count || strcmp(files->items[0].name, MODEL_JSON) != 0 ||
        files->items[0].content.size > MODEL_JSON_BYTES_MAX) {
        err_set(err, ERR_INPUT, "the model's files do not begin with a " MODEL_JSON);
        return NULL;
    }
    return model_open(&source, &files->items[0].content, err);
}

static bool is_there(const struct model_files *files, const char *name) {
    for (size_t index = 0; index < files->count; index++)
        if (strcmp(files->items[index].name, name) == 0)
            return true;
    return false;
}

/* Every part of the document that names a file with its digest, so that parts of later versions come along. */
static bool parts_read(const struct source *source, const cJSON *root, struct model_files *files, struct err *err) {
    const cJSON *part = NULL;
    cJSON_ArrayForEach(part, root) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(part, "file"));
        PULMO_SCOPED(bytes_free) struct bytes held = {0};
        struct bytes content = {0};
        if (!name || is_there(files, name))
            continue;
        if (!source_read(source, name, &held, &content, err) || !model_files_add(files, name, &held, err))
            return false;
    }
    return true;
}

bool infer_model_files_read(const char *model_json_path, struct model_files *out, struct err *err) {
    const struct source source = {.json_path = model_json_path};
    PULMO_SCOPED(bytes_free) struct bytes text = {0};
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    PULMO_SCOPED(json_free_at) cJSON *root = NULL;
    if (!bytes_read_file(model_json_path, MODEL_JSON_BYTES_MAX, &text, err))
        return err_within(err, "model %.200s", model_json_path);
    root = cJSON_ParseWithLength((const char *)text.data, text.size);
    if (!cJSON_IsObject(root))
        return err_set(err, ERR_INPUT, "model %.200s: not a JSON object", model_json_path);
    if (!model_files_add(&files, MODEL_JSON, &text, err) || !parts_read(&source, root, &files, err))
        return err_within(err, "model %.200s", model_json_path);
    *out = files;
    files.count = 0;
    return true;
}
