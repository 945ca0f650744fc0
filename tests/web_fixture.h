/* A store with studies in every state that a reader meets, and a web server on it. For tests/test_web_*.c and, through
 * `test_web_api --serve`, for the tests of the browser application.
 *
 * The series is synthetic: a body of water, two lungs of air, a bright disc for each finding. */
#ifndef PULMO_TESTS_WEB_FIXTURE_H
#define PULMO_TESTS_WEB_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "web/web.h"

#define COLUMNS 192
#define ROWS 160
#define SLICES 24
#define SPACING_MM 1.6
#define SLICE_MM 2.5
#define SERIES "1.2.826.0.1.3680043.10.9.7"
#define STUDY_FOUND "1.2.826.0.1.3680043.10.9.1"
#define STUDY_NEGATIVE "1.2.826.0.1.3680043.10.9.2"
#define STUDY_REFUSED "1.2.826.0.1.3680043.10.9.3"
#define STUDY_FAILED "1.2.826.0.1.3680043.10.9.4"
#define STUDY_ARRIVING "1.2.826.0.1.3680043.10.9.5"
#define READER "reader"
#define VIEWER "viewer"
#define ADMINISTRATOR "admin"
#define AUDITOR "auditor"
#define PASSWORD "correct horse battery"

/* Fails the test with the error's own sentence. */
#define assert_good(expression)                                                     \
    do {                                                                            \
        if (!(expression))                                                          \
            fail_msg("%s: %s: %s", #expression, err_kind_name(err.kind), err.text); \
    } while (0)

struct web_fixture {
    char folder[128], data[160], viewer[160], certificate[160], key[160];
    struct store_config store_config;
    struct web_config web_config;
    struct web_server *server;
    struct store *store; /* of the test's own thread */
    int64_t result_found, result_negative, result_refused;
};

/* ---- the series -------------------------------------------------------------------------------------- */

static const struct web_nodule {
    int i, j, k;
    double radius_mm, probability, low, high;
    bool reported, review;
    const char *texture, *lobe, *sentence;
} web_nodules[] = {
    {52, 70, 15, 6, 0.82, 0.74, 0.88, true, false, "solid", "RUL",
     "Nodule, likely: 82 % (74 to 88 %), the passes agree"},
    {138, 96, 8, 4.5, 0.61, 0.38, 0.79, true, true, "part-solid", "LLL",
     "Nodule, uncertain: 61 % (38 to 79 %), the passes disagree"},
    {60, 104, 6, 3.5, 0.55, 0.49, 0.60, true, false, "ground-glass", "RLL",
     "Nodule, uncertain: 55 % (49 to 60 %), the passes agree"},
    {140, 60, 18, 2.5, 0.21, 0.11, 0.30, false, false, "solid", "LUL",
     "Nodule, unlikely: 21 % (11 to 30 %), the passes agree"},
};
#define WEB_NODULES (sizeof web_nodules / sizeof *web_nodules)

static inline bool web_in_ellipse(int i, int j, double ci, double cj, double ri, double rj) {
    double x = (i - ci) / ri, y = (j - cj) / rj;
    return x * x + y * y <= 1;
}

static inline double web_distance_mm(const struct web_nodule *nodule, int i, int j, int k) {
    double x = (i - nodule->i) * SPACING_MM, y = (j - nodule->j) * SPACING_MM, z = (k - nodule->k) * SLICE_MM;
    return sqrt(x * x + y * y + z * z);
}

static inline int16_t web_hu(int i, int j, int k) {
    for (size_t index = 0; index < WEB_NODULES; index++)
        if (web_distance_mm(&web_nodules[index], i, j, k) <= web_nodules[index].radius_mm)
            return (int16_t)(40 + (int)index);
    if (web_in_ellipse(i, j, 56, 84, 30, 44) || web_in_ellipse(i, j, 136, 84, 30, 44))
        return (int16_t)(-870 + k);
    return web_in_ellipse(i, j, 96, 82, 84, 66) ? 20 : -1000;
}

static inline void web_lps(const struct web_nodule *nodule, double out[3]) {
    out[0] = -150 + nodule->i * SPACING_MM;
    out[1] = -130 + nodule->j * SPACING_MM;
    out[2] = -60 + nodule->k * SLICE_MM;
}

static inline int16_t *web_slices(void) {
    int16_t *slices = malloc((size_t)COLUMNS * ROWS * SLICES * sizeof *slices);
    assert_non_null(slices);
    for (int k = 0, n = 0; k < SLICES; k++)
        for (int j = 0; j < ROWS; j++)
            for (int i = 0; i < COLUMNS; i++)
                slices[n++] = web_hu(i, j, k);
    return slices;
}

static const char web_series_json[] =
    "{\"study_uid\":\"" STUDY_FOUND "\",\"series_uid\":\"" SERIES "\",\"series_description\":\"Chest 2.5 mm lung\","
    "\"columns\":192,\"rows\":160,\"slices\":24,\"spacing_ijk_mm\":[1.6,1.6,2.5],"
    "\"ijk_to_lps_mm\":[[1.6,0,0,-150],[0,1.6,0,-130],[0,0,2.5,-60]],"
    "\"window_center_hu\":-600,\"window_width_hu\":1500,\"slice_sop_instance_uids\":[]}";

/* ---- artifacts --------------------------------------------------------------------------------------- */

/* Appends; a test's buffers are large enough or the test fails. */
struct web_text {
    char *data;
    size_t size, room;
};
static inline struct web_text web_text_new(size_t room) {
    struct web_text text = {.data = calloc(1, room), .room = room};
    assert_non_null(text.data);
    return text;
}
static inline void web_put(struct web_text *text, const char *format, ...) PULMO_PRINTF(2, 3);
static inline void web_put(struct web_text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text->data + text->size, text->room - text->size, format, arguments);
    va_end(arguments);
    assert_true(length >= 0 && text->size + (size_t)length < text->room);
    text->size += (size_t)length;
}

