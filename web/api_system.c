/* Health, metrics, audit: for machines and auditors. */
#include "web/api.h"
#include "web/reply.h"

#include <stdio.h>
#include <string.h>

#define AUDIT_BYTES_MAX ((size_t)256 << 20)

static bool add_problems(cJSON *document, const struct store_health *health) {
    cJSON *problems = cJSON_AddArrayToObject(document, "problems");
    bool good = problems != NULL;
    for (size_t index = 0; good && index < health->problem_count; index++) {
        cJSON *problem = cJSON_CreateObject();
        good = cJSON_AddItemToArray(problems, problem) &&
               cJSON_AddStringToObject(problem, "code", health->problems[index].code) &&
               cJSON_AddStringToObject(problem, "text", health->problems[index].text);
    }
    return good;
}

/* "ok", or "degraded" with what keeps us from which part of the work. The status is 200 in both cases: who asks whether
 * we live must not restart us because a disk is full. */
bool api_health(struct request *request, struct err *err) {
    struct store_health health;
    char disk[512]; /* "" or why it stays full: of this machine, not of a patient */
    if (!store_health(request->web->store, &health, err) ||
        !store_notice_get(request->web->store, "disk", disk, sizeof disk, err))
        return false;
    cJSON *document = cJSON_CreateObject();
    cJSON_AddStringToObject(document, "status", health.problem_count ? "degraded" : "ok");
    cJSON_AddStringToObject(document, "version", PULMO_VERSION);
    cJSON_AddStringToObject(document, "disk", disk);
    cJSON_AddNumberToObject(document, "disk_free_bytes", (double)health.free_bytes);
    if (!document || !add_problems(document, &health)) {
        cJSON_Delete(document);
        return err_set(err, ERR_MEMORY, "out of memory for the health document");
    }
    return reply_json(request, 200, document, err);
}

/* ---- metrics ----------------------------------------------------------------------------------------- */

static bool may_read_metrics(const struct request *request) {
    static const char *const local[] = {"127.0.0.1", "::1", "::ffff:127.0.0.1"};
    for (size_t index = 0; index < sizeof local / sizeof *local; index++)
        if (strcmp(request->address, local[index]) == 0)
            return true;
    return strcmp(request->user.role, "administrator") == 0;
}

/* Prometheus' text format 0.0.4; counts alone, nothing of a patient. */
bool api_metrics(struct request *request, struct err *err) {
    if (!may_read_metrics(request))
        return err_set(err, ERR_DENIED, "metrics are for this machine and for administrators");
    struct store_counts counts;
    if (!store_counts(request->web->store, &counts, err))
        return false;
    const struct {
        const char *name, *help;
        int64_t value;
    } rows[] = {{"pulmo_studies", "Studies in the store", counts.studies},
                {"pulmo_instances", "Instances in the store", counts.instances},
                {"pulmo_results", "Results, superseded ones too", counts.results},
                {"pulmo_jobs_queued", "Jobs that wait or run", counts.jobs_queued},
                {"pulmo_jobs_dead", "Jobs given up", counts.jobs_dead},
                {"pulmo_outbox_waiting", "Objects to send to the PACS", counts.outbox_waiting},
                {"pulmo_outbox_dead", "Objects the PACS would not take", counts.outbox_dead}};
    struct bytes text = {0};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++) {
        char line[256];
        int length = snprintf(line, sizeof line, "# HELP %s %s.\n# TYPE %s gauge\n%s %lld\n", rows[index].name,
                              rows[index].help, rows[index].name, rows[index].name, (long long)rows[index].value);
        if (!bytes_append(&text, line, (size_t)length, 1 << 16, err)) {
            bytes_free(&text);
            return false;
        }
    }
    return reply_bytes(request, "text/plain; version=0.0.4", REPLY_NO_STORE, &text, err);
}

/* ---- audit ------------------------------------------------------------------------------------------- */

static bool append_line(void *context, const char *json, struct err *err) {
    struct bytes *text = context;
    return bytes_append(text, json, strlen(json), AUDIT_BYTES_MAX, err) &&
           bytes_append(text, "\n", 1, AUDIT_BYTES_MAX, err);
}

static bool note_export(struct request *request, struct err *err) {
    const struct store_audit row = {.code = "110101", /* Audit Log Used */
                                    .action = "read",
                                    .actor = request->user.name,
                                    .address = request->address,
                                    .study_uid = "",
                                    .detail = "exported"};
    return store_audit_append(request->web->store, &row, err);
}

/* The whole chain, one JSON document a line, so that `sha256` of the rows can be checked elsewhere. */
bool api_audit(struct request *request, struct err *err) {
    struct bytes text = {0};
    if (!note_export(request, err) || !store_audit_export(request->web->store, append_line, &text, err)) {
        bytes_free(&text);
        return false;
    }
    return reply_bytes(request, "application/x-ndjson", REPLY_NO_STORE, &text, err);
}
