#include "app/precision.h"

#include "digest.h"
#include "phantom/phantom.h"
#include "volume/volume.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX ((size_t)1 << 16)
#define PROCESSOR_SIZE 128
/* models/README.md, Frame. */
#define SPACING_MM 1.0
#define MARGIN_MM 15.0

static void cjson_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

/* ---- a plan as JSON --------------------------------------------------------------------------------------------- */

void precision_plan_add(cJSON *object, const struct infer_precision *plan) {
    cJSON_AddStringToObject(object, "layers", plan->layers);
    cJSON_AddNumberToObject(object, "weight_max", plan->weight_max);
    cJSON *ranges = cJSON_AddArrayToObject(object, "ranges");
    for (size_t layer = 0; plan->layers[layer]; layer++)
        cJSON_AddItemToArray(ranges, cJSON_CreateNumber((double)plan->ranges[layer]));
}

bool precision_plan_read(const cJSON *object, struct infer_precision *out, struct err *err) {
    const char *layers = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "layers"));
    const cJSON *ranges = cJSON_GetObjectItemCaseSensitive(object, "ranges"), *item = NULL;
    const cJSON *weight_max = cJSON_GetObjectItemCaseSensitive(object, "weight_max");
    struct infer_precision plan = {.layers = ""};
    size_t size = layers ? strlen(layers) : 0, count = 0;
    if (size == 0 || size > INFER_LAYERS_MAX || strspn(layers, "fbi") != size ||
        (size_t)cJSON_GetArraySize(ranges) != size || !cJSON_IsNumber(weight_max) ||
        !(weight_max->valuedouble >= 1 && weight_max->valuedouble <= 127))
        return err_set(err, ERR_INPUT, "no plan of precisions");
    memcpy(plan.layers, layers, size);
    plan.weight_max = (int)weight_max->valuedouble;
    cJSON_ArrayForEach(item, ranges) {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < 1e6))
            return err_set(err, ERR_INPUT, "a range of precisions is no number");
        plan.ranges[count++] = (float)item->valuedouble;
    }
    *out = plan;
    return true;
}

void precision_plan_text(const struct infer_precision *plan, char *out, size_t size) {
    static const char letters[] = "fbi";
    static const char *const names[] = {"fp32", "bf16", "int8"};
    size_t used = 0;
    out[0] = '\0';
    for (int kind = 0; kind < 3; kind++) {
        int count = infer_precision_layers(plan, letters[kind]);
        if (count && used < size)
            used += (size_t)snprintf(out + used, size - used, "%s%d layers %s", used ? ", " : "", count, names[kind]);
    }
}

void precision_report_text(const struct infer_precision *plan, size_t findings_full, size_t tiles_full, char *out,
                           size_t size) {
    char layers[64];
    precision_plan_text(plan, layers, sizeof layers);
    snprintf(out, size, "mixed(%s; %zu findings, %zu tiles again fp32)", layers, findings_full, tiles_full);
}

/* ---- what is kept ------------------------------------------------------------------------------------------------ */

/* As the kernel names it; "unknown" where it does not. */
static void processor_name(char out[PROCESSOR_SIZE]) {
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(out, PROCESSOR_SIZE, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(out, PROCESSOR_SIZE, "%s", colon[1] == ' ' ? colon + 2 : colon + 1);
        break;
    }
    if (file)
        fclose(file);
}

/* <data_folder>/calibration/<digest of what the times belong to>.json */
static bool kept_path(const struct config *config, const struct infer_model *model, char out[4096], struct err *err) {
    char processor[PROCESSOR_SIZE], key[512], digest[DIGEST_HEX_SIZE];
    processor_name(processor);
    int size = snprintf(key, sizeof key, "%s\n%s\n%s\n%s", processor, infer_backend_library(),
                        infer_backend_instruction_set(), infer_model_info(model)->sha256);
    if (size < 0 || (size_t)size >= sizeof key || !digest_hex(key, (size_t)size, digest, err))
        return false;
    snprintf(out, 4096, "%s/calibration/%.24s.json", config->data_folder, digest);
    return true;
}

