#include "store/destination.h"

#include <stdio.h>
#include <string.h>

#include "store/handle.h"

bool store_set_destinations(struct store *store, const char *const *names, size_t count, struct err *err) {
    if (count > STORE_DESTINATIONS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d destinations", STORE_DESTINATIONS_MAX);
    for (size_t index = 0; index < count; index++)
        if (!*names[index] || strlen(names[index]) >= STORE_DESTINATION_SIZE)
            return err_set(err, ERR_CONFIG, "destination '%.80s': its name is empty or too long", names[index]);
    for (size_t index = 0; index < count; index++)
        snprintf(store->destinations[index], STORE_DESTINATION_SIZE, "%s", names[index]);
    store->destination_count = count;
    return true;
}

bool store_set_confirming(struct store *store, const char *const *names, size_t count, struct err *err) {
    char json[STORE_CONFIRMING_SIZE] = "[";
    size_t used = 1;
    if (count > STORE_DESTINATIONS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d destinations", STORE_DESTINATIONS_MAX);
    for (size_t index = 0; index < count; index++) {
        json[used++] = index ? ',' : ' ';
        json[used++] = '"';
        for (const char *c = names[index]; *c && used + 9 < sizeof json; c++)
            used += (size_t)snprintf(json + used, 7, "\\u%04x", (unsigned char)*c);
        json[used++] = '"';
    }
    snprintf(json + used, sizeof json - used, "]");
    memcpy(store->confirming, json, sizeof json);
    return true;
}

static size_t ae_title_length(const char *name) {
    return strcspn(name, "@");
}

const char *store_destination_now(const struct store *store, const char *name) {
    const char *moved = NULL;
    size_t length = ae_title_length(name), alike = 0;
    for (size_t index = 0; index < store->destination_count; index++) {
        const char *known = store->destinations[index];
        if (strcmp(known, name) == 0)
            return known;
        if (ae_title_length(known) == length && strncmp(known, name, length) == 0 && alike++ == 0)
            moved = known;
    }
    return alike == 1 ? moved : name;
}

static void destination_now(sqlite3_context *context, int count, sqlite3_value **values) {
    const struct store *store = sqlite3_user_data(context);
    const char *name = (const char *)sqlite3_value_text(values[0]);
    (void)count;
    if (name)
        sqlite3_result_text(context, store_destination_now(store, name), -1, SQLITE_TRANSIENT);
}

bool destination_function_add(struct store *store, struct err *err) {
    return sqlite3_create_function_v2(store->database, "destination_now", 1, SQLITE_UTF8, store, destination_now, NULL,
                                      NULL, NULL) == SQLITE_OK ||
           sql_fail(store, "cannot add the function destination_now", err);
}
