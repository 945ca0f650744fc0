#include "web/request.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool request_number(const struct request *request, size_t parameter, int64_t *out, struct err *err) {
    const char *text = request->parameters[parameter];
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 18 || text[digits] != '\0')
        return err_set(err, ERR_NOT_FOUND, "there is no \"%s\" here", text);
    *out = strtoll(text, NULL, 10);
    return true;
}

bool request_uid(const struct request *request, size_t parameter, const char **out, struct err *err) {
    const char *text = request->parameters[parameter];
    size_t length = strspn(text, "0123456789.");
    if (length == 0 || length >= DICOM_UID_SIZE || text[length] != '\0')
        return err_set(err, ERR_NOT_FOUND, "\"%s\" is not a UID", text);
    *out = text;
    return true;
}

bool request_text(const struct request *request, const char *name, size_t size_max, const char **out, struct err *err) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request->body, name));
    if (!text)
        return err_set(err, ERR_INPUT, "\"%s\" is missing or no text", name);
    if (strlen(text) > size_max)
        return err_set(err, ERR_INPUT, "\"%s\" is longer than %zu bytes", name, size_max);
    *out = text;
    return true;
}

bool request_real(const struct request *request, const char *name, double *out, struct err *err) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(request->body, name);
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
        return err_set(err, ERR_INPUT, "\"%s\" is missing or no number", name);
    *out = item->valuedouble;
    return true;
}

bool request_vector(const struct request *request, const char *name, double out[3], struct err *err) {
    const cJSON *array = cJSON_GetObjectItemCaseSensitive(request->body, name);
    if (!cJSON_IsArray(array) || cJSON_GetArraySize(array) != 3)
        return err_set(err, ERR_INPUT, "\"%s\" is missing or not three numbers", name);
    double values[3];
    for (int axis = 0; axis < 3; axis++) {
        const cJSON *item = cJSON_GetArrayItem(array, axis);
        if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
            return err_set(err, ERR_INPUT, "\"%s\" is not three numbers", name);
        values[axis] = item->valuedouble;
    }
    memcpy(out, values, sizeof values);
    return true;
}

void request_json_free_at(cJSON **json) {
    cJSON_Delete(*json);
}
