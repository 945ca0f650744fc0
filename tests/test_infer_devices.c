/* LABELS: full tsan
 * Several devices, as CPU sessions of one thread each: the same bytes for 1, 2, 3 and 5 of them, with one that fails in
 * the middle, and with the two stages on different devices, run as a pipeline over a queue of studies. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "infer/devices.h"
#include "infer/model.h"

#define MODEL "models/model.json"
#define CANDIDATES 5
#define DEVICES_MAX 5

/* ---- a lung with balls ------------------------------------------------------------------------------------------ */

struct scene {
    struct volume *volume;
    struct mask *lungs;
};

static struct scene scene_new(uint32_t noise) {
    struct grid grid = {.size_ijk = {220, 110, 110}, .spacing_mm = {1, 1, 1}};
    for (int axis = 0; axis < 3; axis++)
        grid.ijk_to_lps_mm[axis][axis] = 1;
    struct scene scene = {volume_new(&grid, NULL), mask_new(&grid, NULL)};
    assert_true(scene.volume && scene.lungs);
    for (size_t n = 0; n < grid_voxels(&grid); n++) {
        int x = (int)(n % 220) - 110, y = (int)(n / 220 % 110) - 55, z = (int)(n / 24200) - 55;
        bool lung = x * x / 4 + y * y + z * z < 52 * 52, ball = (x - 15) * (x - 15) + y * y + z * z < 36;
        noise = noise * 1664525 + 1013904223;
        scene.lungs->voxel[n] = lung;
        scene.volume->hu[n] = (int16_t)(ball ? 40 : lung ? -900 + (int)(noise >> 24) : -1024);
    }
    return scene;
}

static void scene_free(struct scene *scene) {
    volume_free(scene->volume);
    mask_free(scene->lungs);
}

/* ---- what a study gives ----------------------------------------------------------------------------------------- */

struct outcome {
    struct findings findings;
    struct infer_candidate_result candidates[CANDIDATES];
};

static bool candidates_run(struct infer_session *session, const struct scene *scene, struct outcome *out,
                           struct err *err) {
    const struct infer_candidate_config passes = {.seed = 17, .pass_count = 10, .dropout = -1};
    struct finding items[CANDIDATES] = {{0}};
    for (int n = 0; n < CANDIDATES; n++)
        items[n].center_lps_mm[0] = items[n].center_lps_mm[1] = items[n].center_lps_mm[2] = 30 + 7 * n;
    const struct findings at = {.items = items, .count = CANDIDATES};
    return infer_candidates(session, scene->volume, &at, &passes, out->candidates, err);
}

static bool study_run(struct infer_session *session, const struct scene *scene, struct outcome *out, struct err *err) {
    return infer_detect(session, scene->volume, scene->lungs, &out->findings, err) &&
           candidates_run(session, scene, out, err);
}

static void outcome_equal(const struct outcome *got, const struct outcome *want) {
    assert_true(want->findings.count > 0);
    assert_int_equal(got->findings.count, want->findings.count);
    assert_memory_equal(got->findings.items, want->findings.items, want->findings.count * sizeof(struct finding));
    assert_memory_equal(got->candidates, want->candidates, sizeof want->candidates);
}

/* ---- devices ------------------------------------------------------------------------------------------------------
 */

struct fixture {
    struct infer_model *model;
    struct scene scene;
    struct outcome want; /* of one device */
};

struct group {
    struct infer_session *sessions[DEVICES_MAX];
    unsigned count;
};

static struct group group_new(const struct fixture *fixture, unsigned count) {
    const struct infer_session_config config = {.threads = 1};
    struct group group = {.count = count};
    struct err err = {0};
    for (unsigned n = 0; n < count; n++) {
        group.sessions[n] = infer_session_new(fixture->model, &config, &err);
        if (!group.sessions[n] || (n && !infer_session_join(group.sessions[0], group.sessions[n], &err)))
            fail_msg("%s", err.text);
    }
    assert_int_equal(infer_session_devices(group.sessions[0]), count);
    return group;
}

static void group_free(struct group *group) {
    for (unsigned n = 0; n < group->count; n++)
        infer_session_free(group->sessions[n]);
}

static int fixture_new(void **state) {
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct err err = {0};
    assert_non_null(fixture);
    fixture->model = infer_model_open(MODEL, &err);
    if (!fixture->model)
        fail_msg("%s", err.text);
    fixture->model->inner_max = 56; /* 16 tiles, so that each device has some */
    fixture->scene = scene_new(5);
    struct group one = group_new(fixture, 1);
    if (!study_run(one.sessions[0], &fixture->scene, &fixture->want, &err))
        fail_msg("%s", err.text);
    group_free(&one);
    *state = fixture;
    return 0;
}

static int fixture_free(void **state) {
    struct fixture *fixture = *state;
    findings_free(&fixture->want.findings);
    scene_free(&fixture->scene);
    infer_model_free(fixture->model);
    free(fixture);
    return 0;
}

/* A device that does some runs and then none. */
struct breaking {
    atomic_int runs_left;
    enum err_kind kind;
};

static bool break_after(void *context, struct err *err) {
    struct breaking *breaking = context;
    if (atomic_fetch_sub(&breaking->runs_left, 1) > 0)
        return true;
    return err_set(err, breaking->kind, "the device fell off the bus");
}

