/* LABELS: quick tsan
 * Reception over real sockets: DCMTK's own tools, our SCU, and peers that misbehave. */
#include "dicom/association.h"
#include "dicom/part10.h"
#include "test_dicom_sample.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- the appliance's side ---------------------------------------------------------------------------- */

struct receiver {
    struct dicom_scp *scp;
    pthread_mutex_t lock;
    size_t stored, events[5];
    uint16_t last_status;
    char last_detail[256];
    struct bytes last_part10;
    struct instance last;
    enum err_kind sink_fault;
    uint64_t opened[4]; /* associations, in turn */
};

static bool remember(void *context, const struct instance *instance, struct err *err) {
    struct receiver *receiver = context;
    pthread_mutex_lock(&receiver->lock);
    const enum err_kind fault = receiver->sink_fault;
    bytes_free(&receiver->last_part10);
    receiver->last = *instance;
    const bool kept =
        bytes_append(&receiver->last_part10, instance->part10, instance->part10_size, (size_t)1 << 30, err);
    receiver->stored += fault == ERR_NONE;
    pthread_mutex_unlock(&receiver->lock);
    return kept && (fault == ERR_NONE || err_set(err, fault, "as the test wants"));
}

static void remember_event(void *context, const struct dicom_event *event) {
    struct receiver *receiver = context;
    pthread_mutex_lock(&receiver->lock);
    if (event->kind == DICOM_EVENT_ASSOCIATION_OPENED && receiver->events[event->kind] < 4)
        receiver->opened[receiver->events[event->kind]] = event->association_id;
    receiver->events[event->kind]++;
    if (event->kind == DICOM_EVENT_INSTANCE_REFUSED)
        receiver->last_status = event->status;
    if (event->kind != DICOM_EVENT_ASSOCIATION_CLOSED && event->kind != DICOM_EVENT_ASSOCIATION_OPENED)
        snprintf(receiver->last_detail, sizeof receiver->last_detail, "%s", event->detail);
    pthread_mutex_unlock(&receiver->lock);
}

static const struct dicom_scp_config PLAIN = {
    .bind_address = "127.0.0.1", .ae_title = "PULMO", .associations_max = 4, .timeout_s = 10};

static void start(struct receiver *receiver, const struct dicom_scp_config *config) {
    struct err err = {0};
    *receiver = (struct receiver){.lock = PTHREAD_MUTEX_INITIALIZER};
    receiver->scp = dicom_scp_start(config, remember, remember_event, receiver, &err);
    if (receiver->scp == NULL)
        fail_msg("%s", err.text);
}

static void stop(struct receiver *receiver) {
    dicom_scp_stop(receiver->scp);
    bytes_free(&receiver->last_part10);
}

static size_t count_of(struct receiver *receiver, enum dicom_event_kind kind) {
    pthread_mutex_lock(&receiver->lock);
    const size_t count = receiver->events[kind];
    pthread_mutex_unlock(&receiver->lock);
    return count;
}

/* Other threads wrote what is read next. */
static void settle(struct receiver *receiver) {
    pthread_mutex_lock(&receiver->lock);
    pthread_mutex_unlock(&receiver->lock);
}

/* Events come on other threads: waits up to 10 s for the count. */
static void await_event(struct receiver *receiver, enum dicom_event_kind kind, size_t count) {
    for (int i = 0; i < 1000 && count_of(receiver, kind) < count; i++)
        usleep(10000);
    assert_true(count_of(receiver, kind) >= count);
}

/* ---- the peers' side --------------------------------------------------------------------------------- */

static struct dicom_destination destination_of(const struct receiver *receiver) {
    return (struct dicom_destination){.host = "127.0.0.1",
                                      .called_aet = "PULMO",
                                      .calling_aet = "TESTER",
                                      .port = dicom_scp_port(receiver->scp),
                                      .timeout_s = 10};
}

static bool echo_works(const struct receiver *receiver) {
    const struct dicom_destination destination = destination_of(receiver);
    struct err err = {0};
    return dicom_echo(&destination, &err);
}

