/* `pulmo bench ingest`: instances acknowledged a second by Pulmo and its peers, in one interleaved run, so that a busy
 * machine is as busy for all. The sender is DCMTK's storescu, which invents new UIDs for each study it sends. */
#include "app/bench.h"
#include "app/command.h"
#include "dicom/dicom.h"
#include "phantom/phantom.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_MAX 16
#define ASSOCIATIONS_MAX 16
#define ECHOES_MAX 4096
#define ECHO_PAUSE_MS 50

static const int associations[] = {1, 4, 16};
#define CASES (2 * (int)(sizeof associations / sizeof *associations)) /* with TCP_NODELAY, then without */

#define WARM_UP_CASE 4 /* 16 associations */

/* One measurement, and those of all rounds. */
struct figure {
    double rate_s, echo_p99_ms, echo_max_ms;
    size_t echoes, echoes_failed;
    int senders_failed; /* a peer's: it counts as if all had arrived. One of Pulmo's ends the run */
};
struct bench {
    char folder[2048], study[2100];
    int64_t slices, rounds;
    struct bench_server servers[BENCH_RECEIVERS];
    struct figure figures[ROUNDS_MAX][CASES][BENCH_RECEIVERS];
    struct bench_floor floors[ROUNDS_MAX];
    size_t instance_size;
};

static int associations_of(int which) {
    return associations[which / 2];
}

static bool nodelay_of(int which) {
    return which % 2 == 0;
}