static inline void web_put_finding(struct web_text *text, size_t index) {
    const struct web_nodule *nodule = &web_nodules[index];
    double lps[3];
    web_lps(nodule, lps);
    web_put(text, "%s{\"id\":%zu,\"center_lps_mm\":[%.2f,%.2f,%.2f],\"center_ijk\":[%d,%d,%d],", index ? "," : "",
            index + 1, lps[0], lps[1], lps[2], nodule->i, nodule->j, nodule->k);
    web_put(text, "\"diameter_mm\":%.1f,\"long_axis_mm\":%.1f,\"short_axis_mm\":%.1f,\"volume_mm3\":%.1f,",
            2 * nodule->radius_mm, 2.2 * nodule->radius_mm, 1.8 * nodule->radius_mm,
            4.18879 * pow(nodule->radius_mm, 3));
    web_put(text, "\"texture\":\"%s\",\"lobe\":\"%s\",\"probability\":%.2f,\"probability_low\":%.2f,", nodule->texture,
            nodule->lobe, nodule->probability, nodule->low);
    web_put(text, "\"probability_high\":%.2f,\"reported\":%s,\"review\":%s,\"sentence\":\"%s\"}", nodule->high,
            nodule->reported ? "true" : "false", nodule->review ? "true" : "false", nodule->sentence);
}

static inline struct web_text web_analysis_json(const char *study_uid, const char *status, const char *reason,
                                                size_t findings) {
    struct web_text text = web_text_new(8192);
    web_put(&text, "{\"pulmo\":\"" PULMO_VERSION "\",\"study_uid\":\"%s\",\"status\":\"%s\",", study_uid, status);
    if (*reason)
        web_put(&text, "\"reasons\":[\"%s\"],", reason);
    else
        web_put(&text, "\"reasons\":[],");
    web_put(&text, "\"quality\":{\"slices\":%d},\"model\":{\"name\":\"test\",\"version\":\"1\"},", SLICES);
    web_put(&text, "\"operating_point\":0.5,\"findings\":[");
    for (size_t index = 0; index < findings; index++)
        web_put_finding(&text, index);
    web_put(&text, "]}");
    return text;
}

