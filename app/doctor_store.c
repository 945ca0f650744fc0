#include "app/doctor.h"

#include <stdio.h>
#include <string.h>

/* Reads the store once for the checks that follow. */
void doctor_database(struct doctor *doctor) {
    struct err err = {0};
    if (!store_inspect(doctor->config.data_folder, doctor->studies, &doctor->store, &err)) {
        doctor_say(doctor, DOCTOR_FAILED, "%s; restore the last backup into an empty folder (pulmo restore)", err.text);
        return;
    }
    if (!doctor->store.found) {
        doctor_say(doctor, DOCTOR_SKIPPED, "there is none yet; pulmo serve makes it");
        return;
    }
    doctor->store_read = true;
    const struct store_inspection *store = &doctor->store;
    if (strcmp(store->integrity, "ok") != 0)
        doctor_say(doctor, DOCTOR_FAILED, "damaged: %s; restore the last backup into an empty folder (pulmo restore)",
                   store->integrity);
    else if (store->version > store->version_known)
        doctor_say(doctor, DOCTOR_FAILED,
                   "version %lld, this program knows up to %lld: install the newer program, or put the older database "
                   "back (pulmo restore --before-upgrade)",
                   (long long)store->version, (long long)store->version_known);
    else if (store->version < store->version_known)
        doctor_say(doctor, DOCTOR_OK, "integrity_check ok; version %lld, the next start brings it to %lld",
                   (long long)store->version, (long long)store->version_known);
    else
        doctor_say(doctor, DOCTOR_OK, "integrity_check ok, version %lld", (long long)store->version);
}

static bool skipped(struct doctor *doctor) {
    if (!doctor->store_read)
        doctor_say(doctor, DOCTOR_SKIPPED, "there is no database to read");
    return !doctor->store_read;
}

void doctor_audit(struct doctor *doctor) {
    const struct store_audit_verdict *audit = &doctor->store.audit;
    if (skipped(doctor))
        return;
    if (audit->first_bad_row)
        doctor_say(doctor, DOCTOR_FAILED,
                   "broken at row %lld: %s; keep the data folder as it is and ask who could write to it",
                   (long long)audit->first_bad_row, audit->reason);
    else
        doctor_say(doctor, DOCTOR_OK, "whole, %lld rows", (long long)audit->rows);
}

void doctor_contents(struct doctor *doctor) {
    const struct store_inspection *store = &doctor->store;
    if (skipped(doctor))
        return;
    if (store->contents_bad)
        doctor_say(doctor, DOCTOR_FAILED,
                   "%lld of %lld files of the newest studies and of models are damaged, first: %s; look at the disk, "
                   "restore from a "
                   "backup",
                   (long long)store->contents_bad, (long long)store->contents, store->content_fault);
    else
        doctor_say(doctor, DOCTOR_OK, "%lld files of the newest %lld studies and of %lld models are what was stored",
                   (long long)store->contents, (long long)doctor->studies, (long long)store->models);
}

void doctor_queues(struct doctor *doctor) {
    const struct store_inspection *store = &doctor->store;
    if (skipped(doctor))
        return;
    if (store->jobs_dead || store->outbox_dead)
        doctor_say(
            doctor, DOCTOR_WARNING,
            "%lld jobs and %lld sendings were given up; the worklist says why, pulmo requeue STUDY-UID tries again",
            (long long)store->jobs_dead, (long long)store->outbox_dead);
    else
        doctor_say(doctor, DOCTOR_OK, "nothing was given up; %lld objects wait for their destination",
                   (long long)store->outbox_waiting);
}