/* Nagle's algorithm costs 40 ms an instance: a tenth of the study shows it as well. */
static int64_t slices_of(const struct bench *bench, int which) {
    return nodelay_of(which) ? bench->slices : (bench->slices + 9) / 10;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ---- C-ECHO beside the load -------------------------------------------------------------------------- */

struct echo {
    const struct bench_server *server;
    pthread_t thread;
    atomic_bool stops;
    double waits_ms[ECHOES_MAX];
    size_t count, failed;
};

/* A whole association each: connect, negotiate, C-ECHO, release. */
static void *run_echo(void *context) {
    struct echo *echo = context;
    const struct dicom_destination destination = {.host = "127.0.0.1",
                                                  .called_aet = echo->server->ae_title,
                                                  .calling_aet = "BENCH-ECHO",
                                                  .port = echo->server->port,
                                                  .timeout_s = 30};
    while (!atomic_load(&echo->stops) && echo->count < ECHOES_MAX) {
        struct err err = {0};
        double began_s = bench_wall_s();
        if (dicom_echo(&destination, &err))
            echo->waits_ms[echo->count++] = (bench_wall_s() - began_s) * 1000;
        else
            echo->failed++;
        nanosleep(&(struct timespec){.tv_nsec = ECHO_PAUSE_MS * 1000000L}, NULL);
    }
    return NULL;
}

static void echo_summarize(struct echo *echo, struct figure *out) {
    qsort(echo->waits_ms, echo->count, sizeof *echo->waits_ms, compare);
    out->echoes = echo->count;
    out->echoes_failed = echo->failed;
    if (!echo->count)
        return;
    out->echo_p99_ms = echo->waits_ms[(echo->count - 1) * 99 / 100];
    out->echo_max_ms = echo->waits_ms[echo->count - 1];
}

/* ---- one measurement --------------------------------------------------------------------------------- */

static bool sender_start(const struct bench *bench, const struct bench_server *server, int which, pid_t *out,
                         struct err *err) {
    char port[8], count[24], study[2200];
    snprintf(port, sizeof port, "%u", server->port);
    snprintf(count, sizeof count, "%lld", (long long)bench->slices);
    snprintf(study, sizeof study, "%s%s", bench->study, nodelay_of(which) ? "" : "-part");
    const char *const arguments[] = {"storescu", "-aet",      "BENCH", "-aec", server->ae_title,
                                     "+II",      "+IR",       count,   "+IS",  count,
                                     "+sd",      "127.0.0.1", port,    study,  NULL};
    const struct bench_run run = {arguments, NULL, nodelay_of(which)};
    return bench_spawn(&run, out, err);
}

static bool senders_run(const struct bench *bench, const struct bench_server *server, int which, struct figure *out,
                        struct err *err) {
    pid_t senders[ASSOCIATIONS_MAX];
    int started = 0, failed = 0;
    double began_s = bench_wall_s();
    while (started < associations_of(which) && sender_start(bench, server, which, &senders[started], err))
        started++;
    for (int index = 0; index < started; index++)
        failed += bench_wait(senders[index]) != 0;
    if (started < associations_of(which))
        return false;
    out->rate_s = (double)(slices_of(bench, which) * started) / (bench_wall_s() - began_s);
    out->senders_failed = failed;
    return true;
}

/* What failed at a peer is said and counted; the run goes on, so that a peer cannot take everybody's figures with it.
 */
static bool failures_judge(const struct bench *bench, const struct bench_server *server, int which,
                           const struct figure *figure, struct err *err) {
    if (!figure->senders_failed && !figure->echoes_failed)
        return true;
    struct err said = {0};
    (void)err_set(&said, ERR_NETWORK, "%d of %d senders and %zu C-ECHO to %s failed", figure->senders_failed,
                  associations_of(which), figure->echoes_failed, server->name);
    if (server == &bench->servers[BENCH_PULMO]) {
        *err = said;
        return false;
    }
    fprintf(stderr, "%s\n", said.text);
    return true;
}

static bool measure(const struct bench *bench, const struct bench_server *server, int which, struct figure *out,
                    struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct echo *echo = pulmo_alloc(1, sizeof *echo, err);
    if (!echo)
        return false;
    echo->server = server;
    bench_disk_rest(bench->folder);
    if (pthread_create(&echo->thread, NULL, run_echo, echo) != 0)
        return err_set(err, ERR_MEMORY, "no thread for C-ECHO");
    bool good = senders_run(bench, server, which, out, err);
    atomic_store(&echo->stops, true);
    pthread_join(echo->thread, NULL);
    echo_summarize(echo, out);
    return good && failures_judge(bench, server, which, out, err);
}

/* One load that does not count: databases, journals and caches of all receivers are then as they are in use. */
static bool warm_up(const struct bench *bench, struct err *err) {
    for (int receiver = 0; receiver < BENCH_RECEIVERS; receiver++) {
        struct figure ignored = {0};
        if (bench->servers[receiver].process && !measure(bench, &bench->servers[receiver], WARM_UP_CASE, &ignored, err))
            return false;
    }
    return true;
}

/* Each round begins with another receiver, so that none always comes after a certain other. */
static bool round_run(struct bench *bench, int64_t round, struct err *err) {
    if (!bench_floor_measure(bench->folder, bench->instance_size, &bench->floors[round], err))
        return false;
    for (int which = 0; which < CASES; which++)
        for (int turn = 0; turn < BENCH_RECEIVERS; turn++) {
            int receiver = (int)((turn + which + round) % BENCH_RECEIVERS);
            if (bench->servers[receiver].process &&
                !measure(bench, &bench->servers[receiver], which, &bench->figures[round][which][receiver], err))
                return false;
        }
    fprintf(stderr, "round %lld of %lld done\n", (long long)round + 1, (long long)bench->rounds);
    return true;
}

/* ---- preparation ------------------------------------------------------------------------------------- */

/* A part of the study as links, for the slow cases. */
static bool part_link(const struct bench *bench, struct err *err) {
    PULMO_SCOPED(file_list_free) struct file_list files = {0};
    char folder[2200], link_path[4300];
    const char *const study[] = {bench->study};
    snprintf(folder, sizeof folder, "%s-part", bench->study);
    if (mkdir(folder, 0750) != 0 || !file_list_make(study, 1, &files, err))
        return err_set(err, ERR_IO, "cannot make %s: %s", folder, strerror(errno));
    for (size_t index = 0; index < files.count && index < (size_t)(bench->slices + 9) / 10; index++) {
        snprintf(link_path, sizeof link_path, "%s%s", folder, strrchr(files.items[index], '/'));
        if (link(files.items[index], link_path) != 0)
            return err_set(err, ERR_IO, "cannot link %s: %s", link_path, strerror(errno));
    }
    struct stat status;
    return stat(files.items[0], &status) == 0 || err_set(err, ERR_IO, "cannot read %s", files.items[0]);
}

static bool study_make(struct bench *bench, struct err *err) {
    PULMO_SCOPED(phantom_free) struct phantom phantom = {0};
    const struct phantom_config config = {.seed = 1, .slices = (int32_t)bench->slices, .nodules = 1, .spacing_mm = 1.0};
    const struct dicom_ct_write_config write = {.folder = bench->study,
                                                .transfer_syntax = "explicit",
                                                .patient_name = "PHANTOM^PULMO",
                                                .patient_id = "PULMO-PHANTOM",
                                                .study_description = "Benchmark",
                                                .series_description = "Synthetic chest",
                                                .seed = 1};
    bench->instance_size = (size_t)512 * 512 * 2;
    if (mkdir(bench->study, 0750) != 0)
        return err_set(err, ERR_IO, "cannot make %s: %s", bench->study, strerror(errno));
    return phantom_make(&config, &phantom, err) && dicom_ct_write(phantom.volume, &write, err) && part_link(bench, err);
}

static void bench_end_at(struct bench **bench) {
    for (int index = 0; *bench && index < BENCH_RECEIVERS; index++)
        bench_server_stop(&(*bench)->servers[index]);
    if (*bench)
        bench_folder_remove((*bench)->folder);
    free(*bench);
}

static bool bench_run_all(struct bench *bench, const char *folder, struct err *err) {
    snprintf(bench->folder, sizeof bench->folder, "%s/pulmo-bench-XXXXXX", folder);
    if (!mkdtemp(bench->folder)) {
        bench->folder[0] = '\0';
        return err_set(err, ERR_IO, "cannot make a folder in %s: %s", folder, strerror(errno));
    }
    snprintf(bench->study, sizeof bench->study, "%s/study", bench->folder);
    if (!study_make(bench, err))
        return false;
    for (int index = 0; index < BENCH_RECEIVERS; index++) {
        if (!bench_server_start((enum bench_receiver)index, bench->folder, &bench->servers[index], err))
            return false;
        if (!bench->servers[index].process)
            fprintf(stderr, "%s is not installed: skipped\n", bench->servers[index].name);
    }
    bool good = warm_up(bench, err);
    for (int64_t round = 0; good && round < bench->rounds; round++)
        good = round_run(bench, round, err);
    return good;
}

/* ---- what came out ----------------------------------------------------------------------------------- */

static double rate_median(const struct bench *bench, int which, int receiver) {
    double rates[ROUNDS_MAX];
    for (int64_t round = 0; round < bench->rounds; round++)
        rates[round] = bench->figures[round][which][receiver].rate_s;
    return bench_median(rates, (size_t)bench->rounds);
}

/* Pulmo's rate against another figure of the same round. */
static double ratio_median(const struct bench *bench, int which, int receiver) {
    double ratios[ROUNDS_MAX];
    for (int64_t round = 0; round < bench->rounds; round++) {
        const struct figure *figures = bench->figures[round][which];
        ratios[round] = figures[receiver].rate_s > 0 ? figures[BENCH_PULMO].rate_s / figures[receiver].rate_s : 0;
    }
    return bench_median(ratios, (size_t)bench->rounds);
}

static double floor_ratio_median(const struct bench *bench, int which, bool segment) {
    double ratios[ROUNDS_MAX];
    for (int64_t round = 0; round < bench->rounds; round++)
        ratios[round] = bench->figures[round][which][BENCH_PULMO].rate_s /
                        (segment ? bench->floors[round].segment_s : bench->floors[round].files_s);
    return bench_median(ratios, (size_t)bench->rounds);
}

/* The worst round's. */
static double echo_p99_ms(const struct bench *bench, int which, int receiver) {
    double worst_ms = 0;
    for (int64_t round = 0; round < bench->rounds; round++)
        if (bench->figures[round][which][receiver].echo_p99_ms > worst_ms)
            worst_ms = bench->figures[round][which][receiver].echo_p99_ms;
    return worst_ms;
}

static double floor_median(const struct bench *bench, bool segment) {
    double rates[ROUNDS_MAX];
    for (int64_t round = 0; round < bench->rounds; round++)
        rates[round] = segment ? bench->floors[round].segment_s : bench->floors[round].files_s;
    return bench_median(rates, (size_t)bench->rounds);
}

static void print_table(const struct bench *bench) {
    printf("ingest of CT slices of 512 KiB, %lld a study, a study an association; medians of %lld rounds\n",
           (long long)bench->slices, (long long)bench->rounds);
    printf("one thread's floor of this disk: file and folder synced %.0f/s, preallocated segment synced %.0f/s\n\n",
           floor_median(bench, false), floor_median(bench, true));
    printf(
        "associations  TCP_NODELAY     Pulmo   Orthanc  storescp   of Orthanc  of storescp  of file floor  of segment"
        " floor  C-ECHO p99, ms: Pulmo  Orthanc\n");
    for (int which = 0; which < CASES; which++)
        printf("%12d  %11s  %6.0f/s  %6.0f/s  %6.0f/s  %9.2fx  %10.2fx  %12.0f%%  %15.0f%%  %21.1f  %7.1f\n",
               associations_of(which), nodelay_of(which) ? "on" : "off", rate_median(bench, which, BENCH_PULMO),
               rate_median(bench, which, BENCH_ORTHANC), rate_median(bench, which, BENCH_STORESCP),
               ratio_median(bench, which, BENCH_ORTHANC), ratio_median(bench, which, BENCH_STORESCP),
               100 * floor_ratio_median(bench, which, false), 100 * floor_ratio_median(bench, which, true),
               echo_p99_ms(bench, which, BENCH_PULMO), echo_p99_ms(bench, which, BENCH_ORTHANC));
}

static void print_receiver(const struct bench *bench, int64_t round, int which, int receiver) {
    const struct figure *figure = &bench->figures[round][which][receiver];
    printf("%s\n    {\"round\": %lld, \"receiver\": \"%s\", \"associations\": %d, \"nodelay\": %s,"
           " \"instances_per_s\": %.1f, \"echo_p99_ms\": %.2f, \"echo_max_ms\": %.2f, \"echoes\": %zu,"
           " \"senders_failed\": %d, \"echoes_failed\": %zu}",
           round + which + receiver ? "," : "", (long long)round, bench->servers[receiver].name, associations_of(which),
           nodelay_of(which) ? "true" : "false", figure->rate_s, figure->echo_p99_ms, figure->echo_max_ms,
           figure->echoes, figure->senders_failed, figure->echoes_failed);
}

static void print_json(const struct bench *bench) {
    printf(
        "{\"pulmo\": \"%s\", \"bench\": \"ingest\", \"slices\": %lld, \"rounds\": %lld,\n \"floor_files_per_s\": %.1f,"
        " \"floor_segment_per_s\": %.1f,\n \"figures\": [",
        PULMO_VERSION, (long long)bench->slices, (long long)bench->rounds, floor_median(bench, false),
        floor_median(bench, true));
    for (int64_t round = 0; round < bench->rounds; round++)
        for (int which = 0; which < CASES; which++)
            for (int receiver = 0; receiver < BENCH_RECEIVERS; receiver++)
                if (bench->servers[receiver].process)
                    print_receiver(bench, round, which, receiver);
    printf("],\n \"ratios\": [");
    for (int which = 0; which < CASES; which++)
        printf("%s\n    {\"associations\": %d, \"nodelay\": %s, \"of_orthanc\": %.3f, \"of_storescp\": %.3f,"
               " \"of_file_floor\": %.3f, \"of_segment_floor\": %.3f}",
               which ? "," : "", associations_of(which), nodelay_of(which) ? "true" : "false",
               ratio_median(bench, which, BENCH_ORTHANC), ratio_median(bench, which, BENCH_STORESCP),
               floor_ratio_median(bench, which, false), floor_ratio_median(bench, which, true));
    printf("]}\n");
}

static int run(int argc, char **argv) {
    const char *slices = "300", *rounds = "1", *folder = "/var/tmp";
    bool json = false;
    const struct command_option options[] = {
        {"--slices", &slices, NULL}, {"--rounds", &rounds, NULL}, {"--folder", &folder, NULL}, {"--json", NULL, &json}};
    struct err err = {0};
    PULMO_SCOPED(bench_end_at) struct bench *bench = pulmo_alloc(1, sizeof *bench, &err);
    if (!bench)
        return command_fail(&bench_ingest, &err);
    if (command_options(argc, argv, options, 4) != 0 || strlen(folder) > 1024 ||
        !command_integer(slices, 20, 1000, &bench->slices) || !command_integer(rounds, 1, ROUNDS_MAX, &bench->rounds))
        return command_usage(&bench_ingest);
    if (!bench_run_all(bench, folder, &err))
        return command_fail(&bench_ingest, &err);
    if (json)
        print_json(bench);
    else
        print_table(bench);
    return EXIT_DONE;
}

const struct command bench_ingest = {"ingest", "bench ingest [--slices N] [--rounds N] [--folder DIR] [--json]",
                                     "instances a second beside Orthanc and storescp, and the floor of the disk", run};
