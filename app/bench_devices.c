/* `pulmo bench devices`: a queue of studies on one device of one thread, on two that share each study, and on two that
 * hold a stage each; in one interleaved run. The studies are one phantom: the work is what is measured. */
#include "app/analysis.h"
#include "app/bench.h"
#include "phantom/phantom.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { ONE = 0, SHARED, STAGES, WAYS };
static const char *const names[WAYS] = {"one device", "two devices, tiles shared", "two devices, a stage each"};

struct devices {
    int64_t studies, rounds;
    struct engine engines[2]; /* of one device, of two */
    struct phantom phantom;
    struct analysis image;
    int64_t ms[WAYS]; /* the best round */
};

static void devices_end_at(struct devices **pointer) {
    struct devices *bench = *pointer;
    if (!bench)
        return;
    for (int index = 0; index < 2; index++)
        engine_close(&bench->engines[index]);
    phantom_free(&bench->phantom);
    analysis_free(&bench->image);
    free(bench);
}

static bool begin(struct devices *bench, struct err *err) {
    struct config config;
    const struct phantom_config phantom = {.seed = 1, .nodules = 5};
    for (int index = 0; index < 2; index++) {
        config_defaults(&config);
        config.devices = config.threads = index + 1;
        if (!config_set(&config, "backend", "cpu", err) || !engine_open(&config, &bench->engines[index], err))
            return false;
    }
    return phantom_make(&phantom, &bench->phantom, err) &&
           analysis_judge_volume(&bench->engines[0], bench->phantom.volume, &bench->image, err);
}

struct second { /* stage 2 of one study */
    struct infer_session *session;
    const struct volume *iso;
    struct findings findings;
    struct err err;
    bool good;
};

static void *second_run(void *pointer) {
    struct second *second = pointer;
    const struct infer_candidate_config config = {.seed = 1, .pass_count = 30, .dropout = -1};
    struct infer_candidate_result *results = pulmo_alloc(second->findings.count, sizeof *results, &second->err);
    second->good =
        results && infer_candidates(second->session, second->iso, &second->findings, &config, results, &second->err);
    free(results);
    return NULL;
}

static bool second_end(struct second *second, pthread_t thread, bool apart, struct err *err) {
    if (apart)
        pthread_join(thread, NULL);
    findings_free(&second->findings);
    return second->good || err_set(err, second->err.kind, "%s", second->err.text);
}

/* apart: stage 2 of a study runs beside stage 1 of the next. */
static bool queue_run(const struct devices *bench, struct infer_session *session, bool apart, struct err *err) {
    struct second second[2] = {{0}};
    pthread_t thread = 0;
    bool under_way = false, good = true;
    for (int64_t study = 0; good && study < bench->studies; study++) {
        struct second *now = &second[study % 2];
        *now = (struct second){.session = session, .iso = bench->image.iso};
        good = infer_detect(session, bench->image.iso, bench->image.lungs, &now->findings, err);
        if (under_way)
            good = second_end(&second[(study + 1) % 2], thread, apart, err) && good;
        under_way = good && (!apart || pthread_create(&thread, NULL, second_run, now) == 0);
        if (under_way && !apart)
            second_run(now);
        else if (!under_way)
            findings_free(&now->findings);
        if (good && !under_way)
            return err_set(err, ERR_MEMORY, "cannot start a thread");
    }
    return under_way ? second_end(&second[(bench->studies + 1) % 2], thread, apart, err) && good : good;
}

static bool measure(struct devices *bench, struct err *err) {
    for (int64_t round = 0; round < bench->rounds; round++)
        for (int way = 0; way < WAYS; way++) {
            struct infer_session *session = bench->engines[way != ONE].session;
            infer_session_place(session, INFER_PLACE_DETECT, way == STAGES ? 1U << 0 : 0);
            infer_session_place(session, INFER_PLACE_CANDIDATES, way == STAGES ? 1U << 1 : 0);
            int64_t start_ms = pulmo_monotonic_ms();
            if (!queue_run(bench, session, way == STAGES, err))
                return false;
            int64_t ms = pulmo_monotonic_ms() - start_ms;
            bench->ms[way] = round && bench->ms[way] < ms ? bench->ms[way] : ms;
        }
    return true;
}

static void print(const struct devices *bench, bool json) {
    for (int way = 0; way < WAYS; way++) {
        double ms = (double)(bench->ms[way] ? bench->ms[way] : 1), ratio = (double)bench->ms[ONE] / ms;
        double an_hour = 3600e3 * (double)bench->studies / ms;
        if (json)
            printf("%s{\"name\": \"%s\", \"ms\": %.0f, \"studies_an_hour\": %.0f, \"ratio\": %.3f}%s\n",
                   way ? " " : "[", names[way], ms, an_hour, ratio, way + 1 < WAYS ? "," : "]");
        else
            printf("%-28s %8.0f ms %8.0f studies an hour  %.2fx\n", names[way], ms, an_hour, ratio);
    }
}

static int run(int argc, char **argv) {
    const char *studies = "4", *rounds = "2";
    bool json = false;
    const struct command_option options[] = {
        {"--studies", &studies, NULL}, {"--rounds", &rounds, NULL}, {"--json", NULL, &json}};
    struct err err = {0};
    PULMO_SCOPED(devices_end_at) struct devices *bench = pulmo_alloc(1, sizeof *bench, &err);
    if (!bench)
        return command_fail(&bench_devices, &err);
    if (command_options(argc, argv, options, 3) != 0 || !command_integer(studies, 1, 1000, &bench->studies) ||
        !command_integer(rounds, 1, 100, &bench->rounds))
        return command_usage(&bench_devices);
    if (!begin(bench, &err) || !measure(bench, &err))
        return command_fail(&bench_devices, &err);
    print(bench, json);
    return EXIT_DONE;
}

const struct command bench_devices = {"devices", "bench devices [--studies N] [--rounds N] [--json]",
                                      "a queue of studies on one and on two devices", run};
