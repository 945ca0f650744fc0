/* LABELS: quick tsan
 * The reception journal: what was acknowledged survives a crash and a checkpoint whole, what was not is no more than
 * room to write over; many threads commit as one. */
#include "store_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "store/handle.h"
#include "store/journal.h"
#include "store/record.h"
#include "store/segment.h"

static struct store_journal *journal_open(const struct fixture *fixture) {
    struct err err = {0};
    struct store_journal *journal = store_journal_open(&fixture->config, &err);
    if (!journal || !store_journal_keep(journal, 0, &err))
        fail_msg("%s", err.text);
    return journal;
}

/* An instance of any content: the store does not parse it. */
static struct instance instance_of(const char *sop, const void *content, size_t size) {
    struct instance instance = {.part10 = content, .part10_size = size, .instance_number = 1};
    snprintf(instance.sop_class_uid, sizeof instance.sop_class_uid, "1.2.840.10008.5.1.4.1.1.2");
    snprintf(instance.sop_instance_uid, sizeof instance.sop_instance_uid, "%s", sop);
    snprintf(instance.study_uid, sizeof instance.study_uid, "1.2.3");
    snprintf(instance.series_uid, sizeof instance.series_uid, "1.2.3.9");
    snprintf(instance.transfer_syntax_uid, sizeof instance.transfer_syntax_uid, "1.2.840.10008.1.2.1");
    snprintf(instance.calling_aet, sizeof instance.calling_aet, "SENDER");
    snprintf(instance.patient_id, sizeof instance.patient_id, "P1");
    return instance;
}

/* Acknowledged; its rows may still be on their way. */
static void put_only(struct store_journal *journal, struct store *store, const char *sop, const char *text) {
    struct err err = {0};
    struct instance instance = instance_of(sop, text, strlen(text));
    assert_good(store_journal_put(journal, store, &instance, &err));
}

static void put(struct store_journal *journal, struct store *store, const char *sop, const char *text) {
    struct err err = {0};
    put_only(journal, store, sop, text);
    assert_good(store_journal_flush(journal, &err));
}

static int64_t waiting(const struct fixture *fixture) {
    return fixture_count(fixture, "SELECT count(*) FROM journal");
}

static bool blob_is(const struct fixture *fixture, const char *text) {
    char digest[DIGEST_HEX_SIZE], path[512];
    struct err err = {0};
    PULMO_SCOPED(bytes_free) struct bytes found = {0};
    assert_good(digest_hex(text, strlen(text), digest, &err));
    snprintf(path, sizeof path, "%s/blobs/%.2s/%s", fixture->folder, digest, digest);
    return bytes_read_file(path, 1 << 20, &found, &err) && found.size == strlen(text) &&
           memcmp(found.data, text, found.size) == 0;
}

static void blob_remove(const struct fixture *fixture, const char *text) {
    char digest[DIGEST_HEX_SIZE], path[512];
    struct err err = {0};
    assert_good(digest_hex(text, strlen(text), digest, &err));
    snprintf(path, sizeof path, "%s/blobs/%.2s/%s", fixture->folder, digest, digest);
    unlink(path);
}

static void check_chain(struct store *store) {
    struct err err = {0};
    int64_t rows = 0, bad = 0;
    char reason[200];
    assert_good(store_audit_verify(store, &rows, &bad, reason, sizeof reason, &err));
    assert_int_equal(bad, 0);
}

static void test_paths(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_journal *journal = journal_open(fixture);
    put(journal, fixture->store, "1.2.3.1", "content one");
    put(journal, fixture->store, "1.2.3.2", "content two");
    assert_int_equal(waiting(fixture), 2);
    assert_false(blob_is(fixture, "content one"));
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    assert_good(store_study_paths(fixture->store, "1.2.3", &paths, &err));
    assert_int_equal(paths.count, 2);
    assert_true(blob_is(fixture, "content one") && blob_is(fixture, "content two"));
    assert_int_equal(waiting(fixture), 0);
    for (int again = 0; again < 3; again++) /* changes nothing any more */
        assert_good(store_journal_checkpoint(fixture->store, &err));
    assert_true(blob_is(fixture, "content one"));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE current = 1"), 2);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%lost%'"), 0);
    store_journal_close(journal);
    check_chain(fixture->store);
}

