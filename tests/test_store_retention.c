/* LABELS: quick tsan
 * Images are given up only when everybody has what he needs, never halfway, and come back when they are sent again. */
#include "store_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <utime.h>

#define DAY_MS (24LL * 3600 * 1000)

static const char *const pacs[] = {"PACS"};
static const char *const both[] = {"ARCHIVE", "PACS"};

static const struct store_purge_rule any = {INT64_MAX, "test"};

static void ask(const struct fixture *fixture, const char *const *names, size_t count) {
    struct err err = {0};
    assert_good(store_set_destinations(fixture->store, names, count, &err));
    assert_good(store_set_confirming(fixture->store, names, count, &err));
    (void)!store_user_add(fixture->store, "jane", "Jane Doe", "radiologist", "long enough", &err);
}

/* Two images, decoded, analysed; not signed. */
static int64_t analysed(const struct fixture *fixture, const char *study_uid) {
    static const struct store_artifact decoded[] = {{"series.json", "application/json", "{}", 2, false},
                                                    {"slices.i16", "application/octet-stream", "0123", 4, false}};
    struct err err = {0};
    char sop[DICOM_UID_SIZE];
    snprintf(sop, sizeof sop, "%.50s.4.2", study_uid);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.study = study_uid, .sop = sop}, &err));
    struct store_job job = fixture_job(fixture->store, study_uid, STORE_JOB_ANALYSE), decode;
    assert_good(store_job_take(fixture->store, 1U << STORE_JOB_DECODE, pulmo_now_ms() + QUIET_MS + 1, &decode, &err));
    assert_good(store_decode_finish(fixture->store, &decode, decoded, 2, &err));
    return fixture_result(fixture->store, &job, 0.5);
}

static void sign(const struct fixture *fixture, const char *study_uid, int64_t result_id) {
    struct err err = {0};
    char text[80];
    int size = snprintf(text, sizeof text, "signed %s", study_uid);
    assert_good(store_sign_request(fixture->store, result_id, "jane", &err));
    struct store_job job = fixture_job(fixture->store, study_uid, STORE_JOB_SIGN);
    struct store_artifact artifact = {"signed-sr.dcm", "application/dicom", text, (size_t)size, true};
    assert_good(store_sign_finish(fixture->store, &job, &artifact, 1, &err));
}

static void send_all(const struct fixture *fixture) {
    struct err err = {0};
    for (struct store_outgoing outgoing = {.id = 1}; outgoing.id;) {
        assert_good(store_outbox_take(fixture->store, pulmo_now_ms() + 1000, &outgoing, &err));
        if (outgoing.id)
            assert_good(store_outbox_sent(fixture->store, &outgoing, &err));
    }
}

static struct store_confirmation question(const struct fixture *fixture, int64_t in_ms) {
    struct err err = {0};
    struct store_confirmation confirmation;
    assert_good(store_confirmation_take(fixture->store, pulmo_now_ms() + in_ms, &confirmation, &err));
    return confirmation;
}

static void confirm_all(const struct fixture *fixture) {
    struct err err = {0};
    for (struct store_confirmation next = question(fixture, 0); *next.study_uid; next = question(fixture, 0))
        assert_good(store_confirmation_confirmed(fixture->store, &next, "C-FIND", pulmo_now_ms(), &err));
}

/* As above to its end: nothing but the settings keeps its images. */
static int64_t confirmed(const struct fixture *fixture, const char *study_uid) {
    int64_t id = analysed(fixture, study_uid);
    sign(fixture, study_uid, id);
    send_all(fixture);
    confirm_all(fixture);
    return id;
}

static struct store_purged purge(const struct fixture *fixture, const struct store_purge_rule *rule) {
    struct err err = {0};
    struct store_purged purged;
    assert_good(store_retention_purge(fixture->store, rule, &purged, &err));
    return purged;
}

static int64_t files_removed(const struct fixture *fixture) {
    struct err err = {0};
    int64_t removed = 0;
    assert_good(store_retention_remove(fixture->store, &removed, &err));
    return removed;
}

