/* LABELS: quick tsan
 * What reception knows of an object by the time it has come whole, and what a C-ECHO does not wait for. */
#include "dicom/association.h"
#include "dicom/inbox.h"
#include "dicom/part10.h"
#include "test_dicom_sample.h"

#include <pthread.h>
#include <unistd.h>

/* ---- the memory that data sets are received in --------------------------------------------------------- */

static void check_file(struct inbox *inbox, size_t size, size_t piece) {
    char in_pieces[DIGEST_HEX_SIZE], whole[DIGEST_HEX_SIZE];
    struct err err = {0};
    uint8_t *data = malloc(size);
    assert_non_null(data);
    for (size_t index = 0; index < size; index++)
        data[index] = (uint8_t)(index * 7 + size);
    assert_true(inbox_begin_file(inbox, &(struct bytes){data, 10}, &err));
    for (size_t at = 10; at < size; at += piece)
        assert_true(inbox_add(inbox, data + at, at + piece < size ? piece : size - at, &err));
    assert_true(inbox_end_file(inbox, in_pieces, &err));
    assert_int_equal(inbox->content.size, size);
    assert_int_equal(inbox->offset, 10);
    assert_memory_equal(inbox->content.data, data, size);
    assert_true(digest_hex(data, size, whole, &err));
    assert_string_equal(in_pieces, whole);
    free(data);
}

/* One after the other in the same memory: each file is its own, whatever came before it. */
static void test_files(void **state) {
    (void)state;
    struct inbox inbox = {0};
    struct err err = {0};
    check_file(&inbox, 500, 1);
    check_file(&inbox, (size_t)3 << 20, 100000);
    inbox_empty(&inbox);
    assert_int_equal(inbox.content.size, 0);
    check_file(&inbox, 11, 5000);
    inbox_begin(&inbox); /* a data set without meta information */
    assert_true(inbox_add(&inbox, "abc", 3, &err) && inbox.content.size == 3 && inbox.offset == 0);
    check_file(&inbox, 70000, 16384);
    inbox_free(&inbox);
}

/* ---- reception ----------------------------------------------------------------------------------------- */

enum { LEAVING_MAX = 64 }; /* as in dicom/scp.c */

/* Its sink of events may be held up, as by a disk that commits for others. */
struct receiver {
    struct dicom_scp *scp;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool held;
    size_t opened, closed, stored, opened_before;
    bool digest_right;
};

static bool remember(void *context, const struct instance *instance, struct err *err) {
    struct receiver *receiver = context;
    char digest[DIGEST_HEX_SIZE];
    if (!digest_hex(instance->part10, instance->part10_size, digest, err))
        return false;
    pthread_mutex_lock(&receiver->lock);
    receiver->stored++;
    receiver->opened_before = receiver->opened;
    receiver->digest_right = instance->part10_sha256 != NULL && strcmp(instance->part10_sha256, digest) == 0;
    pthread_mutex_unlock(&receiver->lock);
    return true;
}

static void remember_event(void *context, const struct dicom_event *event) {
    struct receiver *receiver = context;
    pthread_mutex_lock(&receiver->lock);
    while (receiver->held)
        pthread_cond_wait(&receiver->changed, &receiver->lock);
    receiver->opened += event->kind == DICOM_EVENT_ASSOCIATION_OPENED || event->was_unknown;
    receiver->closed += event->kind == DICOM_EVENT_ASSOCIATION_CLOSED;
    pthread_mutex_unlock(&receiver->lock);
}

static void hold(struct receiver *receiver, bool held) {
    pthread_mutex_lock(&receiver->lock);
    receiver->held = held;
    pthread_cond_broadcast(&receiver->changed);
    pthread_mutex_unlock(&receiver->lock);
}

