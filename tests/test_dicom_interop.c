/* LABELS: quick tsan
 * Every odd and broken file of the shared data goes over a socket as if it were CT: each gets an answer. */
#include "dicom/association.h"
#include "dicom/part10.h"
#include "test_dicom_sample.h"

#include <dirent.h>
#include <stdatomic.h>
#include <unistd.h>

static const char *const FOLDERS[] = {"syntaxes", "pydicom", "broken"};
static atomic_size_t kept;

static bool keep(void *context, const struct instance *instance, struct err *err) {
    (void)context;
    (void)instance;
    (void)err;
    atomic_fetch_add(&kept, 1);
    return true;
}

static struct association *connect_to(uint16_t port, const char *syntax_uid) {
    const struct connect_config config = {
        .host = "127.0.0.1", .called_aet = "PULMO", .calling_aet = "TESTER", .port = port, .timeout_s = 10};
    const struct shim_proposal proposal = {SAMPLE_CLASS, syntax_uid};
    struct err err = {0};
    struct association *association = association_connect(&config, &proposal, 1, &err);
    if (association == NULL)
        fail_msg("%s", err.text);
    return association;
}

/* What the file says it is, in its own syntax where that is accepted and as Explicit VR Little Endian otherwise. */
static uint16_t send_file(uint16_t port, const struct bytes *file) {
    static const char fallback[] = "1.2.840.10008.1.2.1";
    struct part10 meta = {.dataset_offset = 0};
    struct err err = {0};
    char sop_class[DICOM_UID_SIZE], syntax[DICOM_UID_SIZE];
    uint16_t status = 0xFFFF;
    if (!part10_split(file->data, file->size, &meta, &err))
        memcpy(meta.transfer_syntax_uid, fallback, sizeof fallback);
    struct association *association = connect_to(port, meta.transfer_syntax_uid);
    if (!shim_dul_context(association_dul(association), 1, sop_class, syntax)) {
        association_close(association);
        memcpy(meta.transfer_syntax_uid, fallback, sizeof fallback);
        association = connect_to(port, fallback);
    }
    const struct store_request request = {
        .sop_class_uid = SAMPLE_CLASS,
        .sop_instance_uid = meta.sop_instance_uid[0] != '\0' ? meta.sop_instance_uid : "2.25.5",
        .transfer_syntax_uid = meta.transfer_syntax_uid,
        .dataset = {file->data + meta.dataset_offset, file->size - meta.dataset_offset}};
    if (!association_store(association, &request, &status, &err))
        fail_msg("%s", err.text);
    association_close(association);
    return status;
}

static size_t send_folder(uint16_t port, const char *name, size_t *accepted) {
    char folder[256];
    size_t sent = 0;
    snprintf(folder, sizeof folder, "%s/data/interop/%s", sample_shared(), name);
    DIR *directory = opendir(folder);
    if (directory == NULL)
        return 0;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char path[600];
        struct bytes file = {0};
        struct err err = {0};
        if (strstr(entry->d_name, ".dcm") == NULL)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        assert_true(bytes_read_file(path, (size_t)64 << 20, &file, &err));
        const uint16_t status = send_file(port, &file);
        if (status != 0x0000 && status != 0xC000 && status != 0xA900)
            fail_msg("%s: status 0x%04X", entry->d_name, status);
        *accepted += status == 0;
        sent++;
        bytes_free(&file);
    }
    closedir(directory);
    return sent;
}

static void test_every_file_gets_an_answer(void **state) {
    (void)state;
    const struct dicom_scp_config config = {
        .bind_address = "127.0.0.1", .ae_title = "PULMO", .associations_max = 4, .timeout_s = 10};
    struct err err = {0};
    struct dicom_scp *scp = dicom_scp_start(&config, keep, NULL, NULL, &err);
    size_t sent = 0, accepted = 0;
    if (scp == NULL)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < sizeof FOLDERS / sizeof FOLDERS[0]; i++)
        sent += send_folder(dicom_scp_port(scp), FOLDERS[i], &accepted);
    dicom_scp_stop(scp);
    if (sent == 0) {
        print_message("no shared data: skipped\n");
        skip();
    }
    print_message("%zu files sent, %zu kept\n", sent, accepted);
    assert_int_equal(accepted, atomic_load(&kept));
    assert_true(accepted >= 17); /* the CT slice in its syntaxes */
    assert_true(sent - accepted >= 100);
}

/* The file that the analysis reads must survive, or be refused by, the reader in the same way. */
static void test_every_file_is_read_or_refused(void **state) {
    (void)state;
    size_t read = 0;
    for (size_t i = 0; i < sizeof FOLDERS / sizeof FOLDERS[0]; i++) {
        char folder[256];
        snprintf(folder, sizeof folder, "%s/data/interop/%s", sample_shared(), FOLDERS[i]);
        DIR *directory = opendir(folder);
        for (const struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
            char path[600];
            const char *const paths[] = {path};
            struct err err = {0};
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            if (entry->d_name[0] == '.')
                continue;
            struct dicom_series *series = dicom_series_read(paths, 1, &err);
            assert_true(series != NULL ? series->refusals.count > 0 : err.text[0] != '\0');
            dicom_series_free(series);
            read++;
        }
        if (directory != NULL)
            closedir(directory);
    }
    if (read == 0)
        skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_file_gets_an_answer),
        cmocka_unit_test(test_every_file_is_read_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