static struct association *connect_store(const struct receiver *receiver, const char *syntax_uid) {
    const struct connect_config config = {.host = "127.0.0.1",
                                          .called_aet = "PULMO",
                                          .calling_aet = "TESTER",
                                          .port = dicom_scp_port(receiver->scp),
                                          .timeout_s = 10};
    const struct shim_proposal proposal = {SAMPLE_CLASS, syntax_uid};
    struct err err = {0};
    struct association *association = association_connect(&config, &proposal, 1, &err);
    if (association == NULL)
        fail_msg("%s", err.text);
    return association;
}

/* Sends the data set of a file under a command that names these UIDs. */
static uint16_t store_as(struct association *association, const struct bytes *file, const char *instance_uid) {
    struct part10 meta;
    struct err err = {0};
    uint16_t status = 0xFFFF;
    assert_true(part10_split(file->data, file->size, &meta, &err));
    const struct store_request request = {
        .sop_class_uid = SAMPLE_CLASS,
        .sop_instance_uid = instance_uid,
        .transfer_syntax_uid = meta.transfer_syntax_uid,
        .dataset = {file->data + meta.dataset_offset, file->size - meta.dataset_offset}};
    if (!association_store(association, &request, &status, &err))
        fail_msg("%s", err.text);
    return status;
}

static int connect_raw(const struct receiver *receiver) {
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(dicom_scp_port(receiver->scp)),
                                        .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    const int peer = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(peer >= 0);
    assert_int_equal(connect(peer, (const struct sockaddr *)&address, sizeof address), 0);
    return peer;
}

/* Runs a program quietly and gives its exit status, or -1 when it is not installed. */
static int run(char *const arguments[]) {
    posix_spawn_file_actions_t actions;
    pid_t child = 0;
    int status = 0;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", 1, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", 1, 0);
    const int fault = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (fault != 0)
        return -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : -1;
}

/* ---- tests: what works ------------------------------------------------------------------------------- */

static void test_echo(void **state) {
    (void)state;
    struct receiver receiver;
    start(&receiver, &PLAIN);
    char port[8];
    snprintf(port, sizeof port, "%u", dicom_scp_port(receiver.scp));
    char *const arguments[] = {"echoscu", "-aec", "PULMO", "127.0.0.1", port, NULL};
    assert_true(echo_works(&receiver));
    const int status = run(arguments);
    if (status == -1)
        print_message("echoscu is not installed: only our own SCU was tried\n");
    else
        assert_int_equal(status, 0);
    await_event(&receiver, DICOM_EVENT_ASSOCIATION_CLOSED, status == -1 ? 1 : 2);
    stop(&receiver);
}

/* Which association sent an instance decides which studies it holds open: a title and an address do not tell. */
static void test_instance_names_its_association(void **state) {
    (void)state;
    struct receiver receiver;
    struct bytes file = sample_make(&(struct sample){.number = 1});
    start(&receiver, &PLAIN);
    struct association *first = connect_store(&receiver, "1.2.840.10008.1.2.1");
    assert_int_equal(store_as(first, &file, "2.25.3.1"), 0);
    struct association *second = connect_store(&receiver, "1.2.840.10008.1.2.1");
    assert_int_equal(store_as(second, &file, "2.25.3.1"), 0);
    const uint64_t by_second = receiver.last.association_id;
    assert_int_equal(store_as(first, &file, "2.25.3.1"), 0);
    const uint64_t by_first = receiver.last.association_id;
    association_close(first);
    association_close(second);
    stop(&receiver);
    assert_int_not_equal(by_first, by_second);
    assert_int_equal(by_first, receiver.opened[0]);
    assert_int_equal(by_second, receiver.opened[1]);
    bytes_free(&file);
}