static int files_found;
static int file_count(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)path, (void)status, (void)walk;
    files_found += type == FTW_F;
    return 0;
}
static int files(const struct fixture *fixture) {
    char path[256];
    snprintf(path, sizeof path, "%s/blobs", fixture->folder);
    files_found = 0;
    nftw(path, file_count, 16, FTW_PHYS);
    return files_found;
}

static void assert_whole(const struct fixture *fixture) {
    struct err err = {0};
    int64_t rows = 0, bad = 0;
    char reason[256];
    assert_good(store_audit_verify(fixture->store, &rows, &bad, reason, sizeof reason, &err));
    assert_int_equal(bad, 0);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

/* ---- what may go ------------------------------------------------------------------------------------- */

static void test_purge(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char media_type[64];
    ask(fixture, pacs, 1);
    int64_t id = confirmed(fixture, "1.2.3");
    int before = files(fixture);
    struct store_purged purged = purge(fixture, &any);
    assert_string_equal(purged.study_uid, "1.2.3");
    assert_int_equal(purged.images, 2);
    assert_int_equal(files(fixture), before); /* the marks are the first thing, the files go after their commit */
    assert_int_equal(files_removed(fixture), 4);
    assert_int_equal(files(fixture), before - 4); /* two images, two decoded files */
    assert_string_equal(purge(fixture, &any).study_uid, "");
    struct store_study study;
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    assert_string_equal(study.state, "signed");
    assert_true(study.purged_ms > 0);
    assert_int_equal(study.instances, 2);
    PULMO_SCOPED(bytes_free) struct bytes sr = {0}, none = {0};
    assert_good(store_artifact_read(fixture->store, id, "sr.dcm", &sr, media_type, &err));
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    assert_refused(store_study_paths(fixture->store, "1.2.3", &paths, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "purged"));
    assert_refused(store_study_artifact_read(fixture->store, "1.2.3", "series.json", &none, media_type, &err),
                   ERR_NOT_FOUND);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%\"110105\"%2 images%'"),
                     1);
    assert_whole(fixture);
}

/* Each of these keeps the images; the count says why. */
static void test_kept(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_retention_counts counts;
    ask(fixture, pacs, 1);
    analysed(fixture, "1.2.1"); /* awaits its reader */
    confirmed(fixture, "1.2.2");
    assert_good(store_study_hold(fixture->store, "1.2.2", "a court asks", "jane", &err));
    confirmed(fixture, "1.2.4");
    confirmed(fixture, "1.2.5");
    struct fixture_instance conflict = {.study = "1.2.5", .sop = "1.2.5.4.1", .pixels = "other"};
    assert_good(fixture_put(fixture->store, &conflict, &err));
    sign(fixture, "1.2.3", analysed(fixture, "1.2.3"));
    send_all(fixture); /* the PACS has not confirmed it */
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.study = "1.2.4", .sop = "1.2.4.4.9"}, &err));
    assert_string_equal(purge(fixture, &any).study_uid, "");
    assert_good(store_retention_counts(fixture->store, &counts, &err));
    assert_int_equal(counts.eligible, 0);
    assert_int_equal(counts.unsigned_results, 1);
    assert_int_equal(counts.held, 1);
    assert_int_equal(counts.unconfirmed, 1);
    assert_int_equal(counts.in_work, 1);
    assert_int_equal(counts.in_conflict, 1);
    assert_good(store_study_release(fixture->store, "1.2.2", "jane", &err));
    assert_refused(store_study_release(fixture->store, "1.2.2", "jane", &err), ERR_NOT_FOUND);
    err = (struct err){0};
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.2");
    assert_string_equal(purge(fixture, &any).study_uid, "");
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%\"hold\"%'"), 1);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%a court asks%'"), 0);
}

/* Without a destination that confirms, nothing is ever given up. */
static void test_nobody_confirms(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    ask(fixture, pacs, 1);
    confirmed(fixture, "1.2.3");
    assert_good(store_set_confirming(fixture->store, NULL, 0, &err));
    assert_string_equal(purge(fixture, &any).study_uid, "");
    assert_string_equal(question(fixture, 0).study_uid, "");
}

