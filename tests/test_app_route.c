/* LABELS: full
 * `pulmo route`: what it says of an instance is what reception, store and gate do with it. */
#include "app_program.h"

#include "store/store.h"

#include "dicom/dicom.h"

static const char *text_of(const cJSON *object, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : "";
}

/* The document of a file, with the exit status that it comes with. */
static cJSON *route(const char *arguments, int status) {
    char line[300];
    snprintf(line, sizeof line, "route --json -c {}/pulmo.conf %s", arguments);
    const struct said *said = program_run(line);
    assert_said(said, status);
    if (status == 3)
        assert_contains(said->err, "refused: ");
    return program_json(said);
}

static void assert_reception(const char *arguments, int status, const char *dimse, const char *version) {
    cJSON *document = route(arguments, status);
    const cJSON *reception = cJSON_GetObjectItemCaseSensitive(document, "reception");
    assert_string_equal(text_of(reception, "status"), dimse);
    assert_string_equal(text_of(reception, "version"), version);
    assert_int_equal(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(document, "accepted")), status == 0);
    cJSON_Delete(document);
}

static void assert_analysis(const char *arguments, bool takes_part, const char *reason) {
    cJSON *document = route(arguments, 0);
    const cJSON *analysis = cJSON_GetObjectItemCaseSensitive(document, "analysis");
    assert_int_equal(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(analysis, "takes_part")), takes_part);
    const char *first =
        cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(analysis, "reasons"), 0));
    assert_contains(first ? first : "", reason);
    cJSON_Delete(document);
}

static void read_file(const char *name, struct bytes *out) {
    char path[128];
    struct err err = {0};
    snprintf(path, sizeof path, "%s/%s", program_folder, name);
    if (!bytes_read_file(path, (size_t)1 << 26, out, &err))
        fail_msg("%s", err.text);
}

/* Writes `name` as a copy of ct.dcm in which each `from` is `to`, of the same length. */
static void make_changed(const char *name, const char *from, const char *to) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    char path[128];
    size_t size = strlen(from), changes = 0;
    assert_int_equal(size, strlen(to));
    read_file("ct.dcm", &file);
    for (size_t at = 0; at + size <= file.size; at++)
        if (memcmp(file.data + at, from, size) == 0) {
            memcpy(file.data + at, to, size);
            changes++;
        }
    assert_true(changes > 0);
    snprintf(path, sizeof path, "%s/%s", program_folder, name);
    assert_true(bytes_write_file(path, file.data, file.size, false, NULL));
}

static int setup(void **state) {
    char line[400];
    if (program_setup(state))
        return 1;
    assert_said(program_run("phantom --out {}/ct --slices 20"), 0);
    snprintf(line, sizeof line, "cp \"$(ls -d %s/ct/* | head -1)\" %s/ct.dcm", program_folder, program_folder);
    return system(line); /* lint: allow system: a test */
}

static void before_there_is_a_store(void **state) {
    (void)state;
    char data[128];
    assert_reception("{}/ct.dcm", 0, "0x0000", "first");
    assert_analysis("{}/ct.dcm", true, "");
    const struct said *said = program_run("route {}/ct.dcm -c {}/pulmo.conf");
    assert_said(said, 0);
    assert_contains(said->out, "not known");
    assert_contains(said->out, "chest-ct-nodules");
    assert_string_equal(said->err, "");
    snprintf(data, sizeof data, "%s/data", program_folder);
    assert_int_not_equal(access(data, F_OK), 0);
}