static void check_group(struct fixture *fixture, unsigned count, int broken, int after) {
    struct group group = group_new(fixture, count);
    struct breaking breaking = {.runs_left = after, .kind = ERR_INTERNAL};
    struct outcome got = {0};
    struct err err = {0};
    if (broken >= 0)
        infer_devices_set_fault(group.sessions[broken], break_after, &breaking);
    if (!study_run(group.sessions[0], &fixture->scene, &got, &err))
        fail_msg("%u devices: %s", count, err.text);
    outcome_equal(&got, &fixture->want);
    struct infer_detect_figures figures;
    infer_session_detect_figures(group.sessions[0], &figures);
    assert_true(figures.tiles_run > 5 && figures.tiles_run <= figures.tiles);
    assert_true(figures.busy_ns > 0 && figures.busy_ns <= figures.wall_ns * figures.lanes);
    for (unsigned n = 0; n < count; n++) {
        const struct err *dropped = infer_session_dropped(group.sessions[0], n);
        bool must = (int)n == broken && after == 0; /* later ones depend on who took which tile */
        assert_true(!must || dropped);
        assert_true(!dropped || ((int)n == broken && strstr(dropped->text, "fell off the bus")));
    }
    findings_free(&got.findings);
    group_free(&group);
}

static void the_number_of_devices_does_not_change_a_byte(void **state) {
    static const unsigned counts[] = {2, 3, 5};
    for (size_t n = 0; n < sizeof counts / sizeof *counts; n++)
        check_group(*state, counts[n], -1, 0);
}

static void a_device_that_fails_is_dropped_and_its_work_done_again(void **state) {
    check_group(*state, 2, 0, 0); /* before its first tile: dropped for certain */
    check_group(*state, 2, 1, 2); /* after some tiles */
    check_group(*state, 3, 2, 1);
    check_group(*state, 5, 0, 1);
}

static void the_last_device_takes_the_study_with_it(void **state) {
    struct fixture *fixture = *state;
    struct group group = group_new(fixture, 2);
    struct breaking both[2] = {{.runs_left = 1, .kind = ERR_INTERNAL}, {.runs_left = 0, .kind = ERR_INTERNAL}};
    struct outcome got = {0};
    struct err err = {0};
    for (unsigned n = 0; n < 2; n++)
        infer_devices_set_fault(group.sessions[n], break_after, &both[n]);
    assert_false(study_run(group.sessions[0], &fixture->scene, &got, &err));
    assert_int_equal(err.kind, ERR_INTERNAL);
    assert_null(got.findings.items);
    group_free(&group);
}

/* Data that no device can take is no device's fault: nobody is dropped. */
static void bad_data_drops_nobody(void **state) {
    struct fixture *fixture = *state;
    struct group group = group_new(fixture, 2);
    struct breaking breaking = {.runs_left = 0, .kind = ERR_INPUT};
    struct outcome got = {0};
    struct err err = {0};
    for (unsigned n = 0; n < 2; n++)
        infer_devices_set_fault(group.sessions[n], break_after, &breaking);
    assert_false(study_run(group.sessions[0], &fixture->scene, &got, &err));
    assert_int_equal(err.kind, ERR_INPUT);
    assert_null(infer_session_dropped(group.sessions[0], 0));
    assert_null(infer_session_dropped(group.sessions[0], 1));
    group_free(&group);
}

/* ---- a pipeline ----------------------------------------------------------------------------------------------------
 */

#define QUEUE 2

struct second_stage {
    struct infer_session *session;
    const struct scene *scene;
    struct outcome *out;
    struct err err;
    bool good;
};

static void *second_run(void *pointer) {
    struct second_stage *stage = pointer;
    stage->good = candidates_run(stage->session, stage->scene, stage->out, &stage->err);
    return NULL;
}

/* Study n is in stage 2 on one device while study n + 1 is in stage 1 on the other. */
static void stages_on_different_devices_give_the_same_bytes(void **state) {
    struct fixture *fixture = *state;
    struct group group = group_new(fixture, 2);
    struct outcome got[QUEUE] = {{.findings = {0}}};
    struct second_stage second[QUEUE];
    pthread_t threads[QUEUE];
    infer_session_place(group.sessions[0], INFER_PLACE_DETECT, 1U << 0);
    infer_session_place(group.sessions[0], INFER_PLACE_CANDIDATES, 1U << 1);
    for (int n = 0; n < QUEUE; n++) {
        struct err err = {0};
        if (!infer_detect(group.sessions[0], fixture->scene.volume, fixture->scene.lungs, &got[n].findings, &err))
            fail_msg("%s", err.text);
        if (n)
            assert_int_equal(pthread_join(threads[n - 1], NULL), 0);
        second[n] = (struct second_stage){.session = group.sessions[0], .scene = &fixture->scene, .out = &got[n]};
        assert_int_equal(pthread_create(&threads[n], NULL, second_run, &second[n]), 0);
    }
    assert_int_equal(pthread_join(threads[QUEUE - 1], NULL), 0);
    for (int n = 0; n < QUEUE; n++) {
        assert_true(second[n].good);
        outcome_equal(&got[n], &fixture->want);
        findings_free(&got[n].findings);
    }
    group_free(&group);
}

static void who_may_not_join_is_told(void **state) {
    struct fixture *fixture = *state;
    struct group group = group_new(fixture, 2);
    struct err err = {0};
    assert_false(infer_session_join(group.sessions[0], group.sessions[0], &err));
    assert_int_equal(err.kind, ERR_CONFLICT);
    assert_false(infer_session_join(group.sessions[1], group.sessions[0], &err)); /* it has devices of its own */
    assert_int_equal(err.kind, ERR_CONFLICT);
    group_free(&group);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_number_of_devices_does_not_change_a_byte),
        cmocka_unit_test(a_device_that_fails_is_dropped_and_its_work_done_again),
        cmocka_unit_test(the_last_device_takes_the_study_with_it),
        cmocka_unit_test(bad_data_drops_nobody),
        cmocka_unit_test(stages_on_different_devices_give_the_same_bytes),
        cmocka_unit_test(who_may_not_join_is_told),
    };
    return cmocka_run_group_tests(tests, fixture_new, fixture_free);
}
