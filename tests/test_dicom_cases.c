/* LABELS: quick
 * Bad input as folders: tests/cases/dicom-<name>/case says what is done to good data and what must come of it.
 *
 * First line of a case: "instance" (one CT instance, stored over a socket), "series COUNT SPACING" (files, read as a
 * series) or "socket" (bytes to the DICOM port). Then, one a line:
 *   put TAG VALUE | u16 TAG VALUE | remove TAG      changes of the data set
 *   retype TAG VR | cut BYTES | nest DEPTH | copy   changes of the bytes: VR (to UL, 4 bytes), end, nested sequences; a
 *                                                   copy of a slice at its place
 *   slice INDEX | drop INDEX                        of a series: the changes are of this slice; it is left out
 *   send TEXT                                       of a socket; \r and \n are escapes
 *   status HEX | reason NAME | says TEXT            what is expected; says: part of the sentence */
#include "dicom/association.h"
#include "dicom/part10.h"
#include "test_dicom_sample.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHANGES_MAX = 8, SLICES_MAX = 40 };

struct change {
    char verb[12];
    uint32_t tag;
    char value[128];
};
struct bad_case {
    char kind[12];
    int count, slice, drop;
    double spacing_mm;
    struct change changes[CHANGES_MAX];
    size_t change_count;
    char send[256], reason[40], says[200];
    long status;
};

/* ---- reading a case ---------------------------------------------------------------------------------- */

static void unescape(const char *text, char out[256]) {
    size_t size = 0;
    for (; *text != '\0' && size < 255; text++) {
        const bool escaped = text[0] == '\\' && (text[1] == 'r' || text[1] == 'n');
        out[size++] = !escaped ? *text : text[1] == 'r' ? '\r' : '\n';
        text += escaped;
    }
    out[size] = '\0';
}

static void read_change(struct bad_case *bad, const char *verb, const char *rest) {
    assert_true(bad->change_count < CHANGES_MAX);
    struct change *change = &bad->changes[bad->change_count++];
    char *end = NULL;
    snprintf(change->verb, sizeof change->verb, "%s", verb);
    if (strcmp(verb, "cut") != 0 && strcmp(verb, "nest") != 0 && strcmp(verb, "copy") != 0) {
        change->tag = (uint32_t)strtoul(rest, &end, 16);
        rest = end + strspn(end, " ");
    }
    snprintf(change->value, sizeof change->value, "%s", rest);
}

static void read_line(struct bad_case *bad, const char *line) {
    char verb[12] = "";
    const size_t length = strcspn(line, " ");
    snprintf(verb, sizeof verb, "%.*s", (int)length, line);
    const char *rest = line + length + strspn(line + length, " ");
    if (strcmp(verb, "instance") == 0 || strcmp(verb, "socket") == 0)
        snprintf(bad->kind, sizeof bad->kind, "%s", verb);
    else if (strcmp(verb, "series") == 0) {
        snprintf(bad->kind, sizeof bad->kind, "%s", verb);
        assert_int_equal(sscanf(rest, "%d %lf", &bad->count, &bad->spacing_mm), 2);
    } else if (strcmp(verb, "slice") == 0)
        bad->slice = (int)strtol(rest, NULL, 10);
    else if (strcmp(verb, "drop") == 0)
        bad->drop = (int)strtol(rest, NULL, 10);
    else if (strcmp(verb, "send") == 0)
        unescape(rest, bad->send);
    else if (strcmp(verb, "status") == 0)
        bad->status = strtol(rest, NULL, 16);
    else if (strcmp(verb, "reason") == 0)
        snprintf(bad->reason, sizeof bad->reason, "%s", rest);
    else if (strcmp(verb, "says") == 0)
        snprintf(bad->says, sizeof bad->says, "%s", rest);
    else
        read_change(bad, verb, rest);
}

static void read_case(const char *path, struct bad_case *bad) {
    char line[512];
    FILE *file = fopen(path, "r");
    *bad = (struct bad_case){.slice = -1, .drop = -1, .status = -1};
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '#' && line[0] != '\0')
            read_line(bad, line);
    }
    fclose(file);
}

/* ---- making the input -------------------------------------------------------------------------------- */

static void change_dataset(struct shim_dataset *dataset, void *context) {
    const struct bad_case *bad = context;
    for (size_t i = 0; i < bad->change_count; i++) {
        const struct change *change = &bad->changes[i];
        if (strcmp(change->verb, "put") == 0)
            sample_put(dataset, change->tag, change->value);
        else if (strcmp(change->verb, "u16") == 0)
            sample_put_u16(dataset, change->tag, (uint16_t)strtoul(change->value, NULL, 10));
        else if (strcmp(change->verb, "remove") == 0)
            shim_remove(dataset, change->tag);
    }
}

