/* Does this installation compute what it should? A phantom goes through the whole analysis, without store and network.
 */
#include "app/artifacts.h"
#include "app/command.h"
#include "app/progress.h"
#include "phantom/phantom.h"

#include <fts.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static double distance(const double a[3], const double b[3]) {
    return sqrt((a[0] - b[0]) * (a[0] - b[0]) + (a[1] - b[1]) * (a[1] - b[1]) + (a[2] - b[2]) * (a[2] - b[2]));
}

static int judge(const struct phantom *phantom, const struct analysis *analysis) {
    const struct phantom_nodule *nodule = &phantom->nodules[0];
    const struct finding *first = analysis->findings.count ? &analysis->findings.items[0] : NULL;
    double apart = first ? distance(first->center_lps_mm, nodule->center_lps_mm) : INFINITY;
    bool good = first && first->reported && apart < nodule->diameter_mm / 2;
    printf("%s: the phantom's nodule of %.1f mm is %s; first finding %.1f mm away with probability %.3f; %lld ms\n",
           good ? "passed" : "FAILED", nodule->diameter_mm, good ? "the first finding" : "not found", apart,
           first ? first->probability : 0.0, (long long)analysis->timings.total);
    return good ? EXIT_DONE : EXIT_FAILED;
}

static int check(const struct config *config, const char *folder, struct err *err) {
    PULMO_SCOPED(phantom_free) struct phantom phantom = {0};
    PULMO_SCOPED(file_list_free) struct file_list files = {0};
    PULMO_SCOPED(analysis_free) struct analysis analysis = {0};
    struct phantom_config make = {.seed = 1, .nodules = 1};
    struct dicom_ct_write_config write = {.folder = folder,
                                          .transfer_syntax = "explicit",
                                          .patient_name = "PHANTOM^PULMO",
                                          .patient_id = "PULMO-SELFTEST",
                                          .study_description = "Self-test",
                                          .series_description = "Synthetic chest",
                                          .seed = 1};
    struct engine engine;
    if (!phantom_make(&make, &phantom, err) || !dicom_ct_write(phantom.volume, &write, err) ||
        !file_list_make(&folder, 1, &files, err) || !engine_open(config, &engine, err))
        return -1;
    struct analysis_run run = analysis_run_configured(config, engine.model);
    bool made = analysis_make(&engine, (const char *const *)files.items, files.count, &run, &analysis, err);
    engine_close(&engine);
    return made ? judge(&phantom, &analysis) : -1;
}

static void remove_folder(const char *folder) {
    char *roots[] = {(char *)folder, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    for (FTSENT *entry; tree && (entry = fts_read(tree));)
        if (entry->fts_info != FTS_D)
            remove(entry->fts_path);
    if (tree)
        fts_close(tree);
}

static int run(int argc, char **argv) {
    const char *config_path = NULL;
    const struct command_option options[] = {{"-c", &config_path, NULL}};
    if (command_options(argc, argv, options, 1) != 0)
        return command_usage(&command_selftest);
    struct config config;
    struct err err = {0};
    char folder[] = "/tmp/pulmo-selftest-XXXXXX";
    if (!command_config(config_path, &config, &err))
        return command_fail(&command_selftest, &err);
    if (!mkdtemp(folder)) {
        err_set(&err, ERR_IO, "cannot make a folder in /tmp");
        return command_fail(&command_selftest, &err);
    }
    struct progress_clock clock;
    progress_clock_start(&clock, "analysing a phantom");
    int status = check(&config, folder, &err);
    progress_clock_stop(&clock);
    remove_folder(folder);
    return status < 0 ? command_fail(&command_selftest, &err) : status;
}

const struct command command_selftest = {"selftest", "selftest [-c FILE]",
                                         "a phantom through the whole analysis: is its nodule found?", run};
