/* LABELS: full
 * `pulmo analyze` as a script sees it: exit status, one document on standard output, docs/analysis.schema.json. */
#include "pulmo.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], program[512];
static cJSON *schema;

/* ---- what the schema uses of JSON Schema 2020-12 ----------------------------------------------------- */

static bool is_type(const cJSON *value, const char *type) {
    const struct {
        const char *name;
        bool is;
    } rows[] = {{"object", cJSON_IsObject(value)},
                {"array", cJSON_IsArray(value)},
                {"string", cJSON_IsString(value)},
                {"boolean", cJSON_IsBool(value)},
                {"number", cJSON_IsNumber(value)},
                {"integer", cJSON_IsNumber(value) && value->valuedouble == floor(value->valuedouble)}};
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++)
        if (strcmp(rows[index].name, type) == 0)
            return rows[index].is;
    fail_msg("the schema has the type %s, which this test does not know", type);
    return false;
}

static bool matches(const char *text, const char *pattern) {
    regex_t regex;
    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool match = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return match;
}

static bool is_one_of(const cJSON *value, const cJSON *list) {
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, list) {
        if (cJSON_Compare(item, value, true))
            return true;
    }
    return false;
}

/* One keyword of a schema; *known = false for what this test leaves to others. */
static bool holds_simple(const cJSON *value, const cJSON *rule, bool *known) {
    const char *word = rule->string;
    double number = rule->valuedouble;
    *known = true;
    if (strcmp(word, "type") == 0)
        return is_type(value, rule->valuestring);
    if (strcmp(word, "enum") == 0)
        return is_one_of(value, rule);
    if (strcmp(word, "const") == 0)
        return cJSON_Compare(value, rule, true);
    if (strcmp(word, "pattern") == 0)
        return matches(value->valuestring, rule->valuestring);
    if (strcmp(word, "maxLength") == 0)
        return (double)strlen(value->valuestring) <= number;
    if (strcmp(word, "minimum") == 0)
        return value->valuedouble >= number;
    if (strcmp(word, "maximum") == 0)
        return value->valuedouble <= number;
    if (strcmp(word, "exclusiveMinimum") == 0)
        return value->valuedouble > number;
    if (strcmp(word, "minItems") == 0)
        return cJSON_GetArraySize(value) >= (int)number;
    if (strcmp(word, "maxItems") == 0)
        return cJSON_GetArraySize(value) <= (int)number;
    *known = false;
    return true;
}

/* The first thing that does not hold, as "name: keyword"; "" when all does. Each call looks at one level. */
static bool conforms(const cJSON *value, const cJSON *rules, const char *name, char fault[128]);

static bool holds_members(const cJSON *value, const cJSON *rule, char fault[128]) {
    const cJSON *item = NULL;
    if (strcmp(rule->string, "required") == 0) {
        cJSON_ArrayForEach(item, rule) {
            if (!cJSON_GetObjectItemCaseSensitive(value, item->valuestring)) {
                snprintf(fault, 128, "%s: required", item->valuestring);
                return false;
            }
        }
        return true;
    }
    if (strcmp(rule->string, "properties") == 0) {
        cJSON_ArrayForEach(item, rule) {
            const cJSON *member = cJSON_GetObjectItemCaseSensitive(value, item->string);
            if (member && !conforms(member, item, item->string, fault))
                return false;
        }
        return true;
    }
    assert_true(strcmp(rule->string, "items") == 0 || strcmp(rule->string, "additionalProperties") == 0);
    cJSON_ArrayForEach(item, value) {
        if (!conforms(item, rule, rule->string, fault))
            return false;
    }
    return true;
}

static bool conforms(const cJSON *value, const cJSON *rules, const char *name, char fault[128]) {
    static const char *const members[] = {"required", "properties", "items", "additionalProperties"};
    const cJSON *rule = NULL, *condition = cJSON_GetObjectItemCaseSensitive(rules, "if");
    char ignored[128];
    cJSON_ArrayForEach(rule, rules) {
        bool known = false;
        if (!holds_simple(value, rule, &known)) {
            snprintf(fault, 128, "%.60s: %.60s", name, rule->string);
            return false;
        }
        /* "additionalProperties" stands beside no "properties" in this schema: it is of every member. */
        for (size_t index = 0; !known && index < sizeof members / sizeof *members; index++)
            if (strcmp(members[index], rule->string) == 0 && !holds_members(value, rule, fault))
                return false;
    }
    return !condition || conforms(value, condition, name, ignored) ||
           conforms(value, cJSON_GetObjectItemCaseSensitive(rules, "else"), name, fault);
}