/* Both destinations got it, so both must have it. */
static void test_every_destination(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    ask(fixture, both, 2);
    sign(fixture, "1.2.3", analysed(fixture, "1.2.3"));
    send_all(fixture);
    struct store_confirmation first = question(fixture, 0), second = question(fixture, 0);
    assert_int_not_equal(strcmp(first.destination, second.destination), 0);
    assert_good(store_confirmation_confirmed(fixture->store, &first, "C-FIND", pulmo_now_ms(), &err));
    assert_string_equal(purge(fixture, &any).study_uid, "");
    assert_good(store_confirmation_confirmed(fixture->store, &second, "C-FIND", pulmo_now_ms(), &err));
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
}

static const char *const here[] = {"PACS@old.example:104"};
static const char *const there[] = {"PACS@new.example:11112"};

/* What a PACS got and confirmed at its former address counts at its present one, and so does what it is asked there. */
static void test_moved(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_object *objects = NULL;
    size_t count = 0;
    ask(fixture, here, 1);
    confirmed(fixture, "1.2.1");
    int64_t half = analysed(fixture, "1.2.2");
    sign(fixture, "1.2.3", analysed(fixture, "1.2.3"));
    send_all(fixture); /* the report of 1.2.2, all of 1.2.3 */
    struct store_confirmation asked = question(fixture, 0);
    assert_string_equal(asked.study_uid, "1.2.3");
    ask(fixture, there, 1);
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.1");
    assert_string_equal(purge(fixture, &any).study_uid, "");
    sign(fixture, "1.2.2", half);
    send_all(fixture);
    struct store_confirmation next = question(fixture, 0);
    assert_string_equal(next.study_uid, "1.2.2");
    assert_string_equal(next.destination, there[0]);
    assert_good(store_confirmation_objects(fixture->store, &next, true, &objects, &count, &err));
    assert_int_equal(count, 4); /* the report that went to the former address, too */
    free(objects);
    assert_good(store_confirmation_confirmed(fixture->store, &next, "C-FIND", pulmo_now_ms(), &err));
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.2");
    assert_string_equal(purge(fixture, &any).study_uid, "");
    assert_good(store_confirmation_confirmed(fixture->store, &asked, "C-FIND", pulmo_now_ms(), &err));
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
    assert_whole(fixture);
}

/* A report that the PACS has lost is sent again to where it is now, and asked for once, under its name of now. */
static void test_moved_and_denied(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_denial missing = {.why = "the SR is not there", .result_missing = true};
    ask(fixture, here, 1);
    sign(fixture, "1.2.3", analysed(fixture, "1.2.3"));
    send_all(fixture);
    ask(fixture, there, 1);
    struct store_confirmation asked = question(fixture, 0);
    assert_string_equal(asked.destination, here[0]);
    assert_good(store_confirmation_failed(fixture->store, &asked, &missing, pulmo_now_ms(), &err));
    send_all(fixture);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM confirmation"), 1);
    asked = question(fixture, 0);
    assert_string_equal(asked.destination, there[0]);
    assert_good(store_confirmation_confirmed(fixture->store, &asked, "C-FIND", pulmo_now_ms(), &err));
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
}

/* Two archives of one AE title: neither is taken for the former one, whose word counts no more. */
static void test_moved_ambiguously(void **state) {
    static const char *const two[] = {"PACS@new.example:1", "PACS@new.example:2"};
    struct fixture *fixture = *state;
    ask(fixture, here, 1);
    confirmed(fixture, "1.2.3");
    ask(fixture, two, 2);
    assert_string_equal(store_destination_now(fixture->store, here[0]), here[0]);
    assert_string_equal(store_destination_now(fixture->store, "PACSX@old.example:104"), "PACSX@old.example:104");
    assert_string_equal(store_destination_now(fixture->store, two[1]), two[1]);
    assert_string_equal(purge(fixture, &any).study_uid, "");
    ask(fixture, there, 1);
    assert_string_equal(store_destination_now(fixture->store, here[0]), there[0]);
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
}

