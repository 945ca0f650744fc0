/* LABELS: quick
 * The configuration's one table: file, example and errors agree. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void write_text(const char *path, const char *text) {
    struct err err = {0};
    assert_true(bytes_write_file(path, text, strlen(text), false, &err));
}

static void example_file_is_the_table(void **state) {
    (void)state;
    PULMO_SCOPED(bytes_free) struct bytes table = {0}, file = {0};
    struct err err = {0};
    assert_true(config_example(&table, &err));
    assert_true(bytes_read_file("pulmo.conf.example", (size_t)1 << 20, &file, &err));
    assert_int_equal(table.size, file.size);
    assert_memory_equal(table.data, file.data, file.size);
}

static void example_with_keys_uncommented_is_the_defaults(void **state) {
    (void)state;
    PULMO_SCOPED(bytes_free) struct bytes table = {0};
    struct err err = {0};
    assert_true(config_example(&table, &err) && bytes_append(&table, "", 1, (size_t)1 << 20, &err));
    for (char *line = (char *)table.data; line; line = strchr(line + 1, '\n'))
        if (line[0] == '\n' && line[1] == '#' && line[2] != ' ')
            line[1] = ' ';
    char path[] = "/tmp/pulmo-config-XXXXXX";
    close(mkstemp(path));
    write_text(path, (char *)table.data);
    struct config read, defaults;
    assert_true(config_read(path, &read, &err));
    config_defaults(&defaults);
    assert_memory_equal(&read, &defaults, sizeof read);
    unlink(path);
}

static void errors_name_file_line_and_key(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"ae_title = A\nquiet_msx = 1\n", ":2: quiet_msx is not a key"},
        {"quiet_ms = soon\n", ":1: quiet_ms = soon: a number is expected"},
        {"\n\n dicom_port = 70000\n", ":3: dicom_port = 70000: must be from 0 to 65535"},
        {"passes = 1.5\n", ":1: passes = 1.5: a whole number is expected"},
        {"ae_title = ABCDEFGHIJKLMNOPQ\n", ":1: ae_title: at most 16 characters"},
        {"# fine\nno equals sign\n", ":2: \"no equals sign\": a line reads key = value"},
        {"precision = int4\n", ":1: precision = int4: must be one of auto|fp32|mixed"},
        {"precision = auto|fp32\n", ":1: precision = auto|fp32: must be one of auto|fp32|mixed"},
        {"precision =\n", ":1: precision = : must be one of auto|fp32|mixed"},
        {"backend = gpu\n", ":1: backend = gpu: must be one of auto|cpu|cuda"},
        {"operating_point = nan\n", ":1: operating_point = nan: a number is expected"},
    };
    char path[] = "/tmp/pulmo-config-XXXXXX";
    close(mkstemp(path));
    for (size_t index = 0; index < sizeof cases / sizeof *cases; index++) {
        struct config config;
        struct err err = {0};
        write_text(path, cases[index].text);
        assert_false(config_read(path, &config, &err));
        assert_int_equal(err.kind, ERR_CONFIG);
        assert_non_null(strstr(err.text, cases[index].expected));
        assert_non_null(strstr(err.text, path));
    }
    unlink(path);
}

/* What follows a NUL would be passed over: half a configuration, in silence. */
static void a_file_with_nul_is_no_configuration(void **state) {
    (void)state;
    static const char text[] = "ae_title = A\n\0allowed_addresses = 10.0.0.1\n";
    char path[] = "/tmp/pulmo-config-XXXXXX";
    struct config config;
    struct err err = {0};
    close(mkstemp(path));
    assert_true(bytes_write_file(path, text, sizeof text - 1, false, &err));
    assert_false(config_read(path, &config, &err));
    assert_int_equal(err.kind, ERR_CONFIG);
    unlink(path);
}

static void destinations_are_split_or_refused(void **state) {
    (void)state;
    struct err err = {0};
    struct config_destination destination;
    const char *cursor = " ORTHANC@10.0.0.5:4242, PACS@pacs.example:104";
    assert_true(config_destination_next(&cursor, &destination, &err));
    assert_string_equal(destination.ae_title, "ORTHANC");
    assert_string_equal(destination.host, "10.0.0.5");
    assert_int_equal(destination.port, 4242);
    assert_true(config_destination_next(&cursor, &destination, &err));
    assert_string_equal(destination.name, "PACS@pacs.example:104");
    assert_false(config_destination_next(&cursor, &destination, &err));
    assert_int_equal(err.kind, ERR_NONE);
    static const char *const bad[] = {
        "ORTHANC", "@host:1", "AET@host", "AET@host:0", "AET@host:x", "AET@:104", "SEVENTEENLETTERSX@h:1"};
    for (size_t index = 0; index < sizeof bad / sizeof *bad; index++) {
        struct err refused = {0};
        cursor = bad[index];
        assert_false(config_destination_next(&cursor, &destination, &refused));
        assert_int_equal(refused.kind, ERR_CONFIG);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(example_file_is_the_table),
        cmocka_unit_test(example_with_keys_uncommented_is_the_defaults),
        cmocka_unit_test(errors_name_file_line_and_key),
        cmocka_unit_test(a_file_with_nul_is_no_configuration),
        cmocka_unit_test(destinations_are_split_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
