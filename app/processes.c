#include "app/processes.h"

#include "dicom/dicom.h"

#include <string.h>

struct store_config processes_store_config(const struct config *config) {
    return (struct store_config){
        .folder = config->data_folder,
        .quiet_ms = config->quiet_ms,
        .disk_reserve_bytes = (uint64_t)config->disk_reserve_mb << 20,
        .lease_ms = config->lease_s * 1000,
        .attempts_max = (uint32_t)config->attempts_max,
    };
}

/* Each result is queued once a destination. */
static bool check_new(const struct config_destination *known, size_t count, const char *name, struct err *err) {
    for (size_t index = 0; index < count; index++)
        if (strcmp(known[index].name, name) == 0)
            return err_set(err, ERR_CONFIG, "destinations: \"%s\" is named twice", name);
    return true;
}

static bool set_destinations(struct store *store, const struct config *config, struct err *err) {
    struct config_destination destinations[32];
    const char *names[32], *confirming[32], *cursor = config->destinations;
    size_t count = 0, confirming_count = 0;
    struct err bad = {0};
    while (count < 32 && config_destination_next(&cursor, &destinations[count], &bad)) {
        if (!check_new(destinations, count, destinations[count].name, err))
            return false;
        names[count] = destinations[count].name;
        if (destinations[count].confirm != CONFIRM_NONE)
            confirming[confirming_count++] = destinations[count].name;
        count++;
    }
    if (bad.kind)
        return err_set(err, bad.kind, "%s", bad.text);
    return store_set_destinations(store, names, count, err) &&
           store_set_confirming(store, confirming, confirming_count, err);
}

struct store *processes_store_open(const struct config *config, struct err *err) {
    struct store_config store_config = processes_store_config(config);
    struct store *store = store_open(&store_config, err);
    if (!store)
        return NULL;
    store_set_pixel_digest(store, dicom_pixel_digest);
    if (!set_destinations(store, config, err)) {
        store_close(store);
        return NULL;
    }
    return store;
}