/* The days count from the confirmation, or from the last image where that came later; the oldest goes first. */
static void test_days_and_order(void **state) {
    struct fixture *fixture = *state;
    ask(fixture, pacs, 1);
    confirmed(fixture, "1.2.9");
    confirmed(fixture, "1.2.3");
    confirmed(fixture, "1.2.5");
    fixture_sql(fixture, "UPDATE study SET last_received_ms = 2 WHERE study_uid = '1.2.5'");
    fixture_sql(fixture, "UPDATE study SET last_received_ms = 1 WHERE study_uid = '1.2.9'");
    struct store_purge_rule rule = {pulmo_now_ms() - DAY_MS, "1 day"};
    assert_string_equal(purge(fixture, &rule).study_uid, "");
    rule.confirmed_before_ms = pulmo_now_ms() + DAY_MS;
    assert_string_equal(purge(fixture, &rule).study_uid, "1.2.9");
    assert_string_equal(purge(fixture, &rule).study_uid, "1.2.5");
    assert_string_equal(purge(fixture, &rule).study_uid, "1.2.3");
    assert_string_equal(purge(fixture, &rule).study_uid, "");
}

/* ---- the PACS's word --------------------------------------------------------------------------------- */

/* A study that changed since it was asked for: the answer is about another state. */
static void test_stale_answer(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    ask(fixture, pacs, 1);
    sign(fixture, "1.2.3", analysed(fixture, "1.2.3"));
    send_all(fixture);
    struct store_confirmation asked = question(fixture, 0);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.7"}, &err));
    struct store_job job;
    assert_good(store_job_take(fixture->store, 1U << STORE_JOB_ANALYSE, pulmo_now_ms() + QUIET_MS + 1, &job, &err));
    int64_t id = fixture_result(fixture->store, &job, 0.5);
    struct store_job decode;
    assert_good(store_job_take(fixture->store, 1U << STORE_JOB_DECODE, pulmo_now_ms() + QUIET_MS + 1, &decode, &err));
    assert_good(store_decode_finish(fixture->store, &decode, NULL, 0, &err));
    assert_good(store_confirmation_confirmed(fixture->store, &asked, "late", pulmo_now_ms(), &err));
    assert_string_equal(purge(fixture, &any).study_uid, ""); /* the new result awaits its reader */
    sign(fixture, "1.2.3", id);
    assert_string_equal(purge(fixture, &any).study_uid, ""); /* and is not sent */
    send_all(fixture);
    assert_string_equal(purge(fixture, &any).study_uid, ""); /* nor confirmed */
    confirm_all(fixture);
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
}

/* Asked again with growing pauses; what is missing of the result is sent again. */
static void test_denied(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    ask(fixture, pacs, 1);
    sign(fixture, "1.2.3", analysed(fixture, "1.2.3"));
    send_all(fixture);
    struct store_confirmation asked = question(fixture, 0);
    assert_int_equal(asked.attempt, 1);
    assert_string_equal(question(fixture, LEASE_MS - 1000).study_uid, ""); /* under way */
    assert_good(store_confirmation_failed(
        fixture->store, &asked, &(struct store_denial){.why = "down", .transient = true}, pulmo_now_ms(), &err));
    assert_string_equal(question(fixture, 4000).study_uid, "");
    asked = question(fixture, 6000);
    assert_int_equal(asked.attempt, 2);
    struct store_denial missing = {.why = "the SR is not there", .result_missing = true};
    assert_good(store_confirmation_failed(fixture->store, &asked, &missing, pulmo_now_ms(), &err));
    assert_string_equal(question(fixture, 60 * 1000).study_uid, "");
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM outbox WHERE state = 'queued'"), 2);
    send_all(fixture);
    assert_string_equal(question(fixture, 60 * 1000).study_uid, ""); /* sending again does not shorten the pause */
    asked = question(fixture, 11 * 60 * 1000);
    assert_int_equal(asked.attempt, 3);
    assert_string_equal(purge(fixture, &any).study_uid, "");
    assert_good(store_confirmation_confirmed(fixture->store, &asked, "C-FIND", pulmo_now_ms(), &err));
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
}