static void test_store_by_storescu(void **state) {
    (void)state;
    struct receiver receiver;
    char folder[256], path[512], port[8];
    struct bytes file = sample_make(&(struct sample){.number = 1});
    sample_folder(folder);
    sample_save(folder, "1.dcm", &file, path);
    start(&receiver, &PLAIN);
    snprintf(port, sizeof port, "%u", dicom_scp_port(receiver.scp));
    char *const arguments[] = {"storescu", "-aec", "PULMO", "127.0.0.1", port, path, NULL};
    const int status = run(arguments);
    if (status != -1) {
        assert_int_equal(status, 0);
        settle(&receiver);
        assert_int_equal(receiver.stored, 1);
        assert_string_equal(receiver.last.sop_instance_uid, "2.25.3.1");
        assert_string_equal(receiver.last.called_aet, "PULMO");
        assert_string_equal(receiver.last.peer_address, "127.0.0.1");
        assert_string_equal(receiver.last.patient_name, "Test^Sample");
    }
    stop(&receiver);
    remove(path);
    rmdir(folder);
    bytes_free(&file);
    if (status == -1)
        skip();
}

/* The data set is kept byte for byte, the preamble is zero and the meta information says who sent it. */
static void check_kept(struct receiver *receiver, const struct bytes *sent) {
    static const uint8_t zeros[128];
    struct part10 kept, original;
    struct err err = {0};
    const struct bytes *file = &receiver->last_part10;
    settle(receiver);
    assert_true(part10_split(file->data, file->size, &kept, &err));
    assert_true(part10_split(sent->data, sent->size, &original, &err));
    assert_string_equal(kept.transfer_syntax_uid, original.transfer_syntax_uid);
    assert_int_equal(file->size - kept.dataset_offset, sent->size - original.dataset_offset);
    assert_memory_equal(file->data + kept.dataset_offset, sent->data + original.dataset_offset,
                        sent->size - original.dataset_offset);
    assert_memory_equal(file->data, zeros, sizeof zeros);
}

static void test_every_syntax_is_kept_as_sent(void **state) {
    (void)state;
    static const char *const syntaxes[] = {"1.2.840.10008.1.2.1",    "1.2.840.10008.1.2",      "1.2.840.10008.1.2.2",
                                           "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.57",
                                           "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.5"};
    struct receiver receiver;
    start(&receiver, &PLAIN);
    for (size_t i = 0; i < sizeof syntaxes / sizeof syntaxes[0]; i++) {
        struct bytes file = sample_make(&(struct sample){.number = (int)i, .transfer_syntax_uid = syntaxes[i]});
        struct association *association = connect_store(&receiver, syntaxes[i]);
        char uid[DICOM_UID_SIZE];
        snprintf(uid, sizeof uid, "2.25.3.%zu", i);
        const uint16_t status = store_as(association, &file, uid);
        if (status != 0)
            fail_msg("%s: status 0x%04X, %s", syntaxes[i], status, receiver.last_detail);
        check_kept(&receiver, &file);
        association_close(association);
        bytes_free(&file);
    }
    settle(&receiver);
    assert_int_equal(receiver.stored, sizeof syntaxes / sizeof syntaxes[0]);
    stop(&receiver);
}

struct progress {
    size_t calls;
    uint16_t last;
};

static bool count_progress(void *context, size_t index, uint16_t status, const char *error) {
    struct progress *progress = context;
    (void)index;
    (void)error;
    progress->calls++;
    progress->last = status;
    return true;
}

static void test_preamble_is_not_passed_on(void **state) {
    (void)state;
    struct receiver receiver;
    char folder[256], path[512];
    struct bytes file = sample_make(&(struct sample){.number = 1});
    struct progress progress = {0};
    struct err err = {0};
    memcpy(file.data, "MZ\x90", 3); /* a Windows program's head in the preamble */
    sample_folder(folder);
    sample_save(folder, "1.dcm", &file, path);
    start(&receiver, &PLAIN);
    const struct dicom_destination destination = destination_of(&receiver);
    const char *const paths[] = {path};
    assert_true(dicom_send(&destination, paths, 1, count_progress, &progress, &err));
    assert_int_equal(progress.calls, 1);
    assert_int_equal(progress.last, 0);
    check_kept(&receiver, &file);
    stop(&receiver);
    remove(path);
    rmdir(folder);
    bytes_free(&file);
}

/* ---- tests: who may not ------------------------------------------------------------------------------ */