/* US of two bytes becomes another VR of four, as the files did that overflowed other readers. */
static void retype(struct bytes *file, const struct change *change) {
    const uint8_t tag[] = {(uint8_t)(change->tag >> 16), (uint8_t)(change->tag >> 24), (uint8_t)change->tag,
                           (uint8_t)(change->tag >> 8)};
    uint8_t *at = memmem(file->data, file->size, tag, sizeof tag);
    struct bytes out = {0};
    struct err err = {0};
    assert_non_null(at);
    const size_t head = (size_t)(at - file->data) + 4;
    const uint8_t element[] = {(uint8_t)change->value[0], (uint8_t)change->value[1], 4, 0, at[8], at[9], 1, 0};
    assert_true(bytes_append(&out, file->data, head, 1 << 30, &err));
    assert_true(bytes_append(&out, element, sizeof element, 1 << 30, &err));
    assert_true(bytes_append(&out, file->data + head + 6, file->size - head - 6, 1 << 30, &err));
    bytes_free(file);
    *file = out;
}

/* A private sequence that holds an item that holds a sequence ... at the end, never closed: 20 bytes a level. */
static void nest(struct bytes *file, long depth) {
    static const uint8_t level[] = {0xE1, 0x7F, 0x10, 0x00, 'S',  'Q',  0,    0,    0xFF, 0xFF,
                                    0xFF, 0xFF, 0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF};
    struct err err = {0};
    for (long i = 0; i < depth; i++)
        assert_true(bytes_append(file, level, sizeof level, 1 << 30, &err));
}

static void change_bytes(struct bytes *file, const struct bad_case *bad) {
    for (size_t i = 0; i < bad->change_count; i++) {
        const struct change *change = &bad->changes[i];
        if (strcmp(change->verb, "retype") == 0)
            retype(file, change);
        else if (strcmp(change->verb, "cut") == 0)
            file->size -= strtoul(change->value, NULL, 10);
        else if (strcmp(change->verb, "nest") == 0)
            nest(file, strtol(change->value, NULL, 10));
    }
}

/* ---- what comes of it -------------------------------------------------------------------------------- */

struct outcome {
    pthread_mutex_t lock;
    size_t refused, protocol_errors, kept;
    char detail[512];
};

static bool keep(void *context, const struct instance *instance, struct err *err) {
    struct outcome *outcome = context;
    (void)instance;
    (void)err;
    pthread_mutex_lock(&outcome->lock);
    outcome->kept++;
    pthread_mutex_unlock(&outcome->lock);
    return true;
}

static void note(void *context, const struct dicom_event *event) {
    struct outcome *outcome = context;
    pthread_mutex_lock(&outcome->lock);
    outcome->refused += event->kind == DICOM_EVENT_INSTANCE_REFUSED;
    outcome->protocol_errors += event->kind == DICOM_EVENT_PROTOCOL_ERROR;
    if (event->kind == DICOM_EVENT_INSTANCE_REFUSED || event->kind == DICOM_EVENT_PROTOCOL_ERROR)
        snprintf(outcome->detail, sizeof outcome->detail, "%s", event->detail);
    pthread_mutex_unlock(&outcome->lock);
}

static struct dicom_scp *start(struct outcome *outcome) {
    const struct dicom_scp_config config = {
        .bind_address = "127.0.0.1", .ae_title = "PULMO", .associations_max = 4, .timeout_s = 10};
    struct err err = {0};
    *outcome = (struct outcome){.lock = PTHREAD_MUTEX_INITIALIZER};
    struct dicom_scp *scp = dicom_scp_start(&config, keep, note, outcome, &err);
    if (scp == NULL)
        fail_msg("%s", err.text);
    return scp;
}

static uint16_t send_dataset(uint16_t port, const struct bytes *file) {
    const struct connect_config config = {
        .host = "127.0.0.1", .called_aet = "PULMO", .calling_aet = "TESTER", .port = port, .timeout_s = 10};
    const struct shim_proposal proposal = {SAMPLE_CLASS, "1.2.840.10008.1.2.1"};
    struct part10 meta;
    struct err err = {0};
    uint16_t status = 0xFFFF;
    assert_true(part10_split(file->data, file->size, &meta, &err));
    PULMO_SCOPED(association_close_at)
    struct association *association = association_connect(&config, &proposal, 1, &err);
    assert_non_null(association);
    const struct store_request request = {
        .sop_class_uid = SAMPLE_CLASS,
        .sop_instance_uid = "2.25.3.1",
        .transfer_syntax_uid = "1.2.840.10008.1.2.1",
        .dataset = {file->data + meta.dataset_offset, file->size - meta.dataset_offset}};
    if (!association_store(association, &request, &status, &err))
        fail_msg("%s", err.text);
    return status;
}