/* A report may come after a restart, and is known by its transaction; one that was never asked for is not. */
static void test_commitment(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char digest[65];
    struct store_object *objects = NULL;
    size_t count = 0;
    ask(fixture, pacs, 1);
    sign(fixture, "1.2.3", analysed(fixture, "1.2.3"));
    send_all(fixture);
    struct store_confirmation asked = question(fixture, 0), found;
    assert_good(store_confirmation_objects(fixture->store, &asked, true, &objects, &count, &err));
    assert_int_equal(count, 4); /* two reports, two images */
    assert_true(objects[0].is_result && objects[1].is_result && !objects[2].is_result);
    assert_string_equal(objects[2].series_uid, "1.2.3.9");
    free(objects);
    struct store_commitment commitment = {"2.25.7", "abc", 600000};
    assert_good(store_commitment_asked(fixture->store, &asked, &commitment, pulmo_now_ms(), &err));
    assert_string_equal(question(fixture, 599000).study_uid, "");
    store_close(fixture->store);
    fixture->store = fixture_handle(fixture);
    ask(fixture, pacs, 1);
    err = (struct err){0};
    assert_refused(store_commitment_find(fixture->store, "2.25.8", &found, digest, &err), ERR_NOT_FOUND);
    err = (struct err){0};
    assert_good(store_commitment_find(fixture->store, "2.25.7", &found, digest, &err));
    assert_string_equal(found.study_uid, "1.2.3");
    assert_string_equal(digest, "abc");
    assert_good(store_confirmation_confirmed(fixture->store, &found, "storage commitment", pulmo_now_ms(), &err));
    assert_refused(store_commitment_find(fixture->store, "2.25.7", &found, digest, &err), ERR_NOT_FOUND);
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
}

/* ---- files ------------------------------------------------------------------------------------------- */

/* Killed between the commit of the marks and the removal: the next start removes the rest. */
static void test_killed_before_removal(void **state) {
    struct fixture *fixture = *state;
    ask(fixture, pacs, 1);
    confirmed(fixture, "1.2.3");
    int before = files(fixture);
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
    store_close(fixture->store);
    fixture->store = fixture_handle(fixture);
    assert_int_equal(files(fixture), before);
    assert_int_equal(files_removed(fixture), 4);
    assert_int_equal(files_removed(fixture), 0);
    assert_whole(fixture);
}

/* Two studies decode to the same bytes: the file stays as long as one of them needs it. */
static void test_shared_content(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char media_type[64];
    ask(fixture, pacs, 1);
    confirmed(fixture, "1.2.3");
    analysed(fixture, "1.2.4");
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
    assert_int_equal(files_removed(fixture), 2); /* the two images alone */
    PULMO_SCOPED(bytes_free) struct bytes slices = {0};
    assert_good(store_study_artifact_read(fixture->store, "1.2.4", "slices.i16", &slices, media_type, &err));
}

/* Who copies the store holds purge.lock: no file goes before the copy is whole. */
static void test_copier(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    ask(fixture, pacs, 1);
    confirmed(fixture, "1.2.3");
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
    snprintf(path, sizeof path, "%s/purge.lock", fixture->folder);
    int copier = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    assert_int_equal(flock(copier, LOCK_SH), 0);
    assert_int_equal(files_removed(fixture), 0);
    close(copier);
    assert_int_equal(files_removed(fixture), 4);
}

static int64_t orphans_removed(const struct fixture *fixture, int64_t age_s) {
    struct err err = {0};
    int64_t sum = 0;
    for (unsigned part = 0; part < 256; part++) {
        int64_t removed = 0;
        assert_good(store_orphans_remove(fixture->store, part, age_s, &removed, &err));
        sum += removed;
    }
    return sum;
}