static void test_same_content(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_journal *journal = journal_open(fixture);
    put(journal, fixture->store, "1.2.3.1", "twins");
    put(journal, fixture->store, "1.2.3.2", "twins");
    assert_int_equal(waiting(fixture), 1); /* one content, two rows that name it */
    assert_good(store_journal_checkpoint(fixture->store, &err));
    put(journal, fixture->store, "1.2.3.3", "twins"); /* written again, as blob_put does */
    assert_good(store_journal_checkpoint(fixture->store, &err));
    assert_true(blob_is(fixture, "twins"));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 3);
    blob_remove(fixture, "twins"); /* the disk loses it; a resend brings it back */
    put(journal, fixture->store, "1.2.3.3", "twins");
    assert_good(store_journal_checkpoint(fixture->store, &err));
    assert_true(blob_is(fixture, "twins"));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 3);
    store_journal_close(journal);
}

static void check_versions(const struct fixture *fixture) {
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE version = 'first'"), 1);
    assert_int_equal(fixture_count(fixture, "SELECT current FROM instance WHERE version = 'corrected'"), 1);
    assert_int_equal(fixture_count(fixture, "SELECT current FROM instance WHERE version = 'conflict'"), 0);
    assert_int_equal(waiting(fixture), 3);
}

/* What is compared with still lies in the journal. */
static void test_versions(void **state) {
    struct fixture *fixture = *state;
    struct store_journal *journal = journal_open(fixture);
    put(journal, fixture->store, "1.2.3.1", "header a PIXELS 1");
    put(journal, fixture->store, "1.2.3.1", "header a PIXELS 1");
    assert_int_equal(waiting(fixture), 1);
    put(journal, fixture->store, "1.2.3.1", "header b PIXELS 1");
    put(journal, fixture->store, "1.2.3.1", "header b PIXELS 2");
    check_versions(fixture);
    store_journal_close(journal);
    check_chain(fixture->store);
}

/* A process that ends without a checkpoint; the next one must not write over what the rows name. */
static void test_reopened(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char path[SEGMENT_PATH_SIZE], text[32];
    struct store_journal *journal = journal_open(fixture);
    put(journal, fixture->store, "1.2.3.1", "acknowledged");
    store_journal_close(journal);
    assert_int_equal(waiting(fixture), 1);
    assert_good(segment_path(fixture->folder, 0, path, &err));
    int descriptor = open(path, O_RDWR);
    assert_true(descriptor >= 0);
    const struct segment_piece tail = {"a tail that no row names", 24}; /* torn by a crash */
    assert_true(segment_write(descriptor, (uint64_t)2 * SEGMENT_PAGE, &tail, 1, &err));
    close(descriptor);
    journal = journal_open(fixture);
    for (int index = 0; index < 40; index++) {
        char sop[32];
        snprintf(sop, sizeof sop, "1.2.3.4.%d", index);
        snprintf(text, sizeof text, "later %d", index);
        put(journal, fixture->store, sop, text);
    }
    assert_good(store_journal_checkpoint(fixture->store, &err));
    assert_true(blob_is(fixture, "acknowledged") && blob_is(fixture, "later 0") && blob_is(fixture, "later 39"));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%lost%'"), 0);
    store_journal_close(journal);
}