static void test_titles_and_addresses(void **state) {
    (void)state;
    struct dicom_scp_config config = PLAIN;
    struct receiver receiver;
    struct err err = {0};
    config.calling_aets = "SCANNER, TESTER";
    config.addresses = "10.0.0.0/8, ::1, 127.0.0.0/8";
    start(&receiver, &config);
    struct dicom_destination destination = destination_of(&receiver);
    assert_true(dicom_echo(&destination, &err));
    destination.called_aet = "OTHER";
    assert_false(dicom_echo(&destination, &err));
    assert_int_equal(err.kind, ERR_DENIED);
    destination.called_aet = "PULMO";
    destination.calling_aet = "STRANGER";
    assert_false(dicom_echo(&destination, &err));
    assert_int_equal(err.kind, ERR_DENIED);
    await_event(&receiver, DICOM_EVENT_ASSOCIATION_REJECTED, 2);
    stop(&receiver);

    config.addresses = "10.0.0.0/8";
    start(&receiver, &config);
    destination = destination_of(&receiver);
    assert_false(dicom_echo(&destination, &err));
    await_event(&receiver, DICOM_EVENT_ASSOCIATION_REJECTED, 1);
    settle(&receiver);
    assert_string_equal(receiver.last_detail, "address is not on the allow-list");
    stop(&receiver);
}

static void test_bad_configuration(void **state) {
    (void)state;
    static const char *const networks[] = {"10.0.0.0/33",  "10.0.0",    "fe80::/129",
                                           "host.example", "1.2.3.4/x", "1.2.3.4/"};
    for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++) {
        struct dicom_scp_config config = PLAIN;
        struct err err = {0};
        config.addresses = networks[i];
        assert_null(dicom_scp_start(&config, remember, remember_event, NULL, &err));
        assert_int_equal(err.kind, ERR_CONFIG);
    }
}

static void check_association_limit(const struct dicom_scp_config *config) {
    struct receiver receiver;
    start(&receiver, config);
    struct association *first = connect_store(&receiver, "1.2.840.10008.1.2.1");
    assert_false(echo_works(&receiver));
    association_close(first);
    await_event(&receiver, DICOM_EVENT_ASSOCIATION_CLOSED, 1);
    bool again = false;
    for (int i = 0; i < 100 && !again; i++) /* the slot is given back just after the event */
        again = echo_works(&receiver);
    assert_true(again);
    stop(&receiver);
}

static void test_association_limit(void **state) {
    (void)state;
    struct dicom_scp_config config = PLAIN;
    config.associations_max = 1;
    check_association_limit(&config);
    config = PLAIN;
    config.associations_max_an_address = 1;
    check_association_limit(&config);
}

/* ---- tests: bad instances ---------------------------------------------------------------------------- */

static void set_traversal(struct shim_dataset *dataset, void *context) {
    sample_put(dataset, *(const uint32_t *)context, "1.2/../../../etc/passwd");
}

static void remove_tag(struct shim_dataset *dataset, void *context) {
    shim_remove(dataset, *(const uint32_t *)context);
}

static void set_huge(struct shim_dataset *dataset, void *context) {
    (void)context;
    sample_put_u16(dataset, 0x00280010, 65535);
    sample_put_u16(dataset, 0x00280011, 65535);
}

static void set_promise(struct shim_dataset *dataset, void *context) {
    (void)context;
    sample_put_u16(dataset, 0x00280010, 512);
}

static void test_bad_instances_get_a_status(void **state) {
    (void)state;
    static uint32_t study = 0x0020000D, series = 0x0020000E, rows = 0x00280010, pixels = 0x7FE00010;
    const struct sample samples[] = {
        {.number = 1, .change = set_traversal, .context = &study},
        {.number = 1, .change = set_traversal, .context = &series},
        {.number = 1, .change = remove_tag, .context = &study},
        {.number = 1, .change = remove_tag, .context = &rows},
        {.number = 1, .change = remove_tag, .context = &pixels},
        {.number = 1, .change = set_huge},
        {.number = 1, .change = set_promise},
    };
    struct receiver receiver;
    start(&receiver, &PLAIN);
    struct association *association = connect_store(&receiver, "1.2.840.10008.1.2.1");
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        struct bytes file = sample_make(&samples[i]);
        assert_int_equal(store_as(association, &file, "2.25.3.1"), 0xC000);
        bytes_free(&file);
    }
    struct bytes good = sample_make(&(struct sample){.number = 1});
    assert_int_equal(store_as(association, &good, "2.25.3.2"), 0xA900); /* not the command's instance */
    struct bytes cut = {good.data, good.size - 100};
    assert_int_equal(store_as(association, &cut, "2.25.3.1"), 0xC000);
    assert_int_equal(store_as(association, &good, "2.25.3.1"), 0);
    settle(&receiver);
    assert_int_equal(receiver.stored, 1);
    assert_int_equal(count_of(&receiver, DICOM_EVENT_INSTANCE_REFUSED), 2 + sizeof samples / sizeof samples[0]);
    association_close(association);
    bytes_free(&good);
    stop(&receiver);
}