static void start(struct receiver *receiver) {
    static const struct dicom_scp_config config = {
        .bind_address = "127.0.0.1", .ae_title = "PULMO", .associations_max = 4, .timeout_s = 60};
    struct err err = {0};
    *receiver = (struct receiver){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    receiver->scp = dicom_scp_start(&config, remember, remember_event, receiver, &err);
    if (receiver->scp == NULL)
        fail_msg("%s", err.text);
}

/* Events come on other threads: waits up to 30 s. */
static void await(struct receiver *receiver, const size_t *count, size_t wanted) {
    for (int tries = 0; tries < 3000; tries++) {
        pthread_mutex_lock(&receiver->lock);
        const bool enough = *count >= wanted;
        pthread_mutex_unlock(&receiver->lock);
        if (enough)
            return;
        usleep(10000);
    }
    fail_msg("an event did not come");
}

static struct association *connect_to(const struct receiver *receiver) {
    const struct connect_config config = {.host = "127.0.0.1",
                                          .called_aet = "PULMO",
                                          .calling_aet = "TESTER",
                                          .port = dicom_scp_port(receiver->scp),
                                          .timeout_s = 60};
    const struct shim_proposal proposal = {SAMPLE_CLASS, "1.2.840.10008.1.2.1"};
    struct err err = {0};
    struct association *association = association_connect(&config, &proposal, 1, &err);
    if (association == NULL)
        fail_msg("%s", err.text);
    return association;
}

/* Asks many times, one after the other. */
struct asker {
    struct receiver *receiver;
    size_t wanted, answered;
    struct err err;
};

static void *ask(void *context) {
    struct asker *asker = context;
    struct receiver *receiver = asker->receiver;
    const struct dicom_destination destination = {.host = "127.0.0.1",
                                                  .called_aet = "PULMO",
                                                  .calling_aet = "TESTER",
                                                  .port = dicom_scp_port(receiver->scp),
                                                  .timeout_s = 60};
    for (size_t count = 1; count <= asker->wanted; count++) {
        if (!dicom_echo(&destination, &asker->err))
            return NULL;
        pthread_mutex_lock(&receiver->lock);
        asker->answered = count;
        pthread_mutex_unlock(&receiver->lock);
    }
    return NULL;
}

/* Answered and released though no event can be recorded, more often than there are slots, but not for ever; all are
 * recorded afterwards. */
static void test_echo_waits_for_no_record(void **state) {
    (void)state;
    struct receiver receiver;
    struct asker asker = {.receiver = &receiver, .wanted = LEAVING_MAX + 6};
    pthread_t thread;
    start(&receiver);
    hold(&receiver, true);
    assert_int_equal(pthread_create(&thread, NULL, ask, &asker), 0);
    await(&receiver, &asker.answered, LEAVING_MAX);
    usleep(200000);
    pthread_mutex_lock(&receiver.lock);
    assert_int_equal(asker.answered, LEAVING_MAX);
    assert_int_equal(receiver.opened, 0);
    pthread_mutex_unlock(&receiver.lock);
    hold(&receiver, false);
    pthread_join(thread, NULL);
    if (asker.answered != asker.wanted)
        fail_msg("%s", asker.err.text);
    await(&receiver, &receiver.closed, asker.wanted);
    assert_int_equal(receiver.opened, asker.wanted);
    dicom_scp_stop(receiver.scp);
}

/* An instance is not stored before its association is on record. */
static void test_store_waits_for_the_record(void **state) {
    (void)state;
    struct receiver receiver;
    struct part10 meta;
    struct err err = {0};
    uint16_t status = 0xFFFF;
    struct bytes file = sample_make(&(struct sample){.number = 1, .side = 300});
    start(&receiver);
    struct association *association = connect_to(&receiver);
    assert_true(part10_split(file.data, file.size, &meta, &err));
    const struct store_request request = {
        .sop_class_uid = SAMPLE_CLASS,
        .sop_instance_uid = "2.25.3.1",
        .transfer_syntax_uid = meta.transfer_syntax_uid,
        .dataset = {file.data + meta.dataset_offset, file.size - meta.dataset_offset}};
    for (size_t count = 1; count <= 2; count++) {
        if (!association_store(association, &request, &status, &err))
            fail_msg("%s", err.text);
        pthread_mutex_lock(&receiver.lock);
        assert_int_equal(status, 0);
        assert_int_equal(receiver.stored, count);
        assert_int_equal(receiver.opened_before, 1);
        assert_true(receiver.digest_right);
        pthread_mutex_unlock(&receiver.lock);
    }
    association_close(association);
    await(&receiver, &receiver.closed, 1);
    assert_int_equal(receiver.opened, 1); /* once */
    dicom_scp_stop(receiver.scp);
    bytes_free(&file);
}

/* One that says nothing is on record while it lasts. */
static void test_silent_association_is_recorded(void **state) {
    (void)state;
    struct receiver receiver;
    start(&receiver);
    struct association *association = connect_to(&receiver);
    await(&receiver, &receiver.opened, 1);
    association_close(association);
    await(&receiver, &receiver.closed, 1);
    dicom_scp_stop(receiver.scp);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_echo_waits_for_no_record),
        cmocka_unit_test(test_store_waits_for_the_record),
        cmocka_unit_test(test_silent_association_is_recorded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
