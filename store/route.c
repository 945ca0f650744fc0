/* What the store would do with an instance: the decisions of reception, without its writes. */
#include <stdio.h>
#include <string.h>

#include "store/blob.h"
#include "store/handle.h"
#include "store/instance.h"
#include "store/version.h"

bool store_route(struct store *store, const struct instance *instance, struct store_route *out, struct err *err) {
    struct version_input input;
    struct version_decision decision = {.version = VERSION_FIRST};
    struct store_route route = {.study = {.instances = 0}};
    struct err unknown = {0};
    bool foreign = false;
    if (!instance_check(instance, err) ||
        !blob_room(store->config.folder, store->config.disk_reserve_bytes, instance->part10_size, err) ||
        !version_input_make(instance, &input, err) || !version_decide(store, &input, &decision, err) ||
        !version_is_foreign(store, instance, &foreign, err))
        return false;
    if (decision.version == VERSION_FIRST && foreign)
        decision.version = VERSION_FOREIGN;
    snprintf(route.version, sizeof route.version, "%s",
             decision.version == VERSION_SAME ? "same" : version_name(decision.version));
    route.becomes_current = decision.version == VERSION_FIRST || decision.version == VERSION_CORRECTED ||
                            (decision.version == VERSION_TRANSCODED && decision.first_purged);
    route.study_known = store_study_get(store, instance->study_uid, &route.study, &unknown);
    if (!route.study_known && unknown.kind != ERR_NOT_FOUND)
        return err_set(err, unknown.kind, "%s", unknown.text);
    *out = route;
    return true;
}