static void test_statuses_of_the_sink(void **state) {
    (void)state;
    static const struct {
        enum err_kind fault;
        uint16_t status;
    } rows[] = {{ERR_NO_SPACE, 0xA700}, {ERR_INPUT, 0xC000},    {ERR_UNSUPPORTED, 0x0122}, {ERR_DENIED, 0x0124},
                {ERR_IO, 0xA700},       {ERR_INTERNAL, 0xC000}, {ERR_MEMORY, 0xA700},      {ERR_NONE, 0x0000}};
    struct receiver receiver;
    struct bytes file = sample_make(&(struct sample){.number = 1});
    start(&receiver, &PLAIN);
    struct association *association = connect_store(&receiver, "1.2.840.10008.1.2.1");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pthread_mutex_lock(&receiver.lock);
        receiver.sink_fault = rows[i].fault;
        pthread_mutex_unlock(&receiver.lock);
        assert_int_equal(store_as(association, &file, "2.25.3.1"), rows[i].status);
    }
    association_close(association);
    bytes_free(&file);
    stop(&receiver);
}

static void test_too_large_is_read_to_its_end(void **state) {
    (void)state;
    struct dicom_scp_config config = PLAIN;
    struct receiver receiver;
    struct bytes large = sample_make(&(struct sample){.number = 1, .side = 100});
    struct bytes small = sample_make(&(struct sample){.number = 1});
    config.instance_bytes_max = 10000;
    start(&receiver, &config);
    struct association *association = connect_store(&receiver, "1.2.840.10008.1.2.1");
    assert_int_equal(store_as(association, &large, "2.25.3.1"), 0xA700);
    assert_int_equal(store_as(association, &small, "2.25.3.1"), 0);
    settle(&receiver);
    assert_int_equal(receiver.last_status, 0xA700);
    association_close(association);
    bytes_free(&large);
    bytes_free(&small);
    stop(&receiver);
}

/* ---- tests: peers that misbehave --------------------------------------------------------------------- */

static void test_http_on_the_dicom_port(void **state) {
    (void)state;
    static const char request[] = "GET / HTTP/1.1\r\nHost: example\r\n\r\n";
    struct receiver receiver;
    char answer[64];
    start(&receiver, &PLAIN);
    const int peer = connect_raw(&receiver);
    assert_int_equal(send(peer, request, sizeof request - 1, 0), sizeof request - 1);
    await_event(&receiver, DICOM_EVENT_PROTOCOL_ERROR, 1);
    while (recv(peer, answer, sizeof answer, 0) > 0) {
    } /* an A-ABORT at most, then the end */
    close(peer);
    assert_true(echo_works(&receiver));
    stop(&receiver);
}

static void test_silent_peers_hold_up_nobody(void **state) {
    (void)state;
    enum { SILENT = 20 };
    struct receiver receiver;
    int peers[SILENT];
    start(&receiver, &PLAIN);
    for (size_t i = 0; i < SILENT; i++)
        peers[i] = connect_raw(&receiver);
    const int64_t before = pulmo_monotonic_ms();
    assert_true(echo_works(&receiver));
    assert_true(pulmo_monotonic_ms() - before < 5000);
    for (size_t i = 0; i < SILENT; i++)
        close(peers[i]);
    stop(&receiver);
}

