/* A result is safe when the PACS says that it keeps it, not when it has said 0x0000: by Storage Commitment (PS3.4 J)
 * where it offers that, else by C-FIND for every SOP Instance UID. Only then may images be given up. */
#include "app/confirm.h"

#include "digest.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERIES_MAX 4096

/* What one question is about. */
struct inquiry {
    const struct config *config;
    struct store *store;
    struct store_confirmation confirmation;
    struct outbox_peer peer;
    struct store_object *objects; /* sorted by SOP Instance UID */
    size_t count;
    bool *found; /* by C-FIND: of objects */
};

static void inquiry_free(struct inquiry *inquiry) {
    free(inquiry->objects);
    free(inquiry->found);
}

/* ---- the objects ------------------------------------------------------------------------------------- */

static int compare_objects(const void *left, const void *right) {
    const struct store_object *a = left, *b = right;
    return strcmp(a->sop_instance_uid, b->sop_instance_uid);
}

static bool identify(struct store_object *object, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes content = {0};
    struct instance instance;
    if (!bytes_read_file(object->path, (size_t)1 << 30, &content, err) ||
        !dicom_instance_parse(content.data, content.size, &instance, err))
        return false;
    memcpy(object->sop_class_uid, instance.sop_class_uid, DICOM_UID_SIZE);
    memcpy(object->sop_instance_uid, instance.sop_instance_uid, DICOM_UID_SIZE);
    memcpy(object->series_uid, instance.series_uid, DICOM_UID_SIZE);
    return true;
}

static bool inquiry_load(struct inquiry *inquiry, struct err *err) {
    bool images = inquiry->config->confirm_images != 0;
    if (!store_confirmation_objects(inquiry->store, &inquiry->confirmation, images, &inquiry->objects, &inquiry->count,
                                    err))
        return false;
    for (size_t index = 0; index < inquiry->count; index++)
        if (inquiry->objects[index].is_result && !identify(&inquiry->objects[index], err))
            return false;
    qsort(inquiry->objects, inquiry->count, sizeof *inquiry->objects, compare_objects);
    inquiry->found = pulmo_alloc(inquiry->count, sizeof *inquiry->found, err);
    return inquiry->found != NULL;
}

static bool on_found(void *context, const char *sop_instance_uid, struct err *err) {
    struct inquiry *inquiry = context;
    struct store_object key;
    (void)err;
    snprintf(key.sop_instance_uid, sizeof key.sop_instance_uid, "%s", sop_instance_uid);
    const struct store_object *object =
        bsearch(&key, inquiry->objects, inquiry->count, sizeof *inquiry->objects, compare_objects);
    if (object)
        inquiry->found[object - inquiry->objects] = true;
    return true;
}

/* ---- answers ----------------------------------------------------------------------------------------- */

static bool unanswered(struct inquiry *inquiry, const char *why, struct err *err) {
    struct store_denial denial = {.why = why, .transient = true};
    log_event(LOG_WARNING, "confirm", "not answered", "destination=%s study_uid=%s attempt=%u reason=\"%s\"",
              inquiry->confirmation.destination, inquiry->confirmation.study_uid, inquiry->confirmation.attempt, why);
    return store_confirmation_failed(inquiry->store, &inquiry->confirmation, &denial, pulmo_now_ms(), err);
}

/* Everything that was found is confirmed; what is missing of the result is sent again. */
static bool conclude(struct inquiry *inquiry, const char *how, struct err *err) {
    size_t results_missing = 0, images_missing = 0;
    for (size_t index = 0; index < inquiry->count; index++) {
        results_missing += !inquiry->found[index] && inquiry->objects[index].is_result;
        images_missing += !inquiry->found[index] && !inquiry->objects[index].is_result;
    }
    char text[160];
    if (!results_missing && !images_missing) {
        snprintf(text, sizeof text, "%zu objects, by %s", inquiry->count, how);
        log_event(LOG_INFO, "confirm", "confirmed", "destination=%s study_uid=%s objects=%zu by=\"%s\"",
                  inquiry->confirmation.destination, inquiry->confirmation.study_uid, inquiry->count, how);
        return store_confirmation_confirmed(inquiry->store, &inquiry->confirmation, text, pulmo_now_ms(), err);
    }
    snprintf(text, sizeof text, "%zu results and %zu images of %zu objects are not there, says %s", results_missing,
             images_missing, inquiry->count, how);
    struct store_denial denial = {.why = text, .result_missing = results_missing > 0};
    log_event(LOG_WARNING, "confirm", "not confirmed", "destination=%s study_uid=%s attempt=%u reason=\"%s\"",
              inquiry->confirmation.destination, inquiry->confirmation.study_uid, inquiry->confirmation.attempt, text);
    return store_confirmation_failed(inquiry->store, &inquiry->confirmation, &denial, pulmo_now_ms(), err);
}

