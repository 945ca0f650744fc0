#include "web/access.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTES_MAX 512
#define NOTE_VALID_MS (15 * 60 * 1000)

struct access_note {
    char user[64], address[64], study_uid[DICOM_UID_SIZE];
    int64_t noted_ms; /* monotonic; 0 = free */
};
/* A ring: when it is full the oldest note is forgotten, which costs one more audit row and nothing else. */
struct access_notes {
    struct access_note items[NOTES_MAX];
    size_t next;
};

struct access_notes *access_notes_new(struct err *err) {
    return pulmo_alloc(1, sizeof(struct access_notes), err);
}

void access_notes_free(struct access_notes *notes) {
    free(notes);
}

static bool is_noted(const struct access_notes *notes, const struct access_note *wanted) {
    for (size_t index = 0; index < NOTES_MAX; index++) {
        const struct access_note *note = &notes->items[index];
        if (note->noted_ms && wanted->noted_ms - note->noted_ms < NOTE_VALID_MS &&
            strcmp(note->study_uid, wanted->study_uid) == 0 && strcmp(note->user, wanted->user) == 0 &&
            strcmp(note->address, wanted->address) == 0)
            return true;
    }
    return false;
}

bool access_note(struct request *request, const char *study_uid, struct err *err) {
    struct access_notes *notes = request->web->notes;
    struct access_note note = {.noted_ms = pulmo_monotonic_ms()};
    snprintf(note.user, sizeof note.user, "%s", request->user.name);
    snprintf(note.address, sizeof note.address, "%s", request->address);
    snprintf(note.study_uid, sizeof note.study_uid, "%s", study_uid);
    if (is_noted(notes, &note))
        return true;
    const struct store_audit row = {.code = "110103",
                                    .action = "read",
                                    .actor = request->user.name,
                                    .address = request->address,
                                    .study_uid = study_uid,
                                    .detail = "opened in the viewer"};
    if (!store_audit_append(request->web->store, &row, err))
        return false;
    notes->items[notes->next] = note;
    notes->next = (notes->next + 1) % NOTES_MAX;
    return true;
}

bool access_refused(struct request *request, const char *why, struct err *err) {
    char detail[256];
    snprintf(detail, sizeof detail, "%.160s: %.80s", request->path, why);
    const struct store_audit row = {.code = "110113",
                                    .action = "refused",
                                    .actor = request->user.name,
                                    .address = request->address,
                                    .study_uid = "",
                                    .detail = detail,
                                    .outcome = 4};
    return store_audit_append(request->web->store, &row, err);
}