static void test_silent_peer_is_dropped(void **state) {
    (void)state;
    struct dicom_scp_config config = PLAIN;
    struct receiver receiver;
    char byte;
    config.timeout_s = 1;
    start(&receiver, &config);
    const int peer = connect_raw(&receiver);
    assert_true(recv(peer, &byte, 1, 0) <= 0);
    close(peer);
    await_event(&receiver, DICOM_EVENT_PROTOCOL_ERROR, 1);
    stop(&receiver);
}

/* A monitor that looks every few seconds whether the port is open must not fill the audit trail. */
static void test_port_probe_leaves_no_event(void **state) {
    (void)state;
    struct receiver receiver;
    start(&receiver, &PLAIN);
    close(connect_raw(&receiver));
    assert_true(echo_works(&receiver));
    await_event(&receiver, DICOM_EVENT_ASSOCIATION_CLOSED, 1);
    stop(&receiver);
    assert_int_equal(receiver.events[DICOM_EVENT_PROTOCOL_ERROR], 0);
    assert_int_equal(receiver.events[DICOM_EVENT_ASSOCIATION_REJECTED], 0);
}

/* A deterministic stream of bytes for the damage below. */
static uint32_t next_random(uint32_t *seed) {
    *seed = *seed * 1664525U + 1013904223U;
    return *seed >> 8;
}

static size_t make_request(uint8_t out[512]) {
    static const char context[] = "1.2.840.10008.3.1.1.1", verification[] = "1.2.840.10008.1.1";
    static const char syntax[] = "1.2.840.10008.1.2", class_uid[] = "2.25.9";
    size_t at = 0;
    memset(out, 0, 512);
    out[0] = 1;
    out[7] = 1;
    memcpy(out + 10, "PULMO           TESTER          ", 32);
    at = 74;
    out[at] = 0x10;
    out[at + 3] = sizeof context - 1;
    memcpy(out + at + 4, context, sizeof context - 1);
    at += 4 + sizeof context - 1;
    const size_t item = at;
    out[at] = 0x20;
    out[at + 4] = 1;
    at += 8;
    out[at] = 0x30;
    out[at + 3] = sizeof verification - 1;
    memcpy(out + at + 4, verification, sizeof verification - 1);
    at += 4 + sizeof verification - 1;
    out[at] = 0x40;
    out[at + 3] = sizeof syntax - 1;
    memcpy(out + at + 4, syntax, sizeof syntax - 1);
    at += 4 + sizeof syntax - 1;
    out[item + 3] = (uint8_t)(at - item - 4);
    const uint8_t user[] = {0x50, 0, 0, 18, 0x51, 0, 0, 4, 0, 0, 0x40, 0, 0x52, 0, 0, 6};
    memcpy(out + at, user, sizeof user);
    memcpy(out + at + sizeof user, class_uid, sizeof class_uid - 1);
    at += sizeof user + sizeof class_uid - 1;
    out[5] = (uint8_t)(at - 6);
    return at;
}

static void test_damaged_requests(void **state) {
    (void)state;
    enum { ROUNDS = 150 };
    struct receiver receiver;
    uint32_t seed = 1;
    start(&receiver, &PLAIN);
    for (size_t round = 0; round < ROUNDS; round++) {
        uint8_t request[512], answer[256];
        size_t size = make_request(request);
        for (uint32_t k = next_random(&seed) % 4; round > 0 && k > 0; k--)
            request[next_random(&seed) % size] = (uint8_t)next_random(&seed);
        if (round % 5 == 4)
            size = next_random(&seed) % size;
        const int peer = connect_raw(&receiver);
        assert_int_equal(send(peer, request, size, MSG_NOSIGNAL), (ssize_t)size);
        shutdown(peer, SHUT_WR);
        const ssize_t got = recv(peer, answer, sizeof answer, 0);
        if (round == 0)
            assert_true(got > 6 && answer[0] == 2); /* undamaged: A-ASSOCIATE-AC */
        close(peer);
    }
    assert_true(echo_works(&receiver));
    stop(&receiver);
}