/* The order of syncs excludes that a row's content is cut; a disk that does it all the same is told, at every byte. */
static void test_truncated(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    const char *first = "the first content", *last = "the last content, cut at each of its bytes";
    char path[SEGMENT_PATH_SIZE];
    struct store_journal *journal = journal_open(fixture);
    put(journal, fixture->store, "1.2.3.1", first);
    put(journal, fixture->store, "1.2.3.2", last);
    store_journal_close(journal);
    assert_good(segment_path(fixture->folder, 0, path, &err));
    assert_int_equal(fixture_sql(fixture, "CREATE TABLE saved AS SELECT * FROM journal"), SQLITE_OK);
    for (size_t left = 0; left <= strlen(last); left++) {
        bool whole = left == strlen(last);
        assert_int_equal(fixture_sql(fixture, "INSERT OR IGNORE INTO journal SELECT * FROM saved"), SQLITE_OK);
        blob_remove(fixture, first);
        blob_remove(fixture, last);
        int descriptor = open(path, O_RDWR);
        assert_true(descriptor >= 0);
        const struct segment_piece piece = {last, strlen(last)}; /* after two records and the first content */
        assert_true(segment_write(descriptor, (uint64_t)3 * SEGMENT_PAGE, &piece, 1, &err));
        assert_int_equal(ftruncate(descriptor, (off_t)3 * SEGMENT_PAGE + (off_t)left), 0);
        close(descriptor);
        assert_good(store_journal_checkpoint(fixture->store, &err));
        assert_int_equal(waiting(fixture), 0);
        assert_true(blob_is(fixture, first));
        assert_int_equal(blob_is(fixture, last), whole);
        assert_int_equal(
            fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%journal-content-lost%'"),
            (int64_t)left + !whole);
    }
    check_chain(fixture->store);
}

/* At rest it is emptied a part at a time, so that reception, should it begin again, waits for no more than one. */
#define PART_MAX 64
static void test_parts(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char sop[32], text[32];
    struct store_journal *journal = journal_open(fixture);
    for (int index = 0; index < PART_MAX + 1; index++) {
        snprintf(sop, sizeof sop, "1.2.3.4.%d", index);
        snprintf(text, sizeof text, "content %d", index);
        put(journal, fixture->store, sop, text);
    }
    usleep(400000); /* it rests */
    for (int left = 1; left >= 0; left--) {
        assert_good(store_journal_keep(journal, 0, &err));
        assert_int_equal(waiting(fixture), left);
    }
    for (int index = 0; index < PART_MAX + 1; index++) {
        snprintf(text, sizeof text, "content %d", index);
        assert_true(blob_is(fixture, text));
    }
    put(journal, fixture->store, "1.2.3.5", "in the segment that is free again");
    assert_int_equal(fixture_count(fixture, "SELECT segment = 0 AND position = 4096 FROM journal"), 1);
    store_journal_close(journal);
    check_chain(fixture->store);
}

/* As in a store that was restored from a backup: rows of a journal that is not there, contents that are. */
static void test_restored(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char path[SEGMENT_PATH_SIZE];
    struct store_journal *journal = journal_open(fixture);
    put(journal, fixture->store, "1.2.3.1", "restored");
    assert_int_equal(fixture_sql(fixture, "CREATE TABLE saved AS SELECT * FROM journal"), SQLITE_OK);
    assert_good(store_journal_checkpoint(fixture->store, &err));
    store_journal_close(journal);
    assert_int_equal(fixture_sql(fixture, "INSERT INTO journal SELECT * FROM saved"), SQLITE_OK);
    assert_good(segment_path(fixture->folder, 0, path, &err));
    assert_int_equal(unlink(path), 0);
    assert_good(store_journal_checkpoint(fixture->store, &err));
    assert_int_equal(waiting(fixture), 0);
    assert_true(blob_is(fixture, "restored"));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%lost%'"), 0);
}

/* ---- acknowledged, without rows ----------------------------------------------------------------------- */

/* The folder as a crash leaves it: the segment with its records, the database without their rows. */
static void rows_remove(const struct fixture *fixture) {
    assert_int_equal(fixture_sql(fixture, "DELETE FROM journal; DELETE FROM instance; DELETE FROM study_source;"
                                          " DELETE FROM study; UPDATE journal_state SET number = 0, in_use = 1"),
                     SQLITE_OK);
}

