/* The program as a script sees it: exit status, standard output, standard error. For tests/test_app_*.c. */
#ifndef PULMO_TESTS_APP_PROGRAM_H
#define PULMO_TESTS_APP_PROGRAM_H

#include "pulmo.h"

#include <cjson/cJSON.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char program_folder[64]; /* of the test, removed at its end */

struct said {
    int status;
    char out[1 << 16], err[1 << 14];
};

static inline void program_read(const char *name, char *out, size_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", program_folder, name);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    out[fread(out, 1, size - 1, file)] = '\0';
    fclose(file);
}

/* Runs `pulmo ARGUMENTS`; "{}" stands for the test's folder. */
static inline const struct said *program_run(const char *arguments) {
    static struct said said;
    char line[4096];
    const char *build = getenv("PULMO_BUILD");
    size_t used = (size_t)snprintf(line, sizeof line, "%s/pulmo ", build ? build : "build");
    for (const char *at = arguments; *at && used + 80 < sizeof line; at++)
        if (at[0] == '{' && at[1] == '}') {
            used += (size_t)snprintf(line + used, sizeof line - used, "%s", program_folder);
            at++;
        } else {
            line[used++] = *at;
        }
    snprintf(line + used, sizeof line - used, " >%s/out 2>%s/err", program_folder, program_folder);
    int status = system(line); /* lint: allow system: a test runs what it wrote itself */
    assert_true(WIFEXITED(status));
    said.status = WEXITSTATUS(status);
    program_read("out", said.out, sizeof said.out);
    program_read("err", said.err, sizeof said.err);
    return &said;
}

#define assert_said(said, expected)                                                                             \
    do {                                                                                                        \
        if ((said)->status != (expected))                                                                       \
            fail_msg("exit status %d instead of %d\n%s%s", (said)->status, expected, (said)->out, (said)->err); \
    } while (0)
#define assert_contains(text, part)                                      \
    do {                                                                 \
        if (!strstr(text, part))                                         \
            fail_msg("\"%s\" is not in what was said:\n%s", part, text); \
    } while (0)

/* What was said is one JSON document; owned (cJSON_Delete). */
static inline cJSON *program_json(const struct said *said) {
    const char *end = NULL;
    cJSON *document = cJSON_ParseWithOpts(said->out, &end, false);
    if (!document || strspn(end, " \n") != strlen(end))
        fail_msg("standard output is not one JSON document:\n%s", said->out);
    return document;
}

static inline void program_write(const char *name, const char *text) {
    char path[128];
    struct err err = {0};
    snprintf(path, sizeof path, "%s/%s", program_folder, name);
    if (!bytes_write_file(path, text, strlen(text), false, &err))
        fail_msg("%s", err.text);
}

/* A configuration, {}/pulmo.conf, with a data folder of its own. */
static inline int program_setup(void **state) {
    char text[160];
    (void)state;
    snprintf(program_folder, sizeof program_folder, "/tmp/pulmo-program-XXXXXX");
    if (!mkdtemp(program_folder))
        return 1;
    snprintf(text, sizeof text, "data_folder = %s/data\npasses = 2\nthreads = 1\ndisk_reserve_mb = 16\n",
             program_folder);
    program_write("pulmo.conf", text);
    return 0;
}

static inline int program_remove(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static inline int program_teardown(void **state) {
    (void)state;
    return nftw(program_folder, program_remove, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