static void test_orphans(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char path[256], foreign[256], digest[DIGEST_HEX_SIZE];
    analysed(fixture, "1.2.3");
    int before = files(fixture);
    assert_good(digest_hex("left over", 9, digest, &err));
    snprintf(path, sizeof path, "%s/blobs/%.2s/%s", fixture->folder, digest, digest);
    snprintf(foreign, sizeof foreign, "%s/blobs/00/README", fixture->folder);
    assert_good(bytes_write_file(path, "left over", 9, false, &err));
    assert_good(bytes_write_file(foreign, "not ours", 8, false, &err));
    assert_int_equal(orphans_removed(fixture, -1), 0); /* it may be on its way to its row */
    struct utimbuf old = {.modtime = time(NULL) - 7200};
    assert_int_equal(utime(path, &old), 0);
    assert_int_equal(orphans_removed(fixture, -1), 1);
    assert_int_equal(orphans_removed(fixture, 0), 0); /* nothing that a row names goes, however old */
    assert_int_equal(files(fixture), before + 1);
}

struct sweeper {
    const struct fixture *fixture;
    atomic_bool stop;
    int64_t removed;
};
static void *sweep(void *context) {
    struct sweeper *sweeper = context;
    struct err err = {0};
    PULMO_SCOPED(store_close_at) struct store *store = fixture_handle(sweeper->fixture);
    while (!atomic_load(&sweeper->stop))
        for (unsigned part = 0; part < 256; part++) {
            int64_t removed = 0;
            if (store_orphans_remove(store, part, 0, &removed, &err))
                sweeper->removed += removed;
        }
    return NULL;
}

/* Files that are removed between their writing and the commit of their row, since no clock protects them here: the
 * receiver sees it in that commit, and writes them again. */
static void test_orphans_and_reception(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct sweeper sweeper = {.fixture = fixture};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, sweep, &sweeper), 0);
    int sent = 0;
    for (int64_t until_ms = pulmo_monotonic_ms() + 2000; pulmo_monotonic_ms() < until_ms; sent++) {
        char sop[32];
        snprintf(sop, sizeof sop, "1.2.3.4.%d", sent);
        if (!fixture_put(fixture->store, &(struct fixture_instance){.sop = sop}, &err))
            break;
    }
    atomic_store(&sweeper.stop, true);
    pthread_join(thread, NULL);
    assert_true(err.kind == ERR_NONE || err.kind == ERR_BUSY); /* eight times in a row: the sender sends again */
    assert_true(sweeper.removed > 0);
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    err = (struct err){0};
    assert_good(store_study_paths(fixture->store, "1.2.3", &paths, &err));
    assert_true(paths.count >= (size_t)sent);
    for (size_t index = 0; index < paths.count; index++)
        assert_int_equal(access(paths.items[index], R_OK), 0);
}

/* ---- sent again -------------------------------------------------------------------------------------- */

static void purged_study(const struct fixture *fixture) {
    ask(fixture, pacs, 1);
    confirmed(fixture, "1.2.3");
    assert_string_equal(purge(fixture, &any).study_uid, "1.2.3");
}

static struct store_study study_of(const struct fixture *fixture) {
    struct err err = {0};
    struct store_study study;
    assert_good(store_study_get(fixture->store, "1.2.3", &study, &err));
    return study;
}

/* The whole study sent again is the study as it was: decoded anew, not analysed anew. Also in another encoding of the
 * meta information, and when the files were not removed yet. */
