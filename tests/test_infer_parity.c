/* LABELS: full
 * Every operator of the contract against PyTorch: at least 20 random shapes each (odd sides, stride 2, batch 1 to 3),
 * written by train/dump_operators.py. Tolerance: |got - want| <= 2e-5 * max(1, greatest |want|) of the case; sums run
 * in another order than PyTorch's, so the last bits differ. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "infer_cases.h"

#define TOLERANCE 2e-5

struct tally {
    char name[64];
    int cases;
    double worst; /* relative to max(1, magnitude) */
};

static struct tally tallies[64];
static int tally_count;

static struct tally *tally_of(const char *name) {
    for (int i = 0; i < tally_count; i++)
        if (strcmp(tallies[i].name, name) == 0)
            return &tallies[i];
    assert_true(tally_count < 64);
    snprintf(tallies[tally_count].name, sizeof tallies->name, "%s", name);
    return &tallies[tally_count++];
}

static void run_case(const char *root, const char *name) {
    char path[768], kind[64];
    snprintf(path, sizeof path, "%s/%s", root, name);
    snprintf(kind, sizeof kind, "%.*s", (int)(strrchr(name, '_') - name), name);
    struct tally *tally = tally_of(kind);
    for (int keep = 0; keep < 2; keep++) { /* with and without overlapping lifetimes */
        struct err err = {0};
        struct parity_case it;
        struct difference worst = {0};
        if (!parity_case_read(path, &it, &err) || !parity_case_run(&it, keep, &worst, &err))
            fail_msg("%s: %s", name, err.text);
        double scaled = worst.absolute / fmax(1, worst.magnitude);
        if (!(scaled <= TOLERANCE))
            fail_msg("%s: differs by %g at magnitude %g", name, worst.absolute, worst.magnitude);
        tally->worst = fmax(tally->worst, scaled);
        parity_case_free(&it);
    }
    tally->cases++;
}

/* Runs every case of a folder; returns how many. */
static int run_folder(const char *root) {
    DIR *folder = opendir(root);
    int count = 0;
    tally_count = 0;
    memset(tallies, 0, sizeof tallies);
    assert_non_null(folder);
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        if (!strrchr(entry->d_name, '_'))
            continue;
        run_case(root, entry->d_name);
        count++;
    }
    closedir(folder);
    return count;
}

/* Two small cases of each operator lie in the repository, for machines without PyTorch. */
static void kept_cases_agree_with_pytorch(void **state) {
    (void)state;
    assert_true(run_folder("tests/cases/infer_parity") >= 46);
    assert_true(tally_count >= 23);
}

/* At least 20 cases of each of `kinds` operators. */
static void run_dump(const char *name, const char *script, int kinds) {
    char root[512];
    if (!parity_folder(name, script, root, sizeof root)) {
        print_message("python3-torch and python3-onnx are needed\n");
        skip();
    }
    run_folder(root);
    assert_true(tally_count >= kinds);
    for (int i = 0; i < tally_count; i++) {
        print_message("%-24s %3d cases, worst %.1e\n", tallies[i].name, tallies[i].cases, tallies[i].worst);
        assert_true(tallies[i].cases >= 20);
    }
}

static void operators_of_the_contract_agree_with_pytorch(void **state) {
    (void)state;
    run_dump("operators", "train/dump_operators.py", 24);
}

/* Uncommon attributes, broadcasts, and what the engine knows beyond the contract. */
static void other_uses_agree_with_pytorch(void **state) {
    (void)state;
    run_dump("operators-more", "tests/infer_operators_dump.py", 28);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_cases_agree_with_pytorch),
        cmocka_unit_test(operators_of_the_contract_agree_with_pytorch),
        cmocka_unit_test(other_uses_agree_with_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
