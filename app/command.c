#include "app/command.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_DEFAULT_PATH "/etc/pulmo/pulmo.conf"

int command_fail(const struct command *command, const struct err *err) {
    fprintf(stderr, "pulmo %s: %s\n", command->name, err->text);
    return err->kind == ERR_CONFIG ? EXIT_USAGE : EXIT_FAILED;
}

int command_usage(const struct command *command) {
    fprintf(stderr, "usage: pulmo %s\n", command->usage);
    return EXIT_USAGE;
}

const char *command_config_path(const char *path) {
    if (!path && access(CONFIG_DEFAULT_PATH, F_OK) == 0) /* one that may not be read is an error, not the defaults */
        path = CONFIG_DEFAULT_PATH;
    return path;
}

bool command_config(const char *path, struct config *out, struct err *err) {
    path = command_config_path(path);
    if (path)
        return config_read(path, out, err);
    config_defaults(out);
    return true;
}

static const struct command_option *find_option(const char *name, const struct command_option *options, size_t count) {
    for (size_t index = 0; index < count; index++)
        if (strcmp(options[index].name, name) == 0)
            return &options[index];
    return NULL;
}

int command_options(int argc, char **argv, const struct command_option *options, size_t count) {
    int kept = 0;
    for (int index = 1; index < argc; index++) {
        const struct command_option *option = find_option(argv[index], options, count);
        if (option && option->flag) {
            *option->flag = true;
        } else if (option && index + 1 < argc) {
            *option->value = argv[++index];
        } else if (option || (argv[index][0] == '-' && argv[index][1])) {
            fprintf(stderr, "pulmo: %s %s\n", argv[index], option ? "needs a value" : "is not an option");
            return -1;
        } else {
            argv[kept++] = argv[index];
        }
    }
    return kept;
}

bool command_number(const char *text, double low, double high, double *out) {
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    bool good = end != text && !*end && !errno && isfinite(value) && value >= low && value <= high;
    if (good)
        *out = value;
    else
        fprintf(stderr, "pulmo: %s is not a number from %g to %g\n", text, low, high);
    return good;
}

bool command_integer(const char *text, int64_t low, int64_t high, int64_t *out) {
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    bool good = end != text && !*end && !errno && value >= low && value <= high;
    if (good)
        *out = value;
    else
        fprintf(stderr, "pulmo: %s is not a whole number from %lld to %lld\n", text, (long long)low, (long long)high);
    return good;
}