static void put_three(struct store_journal *journal, struct store *store) {
    put(journal, store, "1.2.3.1", "first");
    put(journal, store, "1.2.3.2", "second");
    put(journal, store, "1.2.3.3", "third");
}

static void test_replay(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_journal *journal = journal_open(fixture);
    put_three(journal, fixture->store);
    const int64_t received_ms = fixture_count(fixture, "SELECT max(received_ms) FROM instance");
    store_journal_close(journal);
    assert_int_equal(fixture_count(fixture, "SELECT in_use FROM journal_state"), 0);
    rows_remove(fixture);
    usleep(2000);
    journal = journal_open(fixture);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE current = 1"), 3);
    assert_int_equal(fixture_count(fixture, "SELECT max(received_ms) FROM instance"), received_ms);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE calling_aet = 'SENDER'"), 3);
    assert_int_equal(fixture_count(fixture, "SELECT number = 3 AND in_use FROM journal_state"), 1);
    put(journal, fixture->store, "1.2.3.4", "fourth"); /* where nothing lies that is named */
    assert_good(store_journal_checkpoint(fixture->store, &err));
    assert_true(blob_is(fixture, "first") && blob_is(fixture, "second") && blob_is(fixture, "third") &&
                blob_is(fixture, "fourth"));
    store_journal_close(journal);
    check_chain(fixture->store);
}

/* A segment that cannot be opened may hold what was acknowledged: nothing goes on as if it held nothing. */
static void test_replay_waits(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char path[SEGMENT_PATH_SIZE], aside[SEGMENT_PATH_SIZE + 8];
    struct store_journal *journal = journal_open(fixture);
    put_three(journal, fixture->store);
    store_journal_close(journal);
    rows_remove(fixture);
    assert_good(segment_path(fixture->folder, 0, path, &err));
    snprintf(aside, sizeof aside, "%s.aside", path);
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink(path, path), 0); /* ELOOP */
    journal = store_journal_open(&fixture->config, &err);
    assert_non_null(journal);
    assert_refused(store_journal_keep(journal, 0, &err), ERR_IO);
    put(journal, fixture->store, "1.2.3.4", "the direct way");
    assert_true(blob_is(fixture, "the direct way"));
    assert_int_equal(rename(aside, path), 0);
    err = (struct err){0};
    assert_good(store_journal_keep(journal, 0, &err));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE current = 1"), 4);
    store_journal_close(journal);
    check_chain(fixture->store);
}

/* Of three records the rows of one are there, and the last was not whole: it was never acknowledged. */
static void test_replay_some(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char path[SEGMENT_PATH_SIZE];
    struct store_journal *journal = journal_open(fixture);
    put_three(journal, fixture->store);
    store_journal_close(journal);
    assert_int_equal(
        fixture_sql(fixture, "DELETE FROM journal WHERE position > 4096; DELETE FROM instance"
                             " WHERE sop_instance_uid > '1.2.3.1'; UPDATE journal_state SET number = 0, in_use = 1"),
        SQLITE_OK);
    assert_good(segment_path(fixture->folder, 0, path, &err));
    int descriptor = open(path, O_RDWR);
    const struct segment_piece torn = {"thixx", 5};
    assert_true(descriptor >= 0 && segment_write(descriptor, (uint64_t)5 * SEGMENT_PAGE, &torn, 1, &err));
    close(descriptor);
    journal = journal_open(fixture);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 2);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%receive-interrupted%'"),
                     1);
    store_journal_close(journal);
    journal = journal_open(fixture); /* told once */
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM audit WHERE content LIKE '%receive-interrupted%'"),
                     1);
    put(journal, fixture->store, "1.2.3.3", "third"); /* sent again */
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE current = 1"), 3);
    store_journal_close(journal);
    check_chain(fixture->store);
}

