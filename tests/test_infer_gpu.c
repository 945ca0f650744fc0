/* LABELS: full
 * The programs of bench/gpu.sh, on the host card: a case is packed, measured with the plugin, and a damaged one
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pulmo.h"

static char folder[] = "/tmp/pulmo-gpu-XXXXXX", output[64], tests[512];

/* Runs <build>/tests/<name> with up to three arguments, its output into `output`; its exit status. */
static int run(const char *name, const char *first, const char *second, const char *third) {
    char program[600];
    snprintf(program, sizeof program, "%s/%s", tests, name);
    pid_t child = fork();
    if (child == 0) {
        int file = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (file >= 0 && dup2(file, STDOUT_FILENO) >= 0)
            execl(program, name, first, second, third, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void says(const char *text) {
    PULMO_SCOPED(bytes_free) struct bytes said = {0};
    struct err err = {0};
    assert_true(bytes_read_file(output, 1 << 20, &said, &err));
    if (!memmem(said.data, said.size, text, strlen(text)))
        fail_msg("\"%s\" is not in: %.*s", text, (int)said.size, (const char *)said.data);
}

static void what_is_missing_has_a_status_of_its_own(void **state) {
    (void)state;
    char plugin[600], path[128];
    struct err err = {0};
    snprintf(plugin, sizeof plugin, "%s/libhost_plugin.so", tests);
    snprintf(path, sizeof path, "%s/case.bin", folder);
    assert_int_equal(run("infer_gpu_measure", "/nonexistent.so", folder, "--quick"), 77);
    says("no card: the plugin cannot be loaded");
    setenv("PULMO_HOST_CARD_NONE", "1", 1);
    assert_int_equal(run("infer_gpu_measure", plugin, folder, "--quick"), 77);
    says("no card: no card is plugged in");
    unsetenv("PULMO_HOST_CARD_NONE");
    assert_int_equal(run("infer_gpu_measure", plugin, folder, "--quick"), 1);
    says("failed: cannot read ");
    static const char *const names[] = {"detector.plan", "candidate.plan", "case.bin"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[n]);
        assert_true(bytes_write_file(path, "no case", 7, false, &err));
    }
    assert_int_equal(run("infer_gpu_measure", plugin, folder, "--quick"), 1);
    says("is no case of this version");
    assert_int_equal(run("infer_gpu_measure", NULL, NULL, NULL), 2);
}

static int setup(void **state) {
    (void)state;
    const char *build = getenv("PULMO_BUILD");
    snprintf(tests, sizeof tests, "%s/tests", build ? build : "build");
    if (!mkdtemp(folder))
        return -1;
    snprintf(output, sizeof output, "%s.txt", folder);
    return 0;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static int teardown(void **state) {
    (void)state;
    unlink(output);
    return nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void) {
    const struct CMUnitTest cases[] = {cmocka_unit_test(what_is_missing_has_a_status_of_its_own)};
    return cmocka_run_group_tests(cases, setup, teardown);
}