/* ---- runs -------------------------------------------------------------------------------------------- */

static struct bytes read_all(const char *path) {
    struct err err = {0};
    struct bytes bytes = {0};
    if (!bytes_read_file(path, (size_t)64 << 20, &bytes, &err) || !bytes_append(&bytes, "", 1, (size_t)65 << 20, &err))
        fail_msg("%s", err.text);
    return bytes;
}

/* Runs pulmo with up to eight arguments, its standard output into `out`; returns its exit status. */
static int run(const char *out, const char *const arguments[8]) {
    pid_t pid = fork();
    if (pid == 0) {
        int file = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (file >= 0 && dup2(file, STDOUT_FILENO) >= 0)
            execl(program, "pulmo", arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5],
                  arguments[6], arguments[7], (char *)NULL);
        _exit(127);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}
#define RUN(out, ...) run(out, (const char *const[8]){__VA_ARGS__})

/* Standard output: one document, with nothing before or after it. */
static cJSON *analyze(const char *path, int expected) {
    char out[128], fault[128] = "";
    const char *end = NULL;
    snprintf(out, sizeof out, "%s/out.json", folder);
    assert_int_equal(RUN(out, "analyze", "--json", path), expected);
    PULMO_SCOPED(bytes_free) struct bytes text = read_all(out);
    assert_int_equal(text.data[0], '{');
    cJSON *document = cJSON_ParseWithOpts((const char *)text.data, &end, false);
    assert_non_null(document);
    assert_string_equal(end, "\n");
    if (!conforms(document, schema, "document", fault))
        fail_msg("%s", fault);
    return document;
}

static const char *status_of(const cJSON *document) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, "status"));
}

static const char *below(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void an_analysed_study(void **state) {
    (void)state;
    cJSON *document = analyze(below("chest"), 0);
    assert_string_equal(status_of(document), "analysed");
    const cJSON *findings = cJSON_GetObjectItemCaseSensitive(document, "findings");
    assert_true(cJSON_GetArraySize(findings) > 0);
    /* Does the check bite? Each fault alone is seen. */
    char fault[128];
    cJSON *first = cJSON_GetArrayItem(findings, 0);
    cJSON *taken = cJSON_DetachItemFromObjectCaseSensitive(first, "probability_low");
    assert_false(conforms(document, schema, "document", fault));
    assert_string_equal(fault, "probability_low: required");
    cJSON_SetNumberValue(taken, 1.5);
    cJSON_AddItemToObject(first, "probability_low", taken);
    assert_false(conforms(document, schema, "document", fault));
    assert_string_equal(fault, "probability_low: maximum");
    cJSON_SetNumberValue(taken, 0.5);
    cJSON_SetValuestring(cJSON_GetObjectItemCaseSensitive(document, "status"), "failed");
    assert_false(conforms(document, schema, "document", fault));
    cJSON_Delete(document);
}

static void a_refused_study(void **state) {
    (void)state;
    cJSON *document = analyze(below("chest/ct-0001.dcm"), 3);
    assert_string_equal(status_of(document), "refused");
    const cJSON *reason = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(document, "reasons"), 0);
    assert_int_equal(strncmp(cJSON_GetStringValue(reason), "TOO_FEW_SLICES: ", 16), 0);
    cJSON_Delete(document);
}

static const char *text_of(const cJSON *document, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(document, name));
    assert_non_null(text);
    return text;
}

static bool holds(const struct bytes *bytes, const char *text) {
    return memmem(bytes->data, bytes->size, text, strlen(text)) != NULL;
}

/* A card that was asked for and is not there: the processor takes over, and document and report say why. Where there is
 * one, both name it. */
