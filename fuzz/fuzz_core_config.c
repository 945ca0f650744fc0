/* Any bytes as a line of the configuration, "key = value" cut at the first "=", and as its list of destinations. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_destinations(const char *text) {
    struct config_destination destination;
    struct err err = {0};
    while (config_destination_next(&text, &destination, &err))
        ;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *line = calloc(size + 1, 1);
    if (!line)
        return 0;
    if (size)
        memcpy(line, data, size);
    walk_destinations(line);
    char *value = strchr(line, '=');
    if (value) {
        *value++ = '\0';
        struct config config;
        struct err err = {0};
        config_defaults(&config);
        if (config_set(&config, line, value, &err))
            walk_destinations(config.destinations);
    }
    free(line);
    return 0;
}