/* All that the rows need comes back; what is no UTF-8, and therefore longer, is cut between characters. */
static void test_record(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    char path[SEGMENT_PATH_SIZE], digest[DIGEST_HEX_SIZE];
    struct record read;
    bool found = false;
    PULMO_SCOPED(bytes_free) struct bytes record = {0};
    struct instance instance = instance_of("1.2.3.1", "content", 7);
    memset(instance.patient_name, 0xff, sizeof instance.patient_name - 1);
    memset(instance.study_description, '"', sizeof instance.study_description - 1);
    snprintf(instance.patient_id, sizeof instance.patient_id, "M\xc3\xbcller");
    instance.instance_number = -12;
    assert_good(digest_hex("content", 7, digest, &err));
    assert_good(record_begin(&instance, digest, 1790000000123, &record, &err));
    assert_good(record_number(&record, "key", 9000000000, &err));
    assert_good(segment_path(fixture->folder, 0, path, &err));
    assert_good(segment_folder_make(fixture->folder, &err));
    int descriptor = open(path, O_RDWR | O_CREAT, 0640);
    const struct segment_piece pieces[] = {{record.data, record.size}, {"content", 7}};
    assert_true(descriptor >= 0 && segment_write(descriptor, SEGMENT_PAGE, pieces, 2, &err));
    assert_good(record_read(descriptor, SEGMENT_PAGE, "key", &read, &found, &err));
    assert_true(found && read.number == 9000000000 && read.now_ms == 1790000000123);
    assert_string_equal(read.blob, digest);
    assert_int_equal(read.instance.part10_size, 7);
    assert_int_equal(read.instance.instance_number, -12);
    assert_string_equal(read.instance.patient_id, instance.patient_id);
    assert_string_equal(read.instance.study_description, instance.study_description);
    assert_string_equal(read.instance.sop_instance_uid, "1.2.3.1");
    assert_int_equal(strlen(read.instance.patient_name), 255); /* 85 times U+FFFD */
    for (uint64_t position = 0; position < 4; position++)      /* nowhere else, and with no other key */
        assert_true(
            record_read(descriptor, position * SEGMENT_PAGE, position == 1 ? "kez" : "key", &read, &found, &err) &&
            !found);
    uint8_t changed = '7';
    assert_int_equal(pwrite(descriptor, &changed, 1, SEGMENT_PAGE + 20), 1);
    assert_true(record_read(descriptor, SEGMENT_PAGE, "key", &read, &found, &err) && !found);
    close(descriptor);
}

/* A content that holds what looks like a record, where a page begins: it has not this store's key. */
static void test_forged(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct instance forged = instance_of("1.2.3.66", "forged", 6);
    char digest[DIGEST_HEX_SIZE];
    PULMO_SCOPED(bytes_free) struct bytes record = {0}, content = {0};
    assert_good(digest_hex("forged", 6, digest, &err));
    assert_good(record_begin(&forged, digest, 1, &record, &err));
    assert_good(record_number(&record, "a key that somebody made up", 77, &err));
    content.data = calloc(3, SEGMENT_PAGE);
    content.size = (size_t)3 * SEGMENT_PAGE;
    assert_non_null(content.data);
    memcpy(content.data + SEGMENT_PAGE, record.data, record.size);
    memcpy(content.data + (size_t)2 * SEGMENT_PAGE, "forged", 6);
    struct store_journal *journal = journal_open(fixture);
    struct instance carrier = instance_of("1.2.3.1", content.data, content.size);
    assert_good(store_journal_put(journal, fixture->store, &carrier, &err));
    assert_good(store_journal_flush(journal, &err));
    store_journal_close(journal);
    for (int64_t number = 0; number < 2; number++) { /* as content of a record; as what an older one has left */
        char sql[80];
        snprintf(sql, sizeof sql, "UPDATE journal_state SET number = %lld, in_use = 1", (long long)number);
        assert_int_equal(fixture_sql(fixture, sql), SQLITE_OK);
        store_journal_close(journal_open(fixture));
        assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 1);
    }
}

