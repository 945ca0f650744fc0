/* What would happen to an instance: would reception take it, is it known, would it be analysed? Nothing is stored. */
#include "app/command.h"
#include "app/processes.h"
#include "dicom/dicom.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_BYTES_MAX ((size_t)4 << 30)

struct request {
    const char *config_path, *path;
    struct dicom_peer peer;
    bool json;
};

struct outcome {
    struct instance instance;
    struct err admission; /* kind ERR_NONE = the association would be accepted */
    uint16_t status;      /* DIMSE */
    struct err reception; /* why not 0x0000 */
    bool store_there;     /* there is a store to ask */
    struct store_route route;
    struct refusals refusals; /* of the slice by itself */
};

static void cjson_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

/* A question makes no store. */
static bool ask_store(const struct config *config, struct outcome *out, struct err *err) {
    char path[4096];
    struct err why = {0};
    snprintf(path, sizeof path, "%s/pulmo.db", config->data_folder);
    out->store_there = access(path, F_OK) == 0;
    snprintf(out->route.version, sizeof out->route.version, "first");
    out->route.becomes_current = true;
    if (!out->store_there)
        return true;
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(config, err);
    if (!store)
        return false;
    if (!store_route(store, &out->instance, &out->route, &why)) {
        out->status = dicom_scp_status(why.kind);
        out->reception = why;
    }
    return true;
}

static bool find_out(const struct config *config, const struct request *request, const struct bytes *file,
                     struct outcome *out, struct err *err) {
    const struct dicom_scp_config scp = {.ae_title = config->ae_title,
                                         .called_aets = config->called_aets,
                                         .calling_aets = config->calling_aets,
                                         .addresses = config->allowed_addresses,
                                         .instance_bytes_max = (size_t)config->instance_mb_max << 20};
    if (!dicom_scp_admits(&scp, &request->peer, &out->admission) && out->admission.kind != ERR_DENIED)
        return err_set(err, out->admission.kind, "%s", out->admission.text);
    if (!dicom_instance_parse(file->data, file->size, &out->instance, &out->reception)) {
        out->status = dicom_scp_status(out->reception.kind);
        return true;
    }
    if (!dicom_scp_takes(&scp, &out->instance, &out->status, &out->reception))
        return true;
    return ask_store(config, out, err) &&
           (out->reception.kind || dicom_slice_judge(request->path, &out->refusals, err));
}

static bool is_accepted(const struct outcome *outcome) {
    return !outcome->admission.kind && !outcome->reception.kind;
}

/* ---- what is said ------------------------------------------------------------------------------------ */

static const char *version_sentence(const char *version) {
    static const char *const rows[][2] = {
        {"first", "would be stored: its UID is new"},
        {"same", "is stored already: nothing would change"},
        {"transcoded", "would be kept beside the stored one: the same pixels in another transfer syntax"},
        {"corrected", "would replace the stored one for analysis: the same pixels, another header"},
        {"conflict", "would be kept beside the stored one and raise an alarm: other pixels under the same UID"},
        {"foreign", "would be kept apart and raise an alarm: its study is another patient's"}};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++)
        if (strcmp(rows[index][0], version) == 0)
            return rows[index][1];
    return version;
}

static bool is_analysed(const struct outcome *outcome) {
    return is_accepted(outcome) && outcome->route.becomes_current && !outcome->refusals.count;
}

static void analysis_sentence(const struct outcome *outcome, char *out, size_t size) {
    if (!is_accepted(outcome))
        snprintf(out, size, "none: it would not be stored");
    else if (!outcome->route.becomes_current)
        snprintf(out, size, "unchanged: what is analysed stays as it is");
    else if (outcome->refusals.count)
        snprintf(out, size, "chest-ct-nodules, without this instance: %s: %s",
                 refusal_name(outcome->refusals.items[0].code), outcome->refusals.items[0].text);
    else
        snprintf(out, size, "chest-ct-nodules, when the study is complete and the gate accepts its series");
}

static void print_text(const struct outcome *outcome) {
    const struct instance *instance = &outcome->instance;
    const struct store_study *study = &outcome->route.study;
    char analysis[1024];
    analysis_sentence(outcome, analysis, sizeof analysis);
    if (*instance->sop_instance_uid)
        printf("instance     %s, modality %s, SOP class %s, transfer syntax %s\n", instance->sop_instance_uid,
               *instance->modality ? instance->modality : "unknown", instance->sop_class_uid,
               instance->transfer_syntax_uid);
    printf("association  %s\n", outcome->admission.kind ? outcome->admission.text : "accepted");
    printf("reception    0x%04X, %s\n", outcome->status,
           outcome->reception.kind ? outcome->reception.text : version_sentence(outcome->route.version));
    if (*instance->study_uid && outcome->route.study_known)
        printf("study        %s, known: %lld instances, %s%s%s\n", instance->study_uid, (long long)study->instances,
               study->state, study->purged_ms ? ", images purged" : "", study->held_ms ? ", held" : "");
    else if (*instance->study_uid)
        printf("study        %s, not known\n", instance->study_uid);
    printf("analysis     %s\n", analysis);
}

