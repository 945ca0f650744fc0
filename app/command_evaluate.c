#include "app/command.h"
#include "evaluation/evaluation.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const double points[EVALUATION_POINTS] = {0.125, 0.25, 0.5, 1, 2, 4, 8};

static bool print_json(const struct evaluation *evaluation, const struct evaluation_config *config, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes document = {0};
    if (!evaluation_json(evaluation, config, &document, err))
        return false;
    fwrite(document.data, 1, document.size, stdout);
    putchar('\n');
    return true;
}

static void print_table(const struct evaluation *evaluation, const struct evaluation_config *config) {
    printf("%zu scans, %zu nodules (%zu excluded findings), %zu marks\n", evaluation->scans, evaluation->nodules,
           evaluation->excluded, evaluation->marks);
    printf("%zu nodules hit, %zu false positives, %zu marks on excluded findings, %zu more on nodules found\n",
           evaluation->hits, evaluation->false_positives, evaluation->ignored, evaluation->duplicates);
    if (config->max_marks)
        printf("marks a scan: at most %u\n", config->max_marks);
    printf("FP/scan   sensitivity   95 %% interval\n");
    for (int index = 0; index < EVALUATION_POINTS; index++)
        printf("%7.3f   %.4f        %.4f to %.4f\n", points[index], evaluation->sensitivity[index],
               evaluation->sensitivity_low[index], evaluation->sensitivity_high[index]);
    printf("CPM       %.4f        %.4f to %.4f\n", evaluation->cpm, evaluation->cpm_low, evaluation->cpm_high);
}

static bool plot(const struct evaluation *evaluation, const char *folder, struct err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/froc.svg", folder);
    if (mkdir(folder, 0755) != 0 && errno != EEXIST)
        return err_set(err, ERR_IO, "cannot make the folder %s: %s", folder, strerror(errno));
    return evaluation_plot_svg(evaluation, path, err);
}

static int run(int argc, char **argv) {
    struct evaluation_config config = {.bootstrap_count = 1000, .seed = 1};
    const char *max_marks = "0", *plots = NULL;
    bool json = false;
    const struct command_option options[] = {{"--truth", &config.truth_csv, NULL},
                                             {"--marks", &config.marks_csv, NULL},
                                             {"--series", &config.series_list, NULL},
                                             {"--max-marks", &max_marks, NULL},
                                             {"--plots", &plots, NULL},
                                             {"--json", NULL, &json}};
    int64_t limit = 0;
    if (command_options(argc, argv, options, 6) != 0 || !config.truth_csv || !config.marks_csv || !config.series_list ||
        !command_integer(max_marks, 0, UINT32_MAX, &limit))
        return command_usage(&command_evaluate);
    config.max_marks = (uint32_t)limit;
    struct err err = {0};
    PULMO_SCOPED(evaluation_free) struct evaluation evaluation = {0};
    if (!evaluation_run(&config, &evaluation, &err) || (plots && !plot(&evaluation, plots, &err)))
        return command_fail(&command_evaluate, &err);
    if (!json)
        print_table(&evaluation, &config);
    else if (!print_json(&evaluation, &config, &err))
        return command_fail(&command_evaluate, &err);
    return EXIT_DONE;
}

const struct command command_evaluate = {
    "evaluate", "evaluate --truth CSV --marks CSV --series LIST [--max-marks N] [--json] [--plots DIR]",
    "FROC, CPM and intervals on the LUNA16 protocol", run};
