#include "app/command.h"
#include "dicom/dicom.h"
#include "phantom/phantom.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static void print_truth(const struct phantom *phantom, FILE *to) {
    fprintf(to, "x_lps_mm,y_lps_mm,z_lps_mm,diameter_mm,texture\n");
    for (size_t index = 0; index < phantom->nodule_count; index++) {
        const struct phantom_nodule *nodule = &phantom->nodules[index];
        fprintf(to, "%.3f,%.3f,%.3f,%.2f,%s\n", nodule->center_lps_mm[0], nodule->center_lps_mm[1],
                nodule->center_lps_mm[2], nodule->diameter_mm, texture_name(nodule->texture));
    }
}

static int make(const struct phantom_config *config, const char *out, const char *syntax) {
    struct err err = {0};
    PULMO_SCOPED(phantom_free) struct phantom phantom = {0};
    char description[64];
    snprintf(description, sizeof description, "Phantom seed %llu", (unsigned long long)config->seed);
    struct dicom_ct_write_config write = {.folder = out,
                                          .transfer_syntax = syntax,
                                          .patient_name = "PHANTOM^PULMO",
                                          .patient_id = "PULMO-PHANTOM",
                                          .study_description = description,
                                          .series_description = "Synthetic chest",
                                          .seed = config->seed};
    if (mkdir(out, 0755) != 0 && errno != EEXIST) {
        err_set(&err, ERR_IO, "cannot make the folder %s: %s", out, strerror(errno));
        return command_fail(&command_phantom, &err);
    }
    if (!phantom_make(config, &phantom, &err) || !dicom_ct_write(phantom.volume, &write, &err)) {
        int status = command_fail(&command_phantom, &err);
        return err.kind == ERR_UNSUPPORTED ? EXIT_USAGE : status; /* a transfer syntax by another name */
    }
    print_truth(&phantom, stdout);
    return EXIT_DONE;
}

static int run(int argc, char **argv) {
    const char *out = NULL, *seed = "1", *slices = "0", *nodules = "1", *spacing = "2.5", *syntax = "explicit";
    const struct command_option options[] = {{"--out", &out, NULL},         {"--seed", &seed, NULL},
                                             {"--slices", &slices, NULL},   {"--nodules", &nodules, NULL},
                                             {"--spacing", &spacing, NULL}, {"--transfer-syntax", &syntax, NULL}};
    int64_t seed_value = 0, slice_count = 0, nodule_count = 0;
    double spacing_mm = 0;
    if (command_options(argc, argv, options, 6) != 0 || !out || !command_integer(seed, 0, INT64_MAX, &seed_value) ||
        !command_integer(slices, 0, 2000, &slice_count) ||
        !command_integer(nodules, 0, PHANTOM_NODULES_MAX, &nodule_count) ||
        !command_number(spacing, 0.3, 10, &spacing_mm))
        return command_usage(&command_phantom);
    struct phantom_config config = {.seed = (uint64_t)seed_value,
                                    .slices = (int32_t)slice_count,
                                    .nodules = (uint32_t)nodule_count,
                                    .spacing_mm = spacing_mm};
    return make(&config, out, syntax);
}

const struct command command_phantom = {
    "phantom", "phantom --out DIR [--seed N] [--slices N] [--nodules N] [--spacing MM] [--transfer-syntax NAME]",
    "a synthetic chest CT with nodules of known place and size; prints them as CSV", run};