/* ---- C-FIND ------------------------------------------------------------------------------------------ */

static size_t collect_series(const struct inquiry *inquiry, const char **series) {
    size_t count = 0;
    for (size_t index = 0; index < inquiry->count; index++) {
        const char *uid = inquiry->objects[index].series_uid;
        size_t known = 0;
        while (known < count && strcmp(series[known], uid) != 0)
            known++;
        if (known == count && count < SERIES_MAX)
            series[count++] = uid;
    }
    return count;
}

static bool ask_find(struct inquiry *inquiry, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) const char **series = pulmo_alloc(SERIES_MAX, sizeof *series, err);
    if (!series)
        return false;
    struct dicom_find find = {.study_uid = inquiry->confirmation.study_uid,
                              .series_uids = series,
                              .series_count = collect_series(inquiry, series)};
    struct err failure = {0};
    if (!dicom_find_instances(&inquiry->peer.dicom, &find, on_found, inquiry, &failure))
        return unanswered(inquiry, failure.text, err);
    return conclude(inquiry, "C-FIND", err);
}

/* ---- Storage Commitment ------------------------------------------------------------------------------ */

static int compare_references(const void *left, const void *right) {
    const struct dicom_reference *a = left, *b = right;
    return strcmp(a->sop_instance_uid, b->sop_instance_uid);
}

/* Of sorted references: what a report is compared by. */
static bool references_digest(const struct dicom_reference *references, size_t count, char out[DIGEST_HEX_SIZE],
                              struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes text = {0};
    for (size_t index = 0; index < count; index++) {
        const char *uid = references[index].sop_instance_uid;
        if (!bytes_append(&text, uid, strlen(uid), (size_t)64 << 20, err) ||
            !bytes_append(&text, "\n", 1, (size_t)64 << 20, err))
            return false;
    }
    return digest_hex(text.data ? (const void *)text.data : "", text.size, out, err);
}

static bool references_make(const struct inquiry *inquiry, struct dicom_reference **out, struct err *err) {
    struct dicom_reference *references = pulmo_alloc(inquiry->count, sizeof *references, err);
    if (!references)
        return false;
    for (size_t index = 0; index < inquiry->count; index++) {
        memcpy(references[index].sop_class_uid, inquiry->objects[index].sop_class_uid, DICOM_UID_SIZE);
        memcpy(references[index].sop_instance_uid, inquiry->objects[index].sop_instance_uid, DICOM_UID_SIZE);
    }
    *out = references;
    return true;
}

static bool on_report(void *context, const struct dicom_commitment_report *report, struct err *err) {
    struct inquiry *inquiry = context;
    return confirm_report(inquiry->config, inquiry->store, report, err);
}

/* *asked = false: the peer does not offer it, so C-FIND may be tried; the transaction was noted, nobody will report it.
 */