static void add_study(cJSON *document, const struct outcome *outcome) {
    const struct store_study *known = &outcome->route.study;
    cJSON *study = cJSON_AddObjectToObject(document, "study");
    cJSON_AddBoolToObject(study, "known", outcome->route.study_known);
    if (!outcome->route.study_known)
        return;
    cJSON_AddStringToObject(study, "state", known->state);
    cJSON_AddNumberToObject(study, "instances", (double)known->instances);
    if (known->result_id)
        cJSON_AddNumberToObject(study, "result", (double)known->result_id);
    cJSON_AddBoolToObject(study, "held", known->held_ms != 0);
    cJSON_AddBoolToObject(study, "purged", known->purged_ms != 0);
}

static void add_analysis(cJSON *document, const struct outcome *outcome) {
    char sentence[1024];
    cJSON *analysis = cJSON_AddObjectToObject(document, "analysis");
    analysis_sentence(outcome, sentence, sizeof sentence);
    cJSON_AddBoolToObject(analysis, "takes_part", is_analysed(outcome));
    cJSON_AddStringToObject(analysis, "sentence", sentence);
    cJSON *reasons = cJSON_AddArrayToObject(analysis, "reasons");
    for (size_t index = 0; index < outcome->refusals.count; index++) {
        snprintf(sentence, sizeof sentence, "%s: %s", refusal_name(outcome->refusals.items[index].code),
                 outcome->refusals.items[index].text);
        cJSON_AddItemToArray(reasons, cJSON_CreateString(sentence));
    }
}

static bool print_json(const struct outcome *outcome) {
    const struct instance *instance = &outcome->instance;
    char status[8];
    snprintf(status, sizeof status, "0x%04X", outcome->status);
    PULMO_SCOPED(cjson_free_at) cJSON *document = cJSON_CreateObject();
    cJSON_AddBoolToObject(document, "accepted", is_accepted(outcome));
    cJSON_AddStringToObject(document, "study_uid", instance->study_uid);
    cJSON_AddStringToObject(document, "series_uid", instance->series_uid);
    cJSON_AddStringToObject(document, "sop_instance_uid", instance->sop_instance_uid);
    cJSON_AddStringToObject(document, "sop_class_uid", instance->sop_class_uid);
    cJSON_AddStringToObject(document, "transfer_syntax_uid", instance->transfer_syntax_uid);
    cJSON_AddStringToObject(document, "modality", instance->modality);
    cJSON *association = cJSON_AddObjectToObject(document, "association");
    cJSON_AddBoolToObject(association, "accepted", !outcome->admission.kind);
    cJSON_AddStringToObject(association, "reason", outcome->admission.text);
    cJSON *reception = cJSON_AddObjectToObject(document, "reception");
    cJSON_AddStringToObject(reception, "status", status);
    cJSON_AddStringToObject(reception, "reason", outcome->reception.text);
    if (!outcome->reception.kind)
        cJSON_AddStringToObject(reception, "version", outcome->route.version);
    add_study(document, outcome);
    add_analysis(document, outcome);
    PULMO_SCOPED(pulmo_free_at) char *text = cJSON_Print(document);
    printf("%s\n", text ? text : "");
    return text != NULL;
}

static int run(int argc, char **argv) {
    struct request request = {.path = NULL};
    const struct command_option options[] = {{"-c", &request.config_path, NULL},
                                             {"--calling", &request.peer.calling_aet, NULL},
                                             {"--called", &request.peer.called_aet, NULL},
                                             {"--address", &request.peer.address, NULL},
                                             {"--json", NULL, &request.json}};
    if (command_options(argc, argv, options, 5) != 1)
        return command_usage(&command_route);
    struct config config;
    struct err err = {0};
    struct outcome outcome = {.status = 0};
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    request.path = argv[0];
    if (!command_config(request.config_path, &config, &err) ||
        !bytes_read_file(request.path, FILE_BYTES_MAX, &file, &err) ||
        !find_out(&config, &request, &file, &outcome, &err))
        return command_fail(&command_route, &err);
    if (request.json && !print_json(&outcome))
        return EXIT_FAILED;
    if (!request.json)
        print_text(&outcome);
    if (is_accepted(&outcome))
        return EXIT_DONE;
    fprintf(stderr, "refused: %s\n", outcome.admission.kind ? outcome.admission.text : outcome.reception.text);
    return EXIT_REFUSED;
}

const struct command command_route = {
    "route", "route FILE [--calling AET] [--called AET] [--address IP] [--json] [-c FILE]",
    "what would happen to this instance: reception, what is known of it, analysis; nothing is stored", run};