/* Circles as the contours of the reported findings, on every slice that they cross. */
static inline struct web_text web_contours_json(void) {
    struct web_text text = web_text_new(1 << 16);
    web_put(&text, "{\"findings\":[");
    for (size_t index = 0; index < 3; index++) {
        const struct web_nodule *nodule = &web_nodules[index];
        web_put(&text, "%s{\"id\":%zu,\"slices\":[", index ? "," : "", index + 1);
        bool first = true;
        for (int k = 0; k < SLICES; k++) {
            double height = abs(k - nodule->k) * SLICE_MM;
            if (height >= nodule->radius_mm)
                continue;
            double radius = sqrt(nodule->radius_mm * nodule->radius_mm - height * height) / SPACING_MM;
            web_put(&text, "%s{\"k\":%d,\"paths\":[[", first ? "" : ",", k);
            for (int step = 0; step < 24; step++)
                web_put(&text, "%s[%.2f,%.2f]", step ? "," : "", nodule->i + radius * cos(step * 0.2617994),
                        nodule->j + radius * sin(step * 0.2617994));
            web_put(&text, "]]}");
            first = false;
        }
        web_put(&text, "]}");
    }
    web_put(&text, "]}");
    return text;
}

static inline uint32_t web_crc(uint32_t crc, const uint8_t *data, size_t size) {
    crc = ~crc;
    for (size_t index = 0; index < size; index++) {
        crc ^= data[index];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320U : 0);
    }
    return ~crc;
}

static inline void web_put_u32(struct web_text *text, uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8)
        text->data[text->size++] = (char)(value >> shift & 0xFF);
}

static inline void web_put_chunk(struct web_text *png, const char *type, const uint8_t *data, size_t size) {
    web_put_u32(png, (uint32_t)size);
    size_t start = png->size;
    memcpy(png->data + png->size, type, 4);
    if (size)
        memcpy(png->data + png->size + 4, data, size);
    png->size += 4 + size;
    web_put_u32(png, web_crc(0, (const uint8_t *)png->data + start, 4 + size));
}

/* The scan lines in stored (uncompressed) blocks, one a row: RFC 1950, RFC 1951 3.2.4. */
static inline struct web_text web_zlib(const uint8_t *rgba) {
    const size_t line = 1 + 4 * COLUMNS;
    struct web_text stream = web_text_new(ROWS * (line + 5) + 64);
    uint32_t a = 1, b = 0;
    stream.data[stream.size++] = 0x78;
    stream.data[stream.size++] = 0x01;
    for (size_t row = 0; row < ROWS; row++) {
        uint8_t *out = (uint8_t *)stream.data + stream.size;
        out[0] = row + 1 == ROWS;
        out[1] = (uint8_t)(line & 0xFF), out[2] = (uint8_t)(line >> 8);
        out[3] = (uint8_t)~out[1], out[4] = (uint8_t)~out[2];
        out[5] = 0; /* filter: none */
        memcpy(out + 6, rgba + row * 4 * COLUMNS, 4 * COLUMNS);
        for (size_t index = 0; index < line; index++)
            a = (a + out[5 + index]) % 65521, b = (b + a) % 65521;
        stream.size += line + 5;
    }
    web_put_u32(&stream, b << 16 | a);
    return stream;
}