static void test_damaged_commands(void **state) {
    (void)state;
    static const uint8_t commands[][24] = {
        {0},                                                            /* no command field */
        {0, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0, 0, 1, 255, 255, 255, 255}, /* a length beyond the end */
        {8, 0, 5, 0, 2, 0, 0, 0, 'A', 'B'},                             /* not of group 0 */
    };
    struct receiver receiver;
    start(&receiver, &PLAIN);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        struct association *association = connect_store(&receiver, "1.2.840.10008.1.2.1");
        struct err err = {0};
        uint8_t copy[24];
        memcpy(copy, commands[i], sizeof copy);
        const struct bytes command = {copy, i == 0 ? 0 : i == 1 ? 18 : 10};
        assert_true(shim_dul_write(association_dul(association), 1, SHIM_PDV_COMMAND, &command, &err));
        await_event(&receiver, DICOM_EVENT_PROTOCOL_ERROR, i + 1);
        association_close(association);
    }
    assert_true(echo_works(&receiver));
    stop(&receiver);
}

/* An association in which a data set of more than size bytes has begun and does not go on; closing it ends it. */
static int hold_dataset(const struct receiver *receiver, uint16_t size) {
    static const uint8_t store[] = {4, 0, 0, 0, 0, 26, 0, 0, 0, 22,
                                    1, 3,                           /* P-DATA-TF, the last fragment of a command: */
                                    0, 0, 0, 1, 2, 0,  0, 0, 1, 0,  /* C-STORE-RQ */
                                    0, 0, 0, 8, 2, 0,  0, 0, 1, 0}; /* with a data set */
    uint8_t request[512], answer[256];
    const size_t request_size = make_request(request), pdv = 2U + size, pdu = 4 + pdv;
    const uint8_t head[] = {4,
                            0,
                            0,
                            (uint8_t)(pdu >> 16),
                            (uint8_t)(pdu >> 8),
                            (uint8_t)pdu,
                            0,
                            (uint8_t)(pdv >> 16),
                            (uint8_t)(pdv >> 8),
                            (uint8_t)pdv,
                            1,
                            0};
    uint8_t *data = calloc(1, size);
    assert_non_null(data);
    const int peer = connect_raw(receiver);
    assert_int_equal(send(peer, request, request_size, MSG_NOSIGNAL), (ssize_t)request_size);
    assert_true(recv(peer, answer, sizeof answer, 0) > 6 && answer[0] == 2); /* A-ASSOCIATE-AC */
    assert_int_equal(send(peer, store, sizeof store, MSG_NOSIGNAL), (ssize_t)sizeof store);
    assert_int_equal(send(peer, head, sizeof head, MSG_NOSIGNAL), (ssize_t)sizeof head);
    assert_int_equal(send(peer, data, size, MSG_NOSIGNAL), (ssize_t)size);
    free(data);
    return peer;
}

/* A large one that is never finished takes the room: a small one is refused until it is gone. */
static void test_room_for_all_together(void **state) {
    (void)state;
    struct dicom_scp_config config = PLAIN;
    struct receiver receiver;
    struct bytes small = sample_make(&(struct sample){.number = 1});
    config.reception_bytes_max = 20000 + 100; /* less than a small one */
    start(&receiver, &config);
    struct association *association = connect_store(&receiver, "1.2.840.10008.1.2.1");
    int holder = -1;
    uint16_t status = 0;
    /* What the holder sent is read at some time of the next storings; where one of them has the room at that moment,
     * the holder is the one that is refused, and another holder tries. */
    for (int i = 0; i < 2000 && status != 0xA700; i++) {
        if (i % 100 == 0) {
            if (holder >= 0)
                close(holder);
            holder = hold_dataset(&receiver, 20000);
        }
        usleep(10000);
        status = store_as(association, &small, "2.25.3.1");
    }
    close(holder);
    assert_int_equal(status, 0xA700);
    for (int i = 0; i < 2000 && status != 0; i++) {
        usleep(10000);
        status = store_as(association, &small, "2.25.3.1");
    }
    assert_int_equal(status, 0);
    for (int i = 0; i < 3; i++) /* room is given back after each */
        assert_int_equal(store_as(association, &small, "2.25.3.1"), 0);
    association_close(association);
    bytes_free(&small);
    stop(&receiver);
}