static void test_sent_again(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    for (int removed = 0; removed < 2; removed++) {
        purged_study(fixture);
        if (removed)
            assert_int_equal(files_removed(fixture), 4);
        assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.1", .meta = "other"}, &err));
        assert_true(study_of(fixture).purged_ms > 0);
        assert_string_equal(study_of(fixture).state, "signed");
        assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err));
        assert_int_equal(study_of(fixture).purged_ms, 0);
        assert_string_equal(study_of(fixture).state, "signed");
        files_removed(fixture);
        PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
        assert_good(store_study_paths(fixture->store, "1.2.3", &paths, &err));
        for (size_t index = 0; index < paths.count; index++)
            assert_int_equal(access(paths.items[index], R_OK), 0);
        assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 2);
        assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM job WHERE kind = 2 AND state = 'queued'"), 1);
        assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM job WHERE kind = 1 AND state = 'queued'"), 0);
        struct store_job decode;
        assert_good(store_job_take(fixture->store, 1U << STORE_JOB_DECODE, pulmo_now_ms() + 1, &decode, &err));
        assert_good(store_decode_finish(fixture->store, &decode, NULL, 0, &err));
        fixture_teardown(state);
        fixture_setup(state);
        fixture = *state;
    }
}

/* In another transfer syntax: what was purged cannot stay the current one. No alarm, no new analysis. */
static void test_transcoded_again(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    purged_study(fixture);
    files_removed(fixture);
    for (int index = 1; index <= 2; index++) {
        char sop[32];
        snprintf(sop, sizeof sop, "1.2.3.4.%d", index);
        assert_good(
            fixture_put(fixture->store, &(struct fixture_instance){.sop = sop, .syntax = "1.2.840.10008.1.2"}, &err));
    }
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE version = 'transcoded' AND current"),
                     2);
    assert_int_equal(study_of(fixture).purged_ms, 0);
    assert_string_equal(study_of(fixture).state, "signed");
}

/* Other pixels under a purged image's UID are a conflict, as they were before. */
static void test_conflict_after_purge(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    purged_study(fixture);
    files_removed(fixture);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.1", .pixels = "other"}, &err));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE version = 'conflict'"), 1);
    assert_true(study_of(fixture).purged_ms > 0);
}

/* A late slice of a purged study is kept, and waits for the others: alone it would be refused as too few slices. */
static void test_late_slice_after_purge(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_job job;
    purged_study(fixture);
    files_removed(fixture);
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.3"}, &err));
    assert_good(store_job_take(fixture->store, 1U << STORE_JOB_ANALYSE, pulmo_now_ms() + DAY_MS, &job, &err));
    assert_int_equal(job.id, 0);
    assert_string_equal(study_of(fixture).state, "receiving");
    assert_non_null(strstr(study_of(fixture).reason, "send the whole study again"));
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.1"}, &err));
    assert_good(fixture_put(fixture->store, &(struct fixture_instance){.sop = "1.2.3.4.2"}, &err));
    assert_good(store_job_take(fixture->store, 1U << STORE_JOB_ANALYSE, pulmo_now_ms() + DAY_MS, &job, &err));
    assert_true(job.id > 0);
    assert_int_equal(job.study_revision, 3);
}

static void test_notice(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char text[128];
    bool changed = false;
    assert_good(store_notice_get(fixture->store, "disk", text, sizeof text, &err));
    assert_string_equal(text, "");
    assert_good(store_notice_put(fixture->store, "disk", "it is full", &changed, &err));
    assert_true(changed);
    assert_good(store_notice_put(fixture->store, "disk", "it is full", &changed, &err));
    assert_false(changed);
    assert_good(store_notice_get(fixture->store, "disk", text, sizeof text, &err));
    assert_string_equal(text, "it is full");
    assert_good(store_notice_put(fixture->store, "disk", "", &changed, &err));
    assert_true(changed);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM notice"), 0);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_purge),
        TEST(test_kept),
        TEST(test_nobody_confirms),
        TEST(test_every_destination),
        TEST(test_moved),
        TEST(test_moved_and_denied),
        TEST(test_moved_ambiguously),
        TEST(test_days_and_order),
        TEST(test_stale_answer),
        TEST(test_denied),
        TEST(test_commitment),
        TEST(test_killed_before_removal),
        TEST(test_shared_content),
        TEST(test_copier),
        TEST(test_orphans),
        TEST(test_orphans_and_reception),
        TEST(test_sent_again),
        TEST(test_transcoded_again),
        TEST(test_conflict_after_purge),
        TEST(test_late_slice_after_purge),
        TEST(test_notice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