static double number_of(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

bool precision_kept(const struct config *config, const struct infer_model *model, struct infer_calibration *out,
                    struct err *err) {
    char path[4096];
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    if (!kept_path(config, model, path, err) || !bytes_read_file(path, FILE_BYTES_MAX, &file, err))
        return false;
    PULMO_SCOPED(cjson_free_at) cJSON *json = cJSON_ParseWithLength((const char *)file.data, file.size);
    struct infer_calibration kept = {.gain = number_of(json, "gain"), .error = number_of(json, "error")};
    kept.refused_gain = number_of(json, "refused_gain");
    kept.tiles = (size_t)number_of(json, "tiles");
    if (!precision_plan_read(json, &kept.plan, err))
        return err_set(err, ERR_CONFIG, "%s is damaged; remove it or run `pulmo model calibrate`", path);
    *out = kept;
    return true;
}

static bool keep(const char *path, const struct infer_model *model, const struct infer_calibration *made,
                 struct err *err) {
    char processor[PROCESSOR_SIZE], folder[4096];
    processor_name(processor);
    PULMO_SCOPED(cjson_free_at) cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "processor", processor);
    cJSON_AddStringToObject(json, "library", infer_backend_library());
    cJSON_AddStringToObject(json, "instruction_set", infer_backend_instruction_set());
    cJSON_AddStringToObject(json, "model_sha256", infer_model_info(model)->sha256);
    precision_plan_add(json, &made->plan);
    cJSON_AddNumberToObject(json, "gain", made->gain);
    cJSON_AddNumberToObject(json, "refused_gain", made->refused_gain);
    cJSON_AddNumberToObject(json, "error", made->error);
    cJSON_AddNumberToObject(json, "tiles", (double)made->tiles);
    PULMO_SCOPED(pulmo_free_at) char *text = cJSON_Print(json);
    if (!text)
        return err_set(err, ERR_MEMORY, "out of memory for the calibration");
    /* the data folder too: before the first start there is none */
    for (const char *slash = strrchr(path, '/'), *end = memrchr(path, '/', (size_t)(slash - path)); end;
         end = end == slash ? NULL : slash) {
        snprintf(folder, sizeof folder, "%.*s", (int)(end - path), path);
        if (mkdir(folder, 0750) != 0 && errno != EEXIST)
            return err_set(err, ERR_IO, "cannot make the folder %.300s: %s", folder, strerror(errno));
    }
    return bytes_write_file(path, text, strlen(text), true, err);
}

/* ---- calibration ------------------------------------------------------------------------------------------------- */

static void phantom_clear(struct phantom *phantom) {
    phantom_free(phantom);
}

struct volume *precision_chest(struct err *err) {
    static const struct phantom_config chest = {.seed = 1, .nodules = 12, .spacing_mm = 2.5};
    PULMO_SCOPED(phantom_clear) struct phantom phantom = {0};
    if (!phantom_make(&chest, &phantom, err))
        return NULL;
    PULMO_SCOPED(volume_free_at) struct volume *iso = volume_resample_iso(phantom.volume, SPACING_MM, err);
    PULMO_SCOPED(mask_free_at) struct mask *lungs = iso ? volume_lungs(iso, err) : NULL;
    if (!lungs || !volume_mask_outside(iso, lungs, MARGIN_MM, err))
        return NULL;
    struct volume *result = iso;
    iso = NULL;
    return result;
}

bool precision_calibrate(const struct config *config, const struct infer_model *model, struct infer_calibration *out,
                         struct err *err) {
    char path[4096];
    struct infer_calibration made;
    PULMO_SCOPED(volume_free_at) struct volume *chest = precision_chest(err);
    if (!chest || !infer_calibrate(model, chest, &made, err) || !kept_path(config, model, path, err) ||
        !keep(path, model, &made, err))
        return err_within(err, "calibration");
    *out = made;
    return true;
}

bool precision_configured(const struct config *config, const struct infer_model *model, struct infer_precision *out,
                          bool *mixed, struct err *err) {
    struct infer_calibration calibration = {.plan = {.layers = ""}};
    struct err why = {0};
    *mixed = false;
    if (strcmp(config->precision, "fp32") == 0)
        return true;
    if (!precision_kept(config, model, &calibration, &why)) {
        if (why.kind != ERR_NOT_FOUND)
            return err_set(err, why.kind, "%s", why.text);
        if (strcmp(config->precision, "auto") == 0)
            return true;
        if (!precision_calibrate(config, model, &calibration, err))
            return false;
    }
    *out = calibration.plan;
    *mixed = strspn(out->layers, "f") != strlen(out->layers);
    return true;
}
