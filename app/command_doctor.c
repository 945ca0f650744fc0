/* Is this installation fit for work? One line a check, each with what to do. */
#include "app/command.h"
#include "app/doctor.h"

#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STUDIES_DEFAULT 20

static const char *const state_names[] = {
    [DOCTOR_OK] = "ok", [DOCTOR_SKIPPED] = "skipped", [DOCTOR_WARNING] = "warning", [DOCTOR_FAILED] = "failed"};

static const struct check {
    const char *name;
    void (*run)(struct doctor *doctor);
} checks[] = {{"data folder", doctor_folder},
              {"disk space", doctor_space},
              {"database", doctor_database},
              {"audit chain", doctor_audit},
              {"stored files", doctor_contents},
              {"given up", doctor_queues},
              {"clock", doctor_clock},
              {"port", doctor_ports},
              {"certificate", doctor_certificates},
              {"destination", doctor_destinations},
              {"model", doctor_model},
              {"self-test", doctor_selftest}};

struct visit {
    cJSON *list; /* NULL = lines on standard output */
    int failed;
};

static void cjson_free_at(cJSON **json) {
    cJSON_Delete(*json);
}

static void on_finding(void *context, const struct doctor_finding *finding) {
    struct visit *visit = context;
    visit->failed += finding->state == DOCTOR_FAILED;
    if (!visit->list) {
        printf("%-8s %-13s %s\n", state_names[finding->state], finding->name, finding->text);
        fflush(stdout); /* the next check may take its time */
        return;
    }
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "check", finding->name);
    cJSON_AddStringToObject(item, "state", state_names[finding->state]);
    cJSON_AddStringToObject(item, "text", finding->text);
    cJSON_AddItemToArray(visit->list, item);
}

void doctor_say(struct doctor *doctor, enum doctor_state state, const char *format, ...) {
    struct doctor_finding finding = {.name = doctor->name, .state = state};
    va_list values;
    va_start(values, format);
    vsnprintf(finding.text, sizeof finding.text, format, values);
    va_end(values);
    doctor->report(doctor->context, &finding);
}

static void examine(struct doctor *doctor) {
    struct err err = {0};
    doctor->name = "configuration";
    if (!command_config(doctor->config_path, &doctor->config, &err)) {
        doctor_say(doctor, DOCTOR_FAILED, "%s; pulmo does not start with it", err.text);
        return; /* what the others would look at is in it */
    }
    doctor_say(doctor, DOCTOR_OK, "%s",
               doctor->config_path ? doctor->config_path : "no file: every key at its default");
    for (size_t index = 0; index < sizeof checks / sizeof *checks; index++) {
        doctor->name = checks[index].name;
        checks[index].run(doctor);
    }
}

static int print_json(const struct visit *visit, cJSON *document) {
    cJSON_AddBoolToObject(document, "healthy", visit->failed == 0);
    char *text = cJSON_Print(document);
    printf("%s\n", text ? text : "");
    free(text);
    return visit->failed || !text ? EXIT_FAILED : EXIT_DONE;
}

static int run(int argc, char **argv) {
    struct doctor doctor = {.studies = STUDIES_DEFAULT, .report = on_finding};
    const char *studies = NULL;
    bool json = false;
    const struct command_option options[] = {{"-c", &doctor.config_path, NULL},
                                             {"--json", NULL, &json},
                                             {"--quick", NULL, &doctor.quick},
                                             {"--studies", &studies, NULL}};
    if (command_options(argc, argv, options, 4) != 0)
        return command_usage(&command_doctor);
    if (studies && !command_integer(studies, 0, INT64_MAX, &doctor.studies))
        return EXIT_USAGE;
    PULMO_SCOPED(cjson_free_at) cJSON *document = cJSON_CreateObject();
    struct visit visit = {.list = json ? cJSON_AddArrayToObject(document, "checks") : NULL};
    doctor.config_path = command_config_path(doctor.config_path);
    doctor.context = &visit;
    examine(&doctor);
    if (json)
        return print_json(&visit, document);
    printf("%s\n", visit.failed ? "something has to be done" : "fit for work");
    return visit.failed ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_doctor = {"doctor", "doctor [--json] [--quick] [--studies N] [-c FILE]",
                                       "is this installation fit for work? one line a check, with what to do", run};