static void which_back_end_ran_and_why(void **state) {
    (void)state;
    static const char fp32[] = "precision = fp32\n"; /* whatever an appliance of this machine has calibrated */
    char slice[128], out[128], config[128], report[192], fault[128] = "";
    struct err err = {0};
    snprintf(slice, sizeof slice, "%s", below("chest/ct-0001.dcm"));
    snprintf(config, sizeof config, "%s", below("fp32.conf"));
    snprintf(out, sizeof out, "%s", below("card"));
    assert_true(bytes_write_file(config, fp32, sizeof fp32 - 1, false, &err));
    assert_int_equal(RUN("/dev/null", "analyze", "-c", config, "--out", out, "--backend", "cuda", slice), 3);
    snprintf(report, sizeof report, "%s/analysis.json", out);
    PULMO_SCOPED(bytes_free) struct bytes text = read_all(report);
    snprintf(report, sizeof report, "%s/sr.dcm", out);
    PULMO_SCOPED(bytes_free) struct bytes sr = read_all(report);
    cJSON *document = cJSON_Parse((const char *)text.data);
    assert_true(conforms(document, schema, "document", fault));
    assert_string_equal(text_of(document, "backend_wanted"), "cuda");
    bool card = strcmp(text_of(document, "backend"), "cuda") == 0;
    const char *reason = text_of(document, "backend_reason");
    assert_int_equal(card, *reason == '\0');
    assert_string_equal(text_of(document, "precision"), card ? "fp16" : "fp32");
    assert_true(holds(&sr, text_of(document, "backend_detail")));
    assert_true(card || holds(&sr, reason));
    assert_int_equal(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(document, "backend_stands_in")), !card);
    cJSON_Delete(document);
    assert_int_equal(RUN("/dev/null", "analyze", "--backend", "tpu", slice), 2);

    document = analyze(slice, 3);
    assert_string_equal(text_of(document, "backend_wanted"), "auto");
    cJSON_Delete(document);
}

static void a_failed_study(void **state) {
    (void)state;
    struct err err = {0};
    assert_true(bytes_write_file(below("text"), "no DICOM", 8, false, &err));
    cJSON *document = analyze(below("text"), 1);
    assert_string_equal(status_of(document), "failed");
    cJSON_Delete(document);
}

static void usage_and_a_full_disk(void **state) {
    (void)state;
    char slice[128], missing[128];
    snprintf(slice, sizeof slice, "%s", below("chest/ct-0001.dcm"));
    snprintf(missing, sizeof missing, "%s", below("missing/out"));
    assert_int_equal(RUN("/dev/null", "analyze"), 2);
    assert_int_equal(RUN("/dev/null", "analyze", "--bogus", slice), 2);
    assert_int_equal(RUN("/dev/null", "analyze", "--passes", "many", slice), 2);
    assert_int_equal(RUN("/dev/null", "analyze", "-c", slice, slice), 2); /* a configuration that is none */
    assert_int_equal(RUN("/dev/null", "analyze", missing), 1);
    assert_int_equal(RUN("/dev/null", "analyze", "--out", missing, slice), 1);
    assert_int_equal(RUN("/dev/null", "analyze", "--json", slice), 3);
    assert_int_equal(RUN("/dev/full", "analyze", "--json", slice), 1); /* a document that nobody got */
}

/* ---- fixture ----------------------------------------------------------------------------------------- */

static int make_fixture(void **state) {
    (void)state;
    const char *build = getenv("PULMO_BUILD");
    snprintf(program, sizeof program, "%s/pulmo", build ? build : "build");
    snprintf(folder, sizeof folder, "/tmp/pulmo-analyze-XXXXXX");
    assert_non_null(mkdtemp(folder));
    PULMO_SCOPED(bytes_free) struct bytes text = read_all("docs/analysis.schema.json");
    schema = cJSON_Parse((const char *)text.data);
    assert_non_null(schema);
    return RUN("/dev/null", "phantom", "--out", below("chest"), "--nodules", "1");
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static int remove_fixture(void **state) {
    (void)state;
    cJSON_Delete(schema);
    return nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_analysed_study),          cmocka_unit_test(a_refused_study),
        cmocka_unit_test(which_back_end_ran_and_why), cmocka_unit_test(a_failed_study),
        cmocka_unit_test(usage_and_a_full_disk),
    };
    return cmocka_run_group_tests(tests, make_fixture, remove_fixture);
}