static long resident_kib(void) {
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &pages, &resident) != 2)
        fail_msg("no /proc/self/statm");
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Broken and aborted associations must not cost memory, since a scanner opens thousands of them in a year. */
static void test_aborted_associations_cost_no_memory(void **state) {
    (void)state;
    enum { WARM_UP = 100, ROUNDS = 600 };
    static const uint8_t broken[] = {1, 0, 0, 0, 0, 40, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'};
    struct receiver receiver;
    long before = 0;
    start(&receiver, &PLAIN);
    for (size_t i = 0; i < ROUNDS; i++) {
        if (i == WARM_UP)
            before = resident_kib();
        const int peer = connect_raw(&receiver);
        assert_true(send(peer, broken, sizeof broken, MSG_NOSIGNAL) > 0);
        close(peer);
        association_close(connect_store(&receiver, "1.2.840.10008.1.2.1"));
    }
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they keep what was freed */
    assert_true(resident_kib() - before < 2048);
#else
    assert_true(before > 0);
#endif
    stop(&receiver);
}

static void test_stop_interrupts(void **state) {
    (void)state;
    struct receiver receiver;
    start(&receiver, &PLAIN);
    struct association *idle = connect_store(&receiver, "1.2.840.10008.1.2.1");
    const int64_t before = pulmo_monotonic_ms();
    stop(&receiver);
    assert_true(pulmo_monotonic_ms() - before < 14000); /* 8 s of grace, and less than the supervisor has */
    association_close(idle);
}

/* ---- the shared data --------------------------------------------------------------------------------- */

static void test_shared_syntaxes(void **state) {
    (void)state;
    static const char *const names[] = {"HTJ2KLosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.201",
                                        "JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90",
                                        "JPEG2000TransferSyntax_1.2.840.10008.1.2.4.91",
                                        "JPEGLSLossyTransferSyntax_1.2.840.10008.1.2.4.81",
                                        "JPEGProcess1TransferSyntax_1.2.840.10008.1.2.4.50",
                                        "JPEGProcess2_4TransferSyntax_1.2.840.10008.1.2.4.51",
                                        "RLELosslessTransferSyntax_1.2.840.10008.1.2.5",
                                        "BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2"};
    enum { COUNT = sizeof names / sizeof names[0] };
    char paths[COUNT][512];
    const char *list[COUNT];
    struct progress progress = {0};
    struct receiver receiver;
    struct err err = {0};
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/data/interop/syntaxes/CTImage.dcm_%s.dcm", sample_shared(), names[i]);
        list[i] = paths[i];
    }
    if (access(paths[0], R_OK) != 0) {
        print_message("no shared data: skipped\n");
        skip();
    }
    start(&receiver, &PLAIN);
    const struct dicom_destination destination = destination_of(&receiver);
    if (!dicom_send(&destination, list, COUNT, count_progress, &progress, &err))
        fail_msg("%s", err.text);
    settle(&receiver);
    assert_int_equal(receiver.stored, COUNT);
    stop(&receiver);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_instance_names_its_association),
        cmocka_unit_test(test_store_by_storescu),
        cmocka_unit_test(test_every_syntax_is_kept_as_sent),
        cmocka_unit_test(test_preamble_is_not_passed_on),
        cmocka_unit_test(test_titles_and_addresses),
        cmocka_unit_test(test_bad_configuration),
        cmocka_unit_test(test_association_limit),
        cmocka_unit_test(test_bad_instances_get_a_status),
        cmocka_unit_test(test_statuses_of_the_sink),
        cmocka_unit_test(test_too_large_is_read_to_its_end),
        cmocka_unit_test(test_room_for_all_together),
        cmocka_unit_test(test_http_on_the_dicom_port),
        cmocka_unit_test(test_silent_peers_hold_up_nobody),
        cmocka_unit_test(test_silent_peer_is_dropped),
        cmocka_unit_test(test_port_probe_leaves_no_event),
        cmocka_unit_test(test_damaged_requests),
        cmocka_unit_test(test_damaged_commands),
        cmocka_unit_test(test_aborted_associations_cost_no_memory),
        cmocka_unit_test(test_stop_interrupts),
        cmocka_unit_test(test_shared_syntaxes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
