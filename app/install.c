#include "app/install.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool program_folder(char out[2048], struct err *err) {
    ssize_t size = readlink("/proc/self/exe", out, 2047);
    if (size < 0)
        return err_set(err, ERR_INTERNAL, "the program does not know where it lies");
    out[size] = '\0';
    char *slash = strrchr(out, '/');
    if (slash)
        *slash = '\0';
    return true;
}

bool install_find(const char *configured, const char *in_tree, const char *installed, char out[4096], struct err *err) {
    if (*configured) {
        snprintf(out, 4096, "%s", configured);
        return true;
    }
    char program[2048];
    if (!program_folder(program, err))
        return false;
    const char *const places[][2] = {{"/../", in_tree}, {"/../../", in_tree}, {"/../share/pulmo/", installed}};
    for (size_t index = 0; index < sizeof places / sizeof *places; index++) {
        snprintf(out, 4096, "%s%s%s", program, places[index][0], places[index][1]);
        if (access(out, R_OK) == 0)
            return true;
    }
    return err_set(err, ERR_CONFIG,
                   "%s was found neither beside the program nor below its prefix; set it in the configuration",
                   in_tree);
}

bool install_beside(const char *configured, const char *name, char out[4096], struct err *err) {
    char program[2048];
    if (*configured) {
        snprintf(out, 4096, "%s", configured);
        return true;
    }
    if (!program_folder(program, err))
        return false;
    snprintf(out, 4096, "%s/%s", program, name);
    if (access(out, R_OK) != 0)
        snprintf(out, 4096, "%s/../lib/pulmo/%s", program, name);
    return true;
}