/* Heat around the findings on slice k: orange, its alpha falling with the distance. */
static inline struct web_text web_overlay_png(int k) {
    uint8_t *rgba = calloc((size_t)COLUMNS * ROWS, 4);
    assert_non_null(rgba);
    for (int j = 0, n = 0; j < ROWS; j++)
        for (int i = 0; i < COLUMNS; i++, n++)
            for (size_t index = 0; index < 3; index++) {
                double heat = 1 - web_distance_mm(&web_nodules[index], i, j, k) / (web_nodules[index].radius_mm * 2.5);
                if (heat <= 0)
                    continue;
                const uint8_t pixel[4] = {251, (uint8_t)(80 + 140 * heat), 20, (uint8_t)(255 * heat)};
                memcpy(rgba + 4 * n, pixel, 4);
            }
    struct web_text stream = web_zlib(rgba), png = web_text_new(stream.size + 256);
    static const uint8_t head[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    const uint8_t header[13] = {0, 0, 0, COLUMNS, 0, 0, 0, ROWS, 8, 6, 0, 0, 0};
    memcpy(png.data, head, sizeof head);
    png.size = sizeof head;
    web_put_chunk(&png, "IHDR", header, sizeof header);
    web_put_chunk(&png, "IDAT", (const uint8_t *)stream.data, stream.size);
    web_put_chunk(&png, "IEND", NULL, 0);
    free(stream.data);
    free(rgba);
    return png;
}

/* ---- studies ----------------------------------------------------------------------------------------- */

static inline void web_receive_instance(struct web_fixture *fixture, const char *study_uid, int number,
                                        const char *name, const char *id) {
    struct err err = {0};
    struct instance instance = {.sop_class_uid = "1.2.840.10008.5.1.4.1.1.2",
                                .series_uid = SERIES,
                                .transfer_syntax_uid = "1.2.840.10008.1.2.1",
                                .calling_aet = "PACS",
                                .called_aet = "PULMO",
                                .peer_address = "192.0.2.7",
                                .study_date = "20260314",
                                .study_description = "CT chest",
                                .modality = "CT",
                                .part10 = (const uint8_t *)study_uid,
                                .part10_size = strlen(study_uid)};
    snprintf(instance.study_uid, sizeof instance.study_uid, "%s", study_uid);
    snprintf(instance.sop_instance_uid, sizeof instance.sop_instance_uid, "%s.%d", study_uid, number);
    snprintf(instance.patient_name, sizeof instance.patient_name, "%s", name);
    snprintf(instance.patient_id, sizeof instance.patient_id, "%s", id);
    snprintf(instance.accession_number, sizeof instance.accession_number, "A-%s", id);
    assert_good(store_instance_put(fixture->store, &instance, &err));
}

static inline void web_receive(struct web_fixture *fixture, const char *study_uid, const char *name, const char *id) {
    web_receive_instance(fixture, study_uid, 1, name, id);
}

static inline struct store_job web_take(struct web_fixture *fixture, enum store_job_kind kind) {
    struct err err = {0};
    struct store_job job = {0};
    assert_good(store_job_take(fixture->store, 1U << kind, pulmo_now_ms() + 1000, &job, &err));
    assert_true(job.id != 0);
    return job;
}

static inline void web_decode(struct web_fixture *fixture, const char *study_uid) {
    struct err err = {0};
    struct store_job job = web_take(fixture, STORE_JOB_DECODE);
    assert_string_equal(job.study_uid, study_uid);
    int16_t *slices = web_slices();
    const struct store_artifact artifacts[] = {
        {.name = "series.json",
         .media_type = "application/json",
         .data = web_series_json,
         .size = sizeof web_series_json - 1},
        {.name = "slices.i16",
         .media_type = "application/octet-stream",
         .data = slices,
         .size = (size_t)COLUMNS * ROWS * SLICES * sizeof *slices},
    };
    assert_good(store_decode_finish(fixture->store, &job, artifacts, 2, &err));
    free(slices);
}

/* Finishes the analysis that is due; findings > 0 with overlays and contours. Returns the result. */
static inline int64_t web_analyse(struct web_fixture *fixture, const char *study_uid, enum store_status status,
                                  const char *reason, size_t findings) {
    struct err err = {0};
    struct store_job job = web_take(fixture, STORE_JOB_ANALYSE);
    assert_string_equal(job.study_uid, study_uid);
    struct web_text texts[SLICES + 3];
    struct store_artifact artifacts[SLICES + 3];
    char names[SLICES][64];
    size_t count = 0;
    const char *status_name = status == STORE_ANALYSED ? "analysed" : "refused";
    texts[count] = web_analysis_json(study_uid, status_name, reason, findings);
    artifacts[count] = (struct store_artifact){.name = "analysis.json", .media_type = "application/json"};
    count++;
    texts[count] = findings ? web_contours_json() : web_text_new(32);
    if (!findings)
        web_put(&texts[count], "{\"findings\":[]}");
    artifacts[count++] = (struct store_artifact){.name = "contours.json", .media_type = "application/json"};
    texts[count] = web_text_new(256);
    struct web_text *overlays = &texts[count];
    artifacts[count++] = (struct store_artifact){.name = "overlays.json", .media_type = "application/json"};
    web_put(overlays, "{\"attention\":[");
    for (int k = 4; findings && k <= 18; k++) {
        web_put(overlays, "%s%d", k > 4 ? "," : "", k);
        snprintf(names[k], sizeof names[k], "overlay/attention/%d.png", k);
        texts[count] = web_overlay_png(k);
        artifacts[count++] = (struct store_artifact){.name = names[k], .media_type = "image/png"};
    }
    web_put(overlays, "],\"cam\":[]}");
    for (size_t index = 0; index < count; index++)
        artifacts[index].data = texts[index].data, artifacts[index].size = texts[index].size;
    const struct store_report report = {
        .status = status,
        .series_uid = SERIES,
        .reason = reason,
        .summary_json = texts[0].data,
        .model_sha256 = "0000000000000000000000000000000000000000000000000000000000000001",
        .backend = "cpu test",
        .findings_reported = findings ? 3 : 0,
        .probability_max = findings ? web_nodules[0].probability : 0,
        .review = findings > 0,
        .artifacts = artifacts,
        .artifact_count = count,
    };
    int64_t result = 0;
    assert_good(store_job_finish(fixture->store, &job, &report, &result, &err));
    for (size_t index = 0; index < count; index++)
        free(texts[index].data);
    return result;
}

static inline void web_fail(struct web_fixture *fixture) {
    struct err err = {0}, why = {0};
    struct store_job job = web_take(fixture, STORE_JOB_ANALYSE), decoding = web_take(fixture, STORE_JOB_DECODE);
    err_set(&why, ERR_INPUT, "slice 31 ends after 1,024 of 524,288 bytes");
    assert_good(store_job_fail(fixture->store, &job, &why, &err));
    assert_good(store_job_fail(fixture->store, &decoding, &why, &err));
}

static inline void web_fill(struct web_fixture *fixture) {
    web_receive(fixture, STUDY_FOUND, "Example^Anna", "1001");
    fixture->result_found = web_analyse(fixture, STUDY_FOUND, STORE_ANALYSED, "", WEB_NODULES);
    web_decode(fixture, STUDY_FOUND);
    web_receive(fixture, STUDY_NEGATIVE, "Sample^Bruno", "1002");
    fixture->result_negative = web_analyse(fixture, STUDY_NEGATIVE, STORE_ANALYSED, "", 0);
    web_decode(fixture, STUDY_NEGATIVE);
    web_receive(fixture, STUDY_REFUSED, "Muster^Carla", "1003");
    fixture->result_refused =
        web_analyse(fixture, STUDY_REFUSED, STORE_REFUSED,
                    "NOT_A_CHEST: the images show 0 ml of lung; at least 800 ml must be in view", 0);
    web_decode(fixture, STUDY_REFUSED);
    web_receive(fixture, STUDY_FAILED, "Modell^Dora", "1004");
    web_fail(fixture);
    web_receive(fixture, STUDY_ARRIVING, "Beispiel^Emil", "1005");
}

/* A late slice of the study without findings: a new result supersedes the first. Returns it. */
static inline int64_t web_supersede(struct web_fixture *fixture) {
    web_receive_instance(fixture, STUDY_NEGATIVE, 2, "Sample^Bruno", "1002");
    int64_t result = web_analyse(fixture, STUDY_NEGATIVE, STORE_ANALYSED, "", WEB_NODULES);
    web_decode(fixture, STUDY_NEGATIVE);
    return result;
}

/* What was arriving is complete, decoded and analysed. */
static inline void web_arrive(struct web_fixture *fixture) {
    web_decode(fixture, STUDY_ARRIVING);
    web_analyse(fixture, STUDY_ARRIVING, STORE_ANALYSED, "", WEB_NODULES);
}

static inline void web_add_users(struct web_fixture *fixture) {
    struct err err = {0};
    assert_good(store_user_add(fixture->store, READER, "Dr. R. Reader", "radiologist", PASSWORD, &err));
    assert_good(store_user_add(fixture->store, VIEWER, "V. Viewer", "viewer", PASSWORD, &err));
    assert_good(store_user_add(fixture->store, ADMINISTRATOR, "A. Admin", "administrator", PASSWORD, &err));
    assert_good(store_user_add(fixture->store, AUDITOR, "A. Auditor", "auditor", PASSWORD, &err));
}

/* ---- folder and server ------------------------------------------------------------------------------- */

static inline void web_write_viewer(struct web_fixture *fixture) {
    struct err err = {0};
    char path[256];
    static const char page[] = "<!doctype html><title>Pulmo</title>", script[] = "\"use strict\";";
    snprintf(path, sizeof path, "%s/index.html", fixture->viewer);
    assert_good(bytes_write_file(path, page, sizeof page - 1, false, &err));
    snprintf(path, sizeof path, "%s/viewer.js", fixture->viewer);
    assert_good(bytes_write_file(path, script, sizeof script - 1, false, &err));
    snprintf(path, sizeof path, "%s/secret.unknown", fixture->viewer);
    assert_good(bytes_write_file(path, script, sizeof script - 1, false, &err));
}

/* viewer: NULL for a stand-in. */
static inline void web_open(struct web_fixture *fixture, const char *viewer) {
    struct err err = {0};
    snprintf(fixture->folder, sizeof fixture->folder, "/tmp/pulmo-web-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    snprintf(fixture->data, sizeof fixture->data, "%s/data", fixture->folder);
    snprintf(fixture->viewer, sizeof fixture->viewer, "%s", fixture->folder);
    snprintf(fixture->certificate, sizeof fixture->certificate, "%s/certificate.pem", fixture->folder);
    snprintf(fixture->key, sizeof fixture->key, "%s/key.pem", fixture->folder);
    if (!viewer)
        web_write_viewer(fixture);
    fixture->store_config = (struct store_config){.folder = fixture->data,
                                                  .quiet_ms = 0,
                                                  .disk_reserve_bytes = 1 << 20,
                                                  .lease_ms = 60000,
                                                  .attempts_max = 1,
                                                  .password_memory_kib = 64};
    fixture->web_config = (struct web_config){.bind_address = "127.0.0.1",
                                              .certificate_file = fixture->certificate,
                                              .key_file = fixture->key,
                                              .viewer_folder = viewer ? viewer : fixture->viewer,
                                              .store = &fixture->store_config,
                                              .body_bytes_max = 32 << 10,
                                              .request_deadline_s = 20,
                                              .connections_max = 32};
    fixture->store = store_open(&fixture->store_config, &err);
    if (!fixture->store)
        fail_msg("%s", err.text);
    web_add_users(fixture);
    web_fill(fixture);
}

static inline void web_serve(struct web_fixture *fixture) {
    struct err err = {0};
    fixture->server = web_start(&fixture->web_config, &err);
    if (!fixture->server)
        fail_msg("%s", err.text);
}

static inline int web_remove(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status, (void)type, (void)walk;
    return remove(path);
}

static inline void web_close(struct web_fixture *fixture) {
    web_stop(fixture->server);
    store_close(fixture->store);
    nftw(fixture->folder, web_remove, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
