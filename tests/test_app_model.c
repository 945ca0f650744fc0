/* LABELS: full
 * `pulmo model` as an administrator sees it. */
#include "app_program.h"

static const char *text_of(const cJSON *object, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : "";
}

static void questions_make_no_store(void **state) {
    (void)state;
    char data[128];
    const struct said *said = program_run("model list --json -c {}/pulmo.conf");
    assert_said(said, 0);
    cJSON *document = program_json(said);
    const cJSON *configuration = cJSON_GetObjectItemCaseSensitive(document, "configuration");
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(document, "models")), 0);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(configuration, "in_use")));
    assert_int_equal(strlen(text_of(configuration, "sha256")), 64);
    cJSON_Delete(document);
    said = program_run("model show --json -c {}/pulmo.conf");
    assert_said(said, 0);
    cJSON_Delete(program_json(said));
    assert_said(program_run("model show 53f1 -c {}/pulmo.conf"), 1);
    snprintf(data, sizeof data, "%s/data", program_folder);
    assert_int_not_equal(access(data, F_OK), 0);
}

static void wrong_usage_is_status_2(void **state) {
    (void)state;
    static const char *const rows[] = {"model",
                                       "model lists",
                                       "model list 1",
                                       "model install",
                                       "model promote",
                                       "model rollback now",
                                       "model shadow",
                                       "model shadow --off 53f1",
                                       "model promote --off 53f1",
                                       "model compare 53f1 53f2",
                                       "model promote --json 53f1",
                                       "model show --model models/model.json 53f1",
                                       "model show --no-such-option"};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++) {
        const struct said *said = program_run(rows[index]);
        assert_said(said, 2);
        assert_string_equal(said->out, "");
        assert_true(*said->err);
    }
}

static void copy_in(const char *name, int damage_at) {
    struct err err = {0};
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    char path[128];
    snprintf(path, sizeof path, "models/%s", name);
    assert_true(bytes_read_file(path, (size_t)1 << 26, &file, &err));
    if (damage_at)
        file.data[damage_at] ^= 1;
    snprintf(path, sizeof path, "%s/%s", program_folder, name);
    assert_true(bytes_write_file(path, file.data, file.size, false, &err));
}

static void a_broken_model_is_refused(void **state) {
    (void)state;
    copy_in("model.json", 0);
    copy_in("candidate.onnx", 0);
    copy_in("detector.onnx", 1000);
    const struct said *said = program_run("model install {}/model.json -c {}/pulmo.conf");
    assert_said(said, 1);
    assert_contains(said->err, "gate.onnx");
    copy_in("gate.onnx", 0);
    said = program_run("model install {}/model.json -c {}/pulmo.conf");
    assert_said(said, 3);
    assert_contains(said->err, "detector.onnx has digest");
    assert_string_equal(said->out, "");
    program_write("model.json", "{\"name\": 1}");
    assert_said(program_run("model install {}/model.json -c {}/pulmo.conf"), 3);
    assert_said(program_run("model install {}/none.json -c {}/pulmo.conf"), 1);
    said = program_run("model list --json -c {}/pulmo.conf");
    cJSON *document = program_json(said);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(document, "models")), 0);
    cJSON_Delete(document);
}

static void assert_states(const char *installed, bool configuration_in_use) {
    const struct said *said = program_run("model list --json -c {}/pulmo.conf");
    assert_said(said, 0);
    cJSON *document = program_json(said);
    const cJSON *configuration = cJSON_GetObjectItemCaseSensitive(document, "configuration");
    const cJSON *model = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(document, "models"), 0);
    assert_string_equal(text_of(model, "state"), installed);
    assert_int_equal(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(configuration, "in_use")), configuration_in_use);
    cJSON_Delete(document);
}

static void installed_promoted_and_rolled_back(void **state) {
    (void)state;
    char line[160], sha256[65];
    const struct said *said = program_run("model install models/model.json -c {}/pulmo.conf");
    assert_said(said, 0);
    assert_contains(said->out, "installed pulmo-nodule");
    assert_contains(said->out, "finds the phantom's nodule");
    snprintf(sha256, sizeof sha256, "%.64s", strstr(said->out, "sha256 ") + 7);
    assert_states("installed", true);
    snprintf(line, sizeof line, "model shadow %.8s -c {}/pulmo.conf", sha256);
    said = program_run(line);
    assert_said(said, 1); /* it is the configuration's, too */
    assert_contains(said->err, "is in use");
    assert_said(program_run("model shadow --off -c {}/pulmo.conf"), 1);
    assert_said(program_run("model compare -c {}/pulmo.conf"), 1);
    snprintf(line, sizeof line, "model compare %.8s --json -c {}/pulmo.conf", sha256);
    said = program_run(line);
    assert_said(said, 0);
    cJSON *compared = program_json(said);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(compared, "studies")), 0);
    cJSON_Delete(compared);
    snprintf(line, sizeof line, "model promote %.8s -c {}/pulmo.conf", sha256);
    assert_said(program_run(line), 0);
    assert_states("active", false);
    said = program_run(line);
    assert_said(said, 1);
    assert_contains(said->err, "in use already");
    assert_said(program_run("model rollback -c {}/pulmo.conf"), 0);
    assert_states("former", true);
    assert_said(program_run("model rollback -c {}/pulmo.conf"), 1);
    said = program_run("doctor --quick -c {}/pulmo.conf");
    assert_contains(said->out, "; 1 installed");
    said = program_run("audit verify -c {}/pulmo.conf");
    assert_said(said, 0);
    assert_contains(said->out, "3 rows");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(questions_make_no_store, program_setup, program_teardown),
        cmocka_unit_test_setup_teardown(wrong_usage_is_status_2, program_setup, program_teardown),
        cmocka_unit_test_setup_teardown(a_broken_model_is_refused, program_setup, program_teardown),
        cmocka_unit_test_setup_teardown(installed_promoted_and_rolled_back, program_setup, program_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