/* The database cannot be written for a while: what was acknowledged waits for it, what comes then is refused. */
static void test_locked(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0}, refused = {0};
    struct store_journal *journal = journal_open(fixture);
    PULMO_SCOPED(store_close_at) struct store *other = fixture_handle(fixture);
    assert_good(sql_script(other, "BEGIN IMMEDIATE", &err));
    put_only(journal, fixture->store, "1.2.3.1", "acknowledged");
    assert_false(store_journal_flush(journal, &refused));
    assert_int_equal(refused.kind, ERR_BUSY);
    struct instance late = instance_of("1.2.3.2", "late", 4);
    assert_refused(store_journal_put(journal, fixture->store, &late, &err), ERR_BUSY);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 0);
    assert_good(sql_script(other, "COMMIT", &err));
    for (int tries = 0; tries < 100 && fixture_count(fixture, "SELECT count(*) FROM instance") == 0; tries++)
        usleep(50000);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 1);
    put(journal, fixture->store, "1.2.3.2", "late");
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 2);
    store_journal_close(journal);
    check_chain(fixture->store);
}

/* The same by another process, in the moment between acknowledgement and rows. */
static void test_meeting_another(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_journal *journal = journal_open(fixture);
    struct instance other = instance_of("1.2.3.1", "header b PIXELS 1", 17);
    store_journal_set_pixel_digest(journal, fixture->store->pixel_digest);
    put_only(journal, fixture->store, "1.2.3.1", "header a PIXELS 1");
    assert_good(store_instance_put(fixture->store, &other, &err)); /* sooner than what is gathered */
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 1);
    assert_good(store_journal_flush(journal, &err));
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance WHERE version = 'first'"), 1);
    assert_int_equal(fixture_count(fixture, "SELECT current FROM instance WHERE version = 'corrected'"), 1);
    assert_int_equal(waiting(fixture), 1);
    assert_good(store_journal_checkpoint(fixture->store, &err));
    assert_true(blob_is(fixture, "header a PIXELS 1") && blob_is(fixture, "header b PIXELS 1"));
    store_journal_close(journal);
    check_chain(fixture->store);
}

/* One UID with other contents in the same moment: none is new to the rows but the first. */
static void test_meeting(void **state) {
    struct fixture *fixture = *state;
    struct err err = {0};
    struct store_journal *journal = journal_open(fixture);
    put_only(journal, fixture->store, "1.2.3.1", "header a PIXELS 1");
    put_only(journal, fixture->store, "1.2.3.1", "header a PIXELS 1");
    put_only(journal, fixture->store, "1.2.3.1", "header b PIXELS 1");
    put_only(journal, fixture->store, "1.2.3.1", "header b PIXELS 2");
    assert_good(store_journal_flush(journal, &err));
    check_versions(fixture);
    store_journal_close(journal);
    check_chain(fixture->store);
}

/* ---- threads ----------------------------------------------------------------------------------------- */

#define SENDERS 6
#define PUTS 12
#define LARGE ((size_t)3 << 20) /* some of these are more than a segment */

struct sender {
    const struct fixture *fixture;
    struct store_journal *journal;
    pthread_t id;
    int index, done, refused;
    struct err err;
};

static bool work_fails(struct store *store, void *context, struct err *err) {
    (void)store;
    (void)context;
    return err_set(err, ERR_DENIED, "on purpose");
}

/* Every third thing that a sender asks for fails: it takes no other sender's with it. */
static void *send_all(void *context) {
    struct sender *sender = context;
    struct store *store = store_open(&sender->fixture->config, &sender->err);
    PULMO_SCOPED(pulmo_free_at) uint8_t *content = calloc(1, LARGE);
    for (int index = 0; store && content && index < PUTS; index++) {
        char sop[64];
        struct err refused = {0};
        snprintf(sop, sizeof sop, "1.2.3.%d.%d", sender->index, index);
        snprintf((char *)content, 64, "%s", sop);
        struct instance instance = instance_of(sop, content, index % 4 ? 64 : LARGE);
        sender->done += store_journal_put(sender->journal, store, &instance, &sender->err);
        if (index % 3 == 0)
            sender->refused +=
                !store_journal_run(sender->journal, work_fails, NULL, &refused) && refused.kind == ERR_DENIED;
    }
    store_close(store);
    return NULL;
}