static void refused_as_reception_does(void **state) {
    (void)state;
    program_write("text.dcm", "GET / HTTP/1.1\r\n\r\n");
    assert_reception("{}/text.dcm", 3, "0xC000", "");
    make_changed("mr.dcm", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4");
    assert_reception("{}/mr.dcm", 3, "0x0122", "");
    program_write("strict.conf", "calling_aets = ORTHANC\nallowed_addresses = 192.0.2.0/24\n");
    static const struct {
        const char *options;
        int status;
    } rows[] = {{"", 0},
                {"--calling ORTHANC", 0},
                {"--calling ORTHANC --called PULMO --address 192.0.2.7", 0},
                {"--calling OTHER", 3},
                {"--calling ORTHANC --called OTHER", 3},
                {"--calling ORTHANC --address 198.51.100.1", 3}};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++) {
        char line[300];
        snprintf(line, sizeof line, "route {}/ct.dcm -c {}/strict.conf %s", rows[index].options);
        assert_said(program_run(line), rows[index].status);
    }
    assert_said(program_run("route {}/none.dcm -c {}/pulmo.conf"), 1);
    assert_said(program_run("route"), 2);
    assert_said(program_run("route --help"), 0);
    assert_said(program_run("phantom --out {}/x --slices 1 --transfer-syntax morse"), 2);
    assert_said(program_run("route {}/ct.dcm {}/ct.dcm"), 2);
}

static void the_gate_on_one_slice(void **state) {
    (void)state;
    make_changed("side.dcm", "1\\0\\0\\0\\1\\0", "1\\0\\0\\0\\0\\1");
    assert_analysis("{}/side.dcm", false, "NOT_AXIAL: ");
    make_changed("scout.dcm", "PRIMARY\\AXIAL", "PR\\LOCALIZER ");
    assert_analysis("{}/scout.dcm", false, "LOCALIZER: ");
}

static void put(const char *name) {
    char folder[128];
    struct err err = {0};
    struct instance instance;
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    snprintf(folder, sizeof folder, "%s/data", program_folder);
    const struct store_config config = {.folder = folder, .quiet_ms = 1000, .lease_ms = 60000, .attempts_max = 3};
    PULMO_SCOPED(store_close_at) struct store *store = store_open(&config, &err);
    read_file(name, &file);
    if (!store || !dicom_instance_parse(file.data, file.size, &instance, &err) ||
        !store_instance_put(store, &instance, &err))
        fail_msg("%s", err.text);
}

/* The last digits of the SOP Instance UID, changed into another of the same length. */
static void make_other_uid(const char *from, const char *name) {
    struct instance instance;
    struct err err = {0};
    char uid[DICOM_UID_SIZE], other[DICOM_UID_SIZE];
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    read_file(from, &file);
    if (!dicom_instance_parse(file.data, file.size, &instance, &err))
        fail_msg("%s", err.text);
    memcpy(uid, instance.sop_instance_uid, sizeof uid);
    memcpy(other, uid, sizeof uid);
    other[strlen(other) - 1] = other[strlen(other) - 1] == '7' ? '8' : '7';
    make_changed(name, uid, other);
}

static void known_as_the_store_knows_it(void **state) {
    (void)state;
    put("ct.dcm");
    assert_reception("{}/ct.dcm", 0, "0x0000", "same");
    cJSON *document = route("{}/ct.dcm", 0);
    const cJSON *study = cJSON_GetObjectItemCaseSensitive(document, "study");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(study, "known")));
    assert_string_equal(text_of(study, "state"), "receiving");
    cJSON_Delete(document);
    make_changed("corrected.dcm", "PULMO-PHANTOM", "PULMO-PHANTOX");
    assert_reception("{}/corrected.dcm", 0, "0x0000", "corrected");
    make_other_uid("ct.dcm", "next.dcm");
    assert_reception("{}/next.dcm", 0, "0x0000", "first");
    /* the question changed nothing */
    assert_reception("{}/next.dcm", 0, "0x0000", "first");
    assert_reception("{}/ct.dcm", 0, "0x0000", "same");
    const struct said *said = program_run("route {}/ct.dcm -c {}/pulmo.conf");
    assert_contains(said->out, "known: 1 instances");
    assert_contains(said->out, "stored already");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(before_there_is_a_store, setup, program_teardown),
        cmocka_unit_test_setup_teardown(refused_as_reception_does, setup, program_teardown),
        cmocka_unit_test_setup_teardown(the_gate_on_one_slice, setup, program_teardown),
        cmocka_unit_test_setup_teardown(known_as_the_store_knows_it, setup, program_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
