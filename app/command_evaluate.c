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

static void print_trust(const struct evaluation *evaluation, const struct evaluation_config *config) {
    const struct evaluation_reliability *reliability = &evaluation->reliability;
    const struct evaluation_triage *triage = &evaluation->triage;
    const struct evaluation_diameter *diameter = &evaluation->diameter;
    if (reliability->candidates)
        printf("probabilities of %zu candidates (%zu nodules) above the threshold of 8 FP/scan: ECE %.4f (95 %%: %.4f "
               "to %.4f), Brier %.4f\n",
               reliability->candidates, reliability->nodules, reliability->ece, reliability->ece_low,
               reliability->ece_high, reliability->brier);
    if (triage->candidates)
        printf("%zu of %zu decisions at p >= %g are wrong; AUROC for being wrong (gain over the first):\n",
               triage->wrong, triage->candidates, config->operating_point);
    for (enum evaluation_measure measure = 0; measure < EVALUATION_MEASURES; measure++) {
        const struct evaluation_rejection *rejection = &triage->measures[measure];
        if (rejection->present)
            printf("  %-26s %.4f (95 %%: %.4f to %.4f)   %+.4f (%+.4f to %+.4f)\n", evaluation_measure_name(measure),
                   rejection->auroc, rejection->auroc_low, rejection->auroc_high, rejection->gain, rejection->gain_low,
                   rejection->gain_high);
    }
    if (diameter->count)
        printf("diameters of %zu nodules: bias %+.2f mm, limits %+.2f to %+.2f mm; absolute error: median %.2f mm, "
               "95th percentile %.2f mm\n",
               diameter->count, diameter->bias_mm, diameter->limit_low_mm, diameter->limit_high_mm,
               diameter->median_absolute_mm, diameter->p95_absolute_mm);
}

static bool plot_all(const struct evaluation *evaluation, const char *folder, struct err *err) {
    char path[4096];
    if (mkdir(folder, 0755) != 0 && errno != EEXIST)
        return err_set(err, ERR_IO, "cannot make the folder %s: %s", folder, strerror(errno));
    for (enum evaluation_plot plot = 0; plot < EVALUATION_PLOTS; plot++) {
        snprintf(path, sizeof path, "%s/%s.svg", folder, evaluation_plot_name(plot));
        if (evaluation_plot_has(evaluation, plot) && !evaluation_plot_svg(evaluation, plot, path, err))
            return false;
    }
    return true;
}

/* evaluation/evaluation.h says the same to programmers. */
static const char formats[] =
    "\n"
    "Files of comma-separated fields with a header; coordinates in millimetres.\n"
    "  --series   one series UID a line; rows of other series are left out\n"
    "  --truth    seriesuid,coordX,coordY,coordZ,diameter_mm and, if you like, in any order:\n"
    "               included   1, or 0 for an excluded finding\n"
    "               texture    solid, part-solid, ground-glass or unknown\n"
    "  --marks    seriesuid,coordX,coordY,coordZ,probability and, if you like, in any order:\n"
    "               diameter_mm, mutual_information_nats, entropy_nats, probability_low, probability_high, texture\n"
    "             probability may be any score; within 0 to 1 it is judged as a probability too\n"
    "  --max-marks N          at most N marks a scan (default: all)\n"
    "  --operating-point P    marks at or above it count as decided (default 0.5)\n"
    "  --plots DIR            froc.svg and, as far as the marks allow, reliability.svg, rejection.svg, diameter.svg\n"
    "Reliability and rejection are judged over the false positives and the best mark of each nodule found, above the\n"
    "threshold of 8 false positives a scan; intervals are a bootstrap over scans.\n";

static int run(int argc, char **argv) {
    struct evaluation_config config = {.bootstrap_count = 1000, .seed = 1};
    const char *max_marks = "0", *operating_point = "0.5", *plots = NULL;
    bool json = false, help = false;
    const struct command_option options[] = {{"--truth", &config.truth_csv, NULL},
                                             {"--marks", &config.marks_csv, NULL},
                                             {"--series", &config.series_list, NULL},
                                             {"--max-marks", &max_marks, NULL},
                                             {"--operating-point", &operating_point, NULL},
                                             {"--plots", &plots, NULL},
                                             {"--help", NULL, &help},
                                             {"--json", NULL, &json}};
    int64_t limit = 0;
    bool understood = command_options(argc, argv, options, sizeof options / sizeof *options) == 0;
    if (understood && help) {
        printf("usage: pulmo %s\n%s", command_evaluate.usage, formats);
        return EXIT_DONE;
    }
    if (!understood || !config.truth_csv || !config.marks_csv || !config.series_list ||
        !command_integer(max_marks, 0, UINT32_MAX, &limit) ||
        !command_number(operating_point, 0, 1, &config.operating_point))
        return command_usage(&command_evaluate);
    config.max_marks = (uint32_t)limit;
    struct err err = {0};
    PULMO_SCOPED(evaluation_free) struct evaluation evaluation = {0};
    if (!evaluation_run(&config, &evaluation, &err) || (plots && !plot_all(&evaluation, plots, &err)))
        return command_fail(&command_evaluate, &err);
    if (!json) {
        print_table(&evaluation, &config);
        print_trust(&evaluation, &config);
    } else if (!print_json(&evaluation, &config, &err))
        return command_fail(&command_evaluate, &err);
    return EXIT_DONE;
}

const struct command command_evaluate = {
    "evaluate",
    "evaluate --truth CSV --marks CSV --series LIST [--max-marks N] [--operating-point P] "
    "[--json] [--plots DIR]",
    "FROC, CPM and intervals on the LUNA16 protocol", run};