static bool ask_commitment(struct inquiry *inquiry, bool *asked, struct err *err) {
    char uid[DICOM_UID_SIZE], digest[DIGEST_HEX_SIZE];
    PULMO_SCOPED(pulmo_free_at) struct dicom_reference *references = NULL;
    *asked = true;
    if (!references_make(inquiry, &references, err) || !references_digest(references, inquiry->count, digest, err) ||
        !dicom_uid_new(uid, err))
        return false;
    struct store_commitment commitment = {
        .transaction_uid = uid, .references_sha256 = digest, .wait_ms = inquiry->config->commitment_wait_s * 1000};
    if (!store_commitment_asked(inquiry->store, &inquiry->confirmation, &commitment, pulmo_now_ms(), err))
        return false;
    struct dicom_commitment request = {.transaction_uid = uid, .references = references, .count = inquiry->count};
    struct err failure = {0};
    if (dicom_commitment_request(&inquiry->peer.dicom, &request, on_report, inquiry, &failure)) {
        log_event(LOG_INFO, "confirm", "asked", "destination=%s study_uid=%s objects=%zu transaction_uid=%s",
                  inquiry->confirmation.destination, inquiry->confirmation.study_uid, inquiry->count, uid);
        return true;
    }
    bool declined = failure.kind == ERR_UNSUPPORTED || failure.kind == ERR_DENIED;
    *asked = !declined || inquiry->peer.entry.confirm != CONFIRM_AUTO;
    return !*asked || unanswered(inquiry, failure.text, err);
}

static bool reported_as_failed(const struct dicom_commitment_report *report, const char *sop_instance_uid) {
    for (size_t index = 0; index < report->failed_count; index++)
        if (strcmp(report->failed[index].sop_instance_uid, sop_instance_uid) == 0)
            return true;
    return false;
}

/* A report that does not name every object that was asked for confirms none of those that it leaves out. */
static bool compare_report(struct inquiry *inquiry, const struct dicom_commitment_report *report,
                           const char *references_sha256, struct err *err) {
    char digest[DIGEST_HEX_SIZE];
    PULMO_SCOPED(pulmo_free_at)
    struct dicom_reference *stored = pulmo_alloc(report->stored_count, sizeof *stored, err);
    if (!stored)
        return false;
    if (report->stored_count)
        memcpy(stored, report->stored, report->stored_count * sizeof *stored);
    qsort(stored, report->stored_count, sizeof *stored, compare_references);
    if (!references_digest(stored, report->stored_count, digest, err))
        return false;
    bool whole = strcmp(digest, references_sha256) == 0 && !report->failed_count;
    for (size_t index = 0; index < inquiry->count; index++) {
        const char *uid = inquiry->objects[index].sop_instance_uid;
        struct dicom_reference key;
        memcpy(key.sop_instance_uid, uid, DICOM_UID_SIZE);
        inquiry->found[index] =
            whole || (!reported_as_failed(report, uid) &&
                      bsearch(&key, stored, report->stored_count, sizeof *stored, compare_references) != NULL);
    }
    return true;
}

bool confirm_report(const struct config *config, struct store *store, const struct dicom_commitment_report *report,
                    struct err *err) {
    PULMO_SCOPED(inquiry_free) struct inquiry inquiry = {.config = config, .store = store};
    char references_sha256[DIGEST_HEX_SIZE];
    return store_commitment_find(store, report->transaction_uid, &inquiry.confirmation, references_sha256, err) &&
           inquiry_load(&inquiry, err) && compare_report(&inquiry, report, references_sha256, err) &&
           conclude(&inquiry, "storage commitment", err);
}

/* ---- one question ------------------------------------------------------------------------------------ */

/* By turns: a peer that takes requests but has no address of ours for its reports is asked by C-FIND the next time. */
static bool by_commitment(const struct inquiry *inquiry) {
    enum config_confirm confirm = inquiry->peer.entry.confirm;
    return confirm == CONFIRM_COMMITMENT || (confirm == CONFIRM_AUTO && inquiry->confirmation.attempt % 2 == 1);
}

bool confirm_step(const struct config *config, struct store *store, bool *idle, struct err *err) {
    PULMO_SCOPED(inquiry_free) struct inquiry inquiry = {.config = config, .store = store};
    bool asked = false;
    if (!store_confirmation_take(store, pulmo_now_ms(), &inquiry.confirmation, err))
        return false;
    const char *destination = store_destination_now(store, inquiry.confirmation.destination);
    *idle = !*inquiry.confirmation.study_uid || !outbox_peer_find(config, destination, &inquiry.peer);
    if (*idle)
        return true;
    if (!inquiry_load(&inquiry, err) || (by_commitment(&inquiry) && !ask_commitment(&inquiry, &asked, err)))
        return false;
    return asked || ask_find(&inquiry, err);
}
