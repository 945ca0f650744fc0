/* What is in this archive, and could it be analysed? Reads every study below a path and lets the gate judge it, without
 * looking for nodules: seconds a study. */
#include "app/analysis.h"
#include "app/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_BYTES_MAX ((size_t)1 << 31)

struct entry {
    char study_uid[DICOM_UID_SIZE];
    char *path; /* borrowed from the list of files */
};

struct survey {
    struct engine engine;
    struct entry *entries; /* sorted by study, then by path */
    size_t count, no_dicom;
    size_t accepted, refused, failed;
    const char *frames; /* folder, or NULL */
    bool json, progress;
};

static int compare_entries(const void *left, const void *right) {
    const struct entry *a = left, *b = right;
    int order = strcmp(a->study_uid, b->study_uid);
    return order ? order : strcmp(a->path, b->path);
}

/* Which study each file belongs to; what is no DICOM file is counted and left out. */
static bool sort_files(const struct file_list *files, struct survey *survey, struct err *err) {
    survey->entries = pulmo_alloc(files->count, sizeof *survey->entries, err);
    if (!survey->entries)
        return false;
    for (size_t index = 0; index < files->count; index++) {
        PULMO_SCOPED(bytes_free) struct bytes file = {0};
        struct instance instance = {0};
        struct err reason = {0};
        struct entry *entry = &survey->entries[survey->count];
        if (!bytes_read_file(files->items[index], FILE_BYTES_MAX, &file, &reason) ||
            !dicom_instance_parse(file.data, file.size, &instance, &reason)) {
            survey->no_dicom++;
            continue;
        }
        memcpy(entry->study_uid, instance.study_uid, sizeof entry->study_uid);
        entry->path = files->items[index];
        survey->count++;
    }
    qsort(survey->entries, survey->count, sizeof *survey->entries, compare_entries);
    return true;
}

static void print_line(const struct analysis *analysis, const char *failure, const char *study_uid) {
    printf("%s: %s", study_uid, failure ? "failed" : analysis->refusals.count ? "refused" : "accepted");
    if (analysis->lungs)
        printf(", %zu slices of %.2f mm, %.0f ml of lung", analysis->series->slice_count,
               analysis->series->slice_spacing_mm, analysis->quality.lung_volume_ml);
    if (analysis->gated)
        printf(", out-of-distribution score %.2f", analysis->gate.score);
    putchar('\n');
    if (failure)
        printf("    %s\n", failure);
    for (size_t index = 0; !failure && index < analysis->refusals.count; index++)
        printf("    %s: %s\n", refusal_name(analysis->refusals.items[index].code),
               analysis->refusals.items[index].text);
}

static bool print_json(const struct analysis *analysis, const char *failure, bool first, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes verdict = {0};
    if (!analysis_verdict_json(analysis, failure, &verdict, err))
        return false;
    printf("%s\n%.*s", first ? "" : ",", (int)verdict.size, (const char *)verdict.data);
    return true;
}

/* What the gate's autoencoder saw: <frames>/<study UID>.f32, to look into a verdict. */
static bool write_frame(const struct survey *survey, const struct analysis *analysis, struct err *err) {
    char path[4096];
    const char *uid = analysis->series->study_uid; /* from a stranger's file: digits and dots only, PS3.5 9.1 */
    if (!*uid || *uid == '.' || strspn(uid, "0123456789.") != strlen(uid))
        return err_set(err, ERR_INPUT, "the study UID is none: no file is named after it");
    snprintf(path, sizeof path, "%s/%s.f32", survey->frames, uid);
    return bytes_write_file(path, analysis->gate_frame, INFER_GATE_FRAME * sizeof(float), false, err);
}

/* Entries first .. end are one study. */
static bool judge_study(struct survey *survey, size_t first, size_t end, struct err *err) {
    PULMO_SCOPED(analysis_free) struct analysis analysis = {0};
    PULMO_SCOPED(pulmo_free_at) const char **paths = pulmo_alloc(end - first, sizeof *paths, err);
    if (!paths)
        return false;
    for (size_t index = first; index < end; index++)
        paths[index - first] = survey->entries[index].path;
    struct err reason = {0};
    const char *failure = NULL;
    if (!analysis_judge(&survey->engine, paths, end - first, &analysis, &reason))
        failure = reason.kind ? reason.text : "the study could not be judged";
    *(failure ? &survey->failed : analysis.refusals.count ? &survey->refused : &survey->accepted) += 1;
    if (survey->frames && analysis.gate_frame && !write_frame(survey, &analysis, err))
        return false;
    if (survey->json)
        return print_json(&analysis, failure, first == 0, err);
    print_line(&analysis, failure, survey->entries[first].study_uid);
    return true;
}

static bool judge_all(struct survey *survey, struct err *err) {
    for (size_t first = 0, end = 0; first < survey->count; first = end) {
        while (end < survey->count && !strcmp(survey->entries[end].study_uid, survey->entries[first].study_uid))
            end++;
        if (!judge_study(survey, first, end, err))
            return false;
        if (survey->progress)
            fprintf(stderr, "\r%zu of %zu files", end, survey->count);
    }
    if (survey->progress)
        fputc('\n', stderr);
    return true;
}

static bool print_survey(struct survey *survey, struct err *err) {
    if (survey->json)
        printf("{\"pulmo\":\"%s\",\"model_sha256\":\"%s\",\"studies\":[", PULMO_VERSION,
               infer_model_info(survey->engine.model)->sha256);
    if (!judge_all(survey, err))
        return false;
    if (survey->json)
        printf("\n],\"accepted\":%zu,\"refused\":%zu,\"failed\":%zu,\"no_dicom\":%zu}\n", survey->accepted,
               survey->refused, survey->failed, survey->no_dicom);
    else
        printf("%zu accepted, %zu refused, %zu failed; %zu files are no DICOM files\n", survey->accepted,
               survey->refused, survey->failed, survey->no_dicom);
    return true;
}

static int run(int argc, char **argv) {
    const char *config_path = NULL, *model = NULL;
    struct survey survey = {.progress = isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO)};
    const struct command_option options[] = {{"--json", NULL, &survey.json},
                                             {"--frames", &survey.frames, NULL},
                                             {"-c", &config_path, NULL},
                                             {"--model", &model, NULL}};
    int count = command_options(argc, argv, options, sizeof options / sizeof *options);
    if (count < 1)
        return command_usage(&command_survey);
    struct err err = {0};
    struct config config;
    PULMO_SCOPED(file_list_free) struct file_list files = {0};
    if (!command_config(config_path, &config, &err) || (model && !config_set(&config, "model", model, &err)) ||
        !file_list_make((const char *const *)argv, (size_t)count, &files, &err) ||
        !engine_open(&config, &survey.engine, &err))
        return command_fail(&command_survey, &err);
    bool good = sort_files(&files, &survey, &err) && print_survey(&survey, &err);
    free(survey.entries);
    engine_close(&survey.engine);
    if (!good)
        return command_fail(&command_survey, &err);
    return survey.failed ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_survey = {"survey", "survey PATH... [--json] [--frames DIR] [-c FILE] [--model FILE]",
                                       "quality of a folder of studies: what the gate says of each", run};