static atomic_bool keeper_stops;
static void *keep_all(void *context) {
    struct sender *keeper = context;
    while (!atomic_load(&keeper_stops) && store_journal_keep(keeper->journal, 5, &keeper->err))
        keeper->done++;
    return NULL;
}

/* Contents by way of their rows: each is read, and its digest checked. */
static void check_contents(struct store *store, size_t count) {
    struct err err = {0};
    PULMO_SCOPED(store_paths_free) struct store_paths paths = {0};
    assert_good(store_study_paths(store, "1.2.3", &paths, &err));
    assert_int_equal(paths.count, count);
    for (size_t index = 0; index < paths.count; index++) {
        char digest[DIGEST_HEX_SIZE];
        assert_good(digest_file_hex(paths.items[index], digest, &err));
        assert_string_equal(digest, strrchr(paths.items[index], '/') + 1);
    }
}

static void test_threads(void **state) {
    struct fixture *fixture = *state;
    struct sender senders[SENDERS], keeper = {.fixture = fixture, .journal = journal_open(fixture)};
    atomic_store(&keeper_stops, false);
    assert_int_equal(pthread_create(&keeper.id, NULL, keep_all, &keeper), 0);
    for (int index = 0; index < SENDERS; index++) {
        senders[index] = (struct sender){.fixture = fixture, .journal = keeper.journal, .index = index};
        assert_int_equal(pthread_create(&senders[index].id, NULL, send_all, &senders[index]), 0);
    }
    for (int index = 0; index < SENDERS; index++) {
        pthread_join(senders[index].id, NULL);
        if (senders[index].err.kind)
            fail_msg("sender %d: %s", index, senders[index].err.text);
        assert_int_equal(senders[index].done, PUTS);
        assert_int_equal(senders[index].refused, PUTS / 3);
    }
    check_contents(fixture->store, (size_t)SENDERS * PUTS); /* while the keeper moves them, too */
    atomic_store(&keeper_stops, true);
    pthread_join(keeper.id, NULL);
    if (keeper.err.kind)
        fail_msg("keeper: %s", keeper.err.text);
    store_journal_close(keeper.journal);
    check_contents(fixture->store, (size_t)SENDERS * PUTS);
    check_chain(fixture->store);
}

/* A second process of one folder writes no segment of the first. */
static void test_two_writers(void **state) {
    struct fixture *fixture = *state;
    struct store_journal *one = journal_open(fixture), *two = journal_open(fixture);
    put(one, fixture->store, "1.2.3.1", "through the journal");
    put(two, fixture->store, "1.2.3.2", "the direct way");
    assert_int_equal(waiting(fixture), 1);
    assert_true(blob_is(fixture, "the direct way"));
    store_journal_close(one);
    store_journal_close(two);
}

static void test_no_room(void **state) {
    struct fixture *fixture = *state;
    struct fixture full = *fixture;
    struct err err = {0};
    full.config.disk_reserve_bytes = UINT64_MAX / 4;
    struct store_journal *journal = journal_open(&full);
    PULMO_SCOPED(store_close_at) struct store *store = fixture_handle(&full);
    struct instance instance = instance_of("1.2.3.1", "no room", 7);
    assert_refused(store_journal_put(journal, store, &instance, &err), ERR_NO_SPACE);
    assert_int_equal(fixture_count(fixture, "SELECT count(*) FROM instance"), 0);
    store_journal_close(journal);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {TEST(test_paths),       TEST(test_same_content), TEST(test_versions),
                                       TEST(test_reopened),    TEST(test_truncated),    TEST(test_parts),
                                       TEST(test_restored),    TEST(test_replay),       TEST(test_replay_waits),
                                       TEST(test_replay_some), TEST(test_record),       TEST(test_forged),
                                       TEST(test_locked),      TEST(test_meeting),      TEST(test_meeting_another),
                                       TEST(test_threads),     TEST(test_two_writers),  TEST(test_no_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