static void try_instance(const char *name, struct bad_case *bad) {
    struct outcome outcome;
    struct bytes file = sample_make(&(struct sample){.number = 1, .change = change_dataset, .context = bad});
    change_bytes(&file, bad);
    struct dicom_scp *scp = start(&outcome);
    const uint16_t status = send_dataset(dicom_scp_port(scp), &file);
    struct bytes good = sample_make(&(struct sample){.number = 1});
    const uint16_t next = send_dataset(dicom_scp_port(scp), &good);
    dicom_scp_stop(scp);
    if (status != bad->status || strstr(outcome.detail, bad->says) == NULL)
        fail_msg("%s: status 0x%04X, \"%s\"", name, status, outcome.detail);
    assert_int_equal(outcome.refused, 1);
    assert_int_equal(next, 0); /* nothing else is harmed */
    assert_int_equal(outcome.kept, 1);
    bytes_free(&file);
    bytes_free(&good);
}

static void try_series(const char *name, struct bad_case *bad) {
    char folder[256], paths[SLICES_MAX][512];
    const char *list[SLICES_MAX];
    size_t count = 0;
    struct err err = {0};
    assert_true(bad->count < SLICES_MAX);
    sample_folder(folder);
    for (int k = 0; k <= bad->count; k++) {
        /* the one more than asked for is the copy of slice `slice` under a UID of its own, where a case wants one */
        const bool is_copy = k == bad->count, is_target = bad->slice < 0 || bad->slice == k;
        const bool wants_copy = bad->change_count > 0 && strcmp(bad->changes[0].verb, "copy") == 0;
        char file_name[32];
        if ((is_copy && !wants_copy) || k == bad->drop)
            continue;
        struct sample sample = {.number = k + 1, .z_mm = (is_copy ? bad->slice : k) * bad->spacing_mm};
        if (is_target && !is_copy) {
            sample.change = change_dataset;
            sample.context = bad;
        }
        struct bytes file = sample_make(&sample);
        if (is_target && !is_copy)
            change_bytes(&file, bad);
        snprintf(file_name, sizeof file_name, "%02d.dcm", k);
        sample_save(folder, file_name, &file, paths[count]);
        list[count] = paths[count];
        count++;
        bytes_free(&file);
    }
    struct dicom_series *series = dicom_series_read(list, count, &err);
    for (size_t i = 0; i < count; i++)
        remove(paths[i]);
    rmdir(folder);
    if (series == NULL)
        fail_msg("%s: %s", name, err.text);
    assert_true(series->refusals.count > 0);
    const struct refusal *refusal = &series->refusals.items[0];
    if (strcmp(refusal_name(refusal->code), bad->reason) != 0 || strstr(refusal->text, bad->says) == NULL)
        fail_msg("%s: %s: %s", name, refusal_name(refusal->code), refusal->text);
    dicom_series_free(series);
}

static void try_socket(const char *name, const struct bad_case *bad) {
    struct outcome outcome;
    struct dicom_scp *scp = start(&outcome);
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(dicom_scp_port(scp)), .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    const int peer = socket(AF_INET, SOCK_STREAM, 0);
    char answer[256];
    assert_int_equal(connect(peer, (const struct sockaddr *)&address, sizeof address), 0);
    assert_true(send(peer, bad->send, strlen(bad->send), MSG_NOSIGNAL) > 0);
    while (recv(peer, answer, sizeof answer, 0) > 0) {
    } /* the connection is closed by the SCP */
    close(peer);
    struct bytes good = sample_make(&(struct sample){.number = 1});
    assert_int_equal(send_dataset(dicom_scp_port(scp), &good), 0);
    dicom_scp_stop(scp);
    if (outcome.protocol_errors != 1 || strstr(outcome.detail, bad->says) == NULL)
        fail_msg("%s: %zu protocol errors, \"%s\"", name, outcome.protocol_errors, outcome.detail);
    bytes_free(&good);
}

static void test_every_case(void **state) {
    (void)state;
    size_t tried = 0;
    DIR *directory = opendir("tests/cases");
    assert_non_null(directory); /* run in the repository's root */
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        struct bad_case bad;
        char path[600];
        if (strncmp(entry->d_name, "dicom-", 6) != 0)
            continue;
        snprintf(path, sizeof path, "tests/cases/%s/case", entry->d_name);
        read_case(path, &bad);
        if (strcmp(bad.kind, "instance") == 0)
            try_instance(entry->d_name, &bad);
        else if (strcmp(bad.kind, "series") == 0)
            try_series(entry->d_name, &bad);
        else
            try_socket(entry->d_name, &bad);
        tried++;
    }
    closedir(directory);
    print_message("%zu cases\n", tried);
    assert_true(tried >= 14);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_case)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
