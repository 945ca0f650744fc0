#include "app/models.h"

#include <string.h>

bool models_open(const struct config *config, struct store *store, const char *sha256, struct engine *out,
                 struct err *err) {
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    if (!*sha256)
        return engine_open(config, out, err);
    return store_model_read(store, sha256, &files, err) && engine_open_files(config, &files, out, err);
}

bool models_follow(const struct config *config, struct store *store, char active[65], struct engine *engine,
                   bool *changed, struct err *err) {
    char now[65];
    struct engine opened;
    *changed = false;
    if (!store_model_active(store, now, err))
        return false;
    if (strcmp(now, active) == 0)
        return true;
    if (!models_open(config, store, now, &opened, err))
        return err_within(err, *now ? "the promoted model" : "the model of the configuration");
    engine_close(engine);
    *engine = opened;
    memcpy(active, now, sizeof now);
    *changed = true;
    return true;
}
