#include "app/analysis.h"
#include "app/doctor.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* As a worker would open it, without touching the store. */
static bool model_open(const struct doctor *doctor, struct engine *out, struct err *err) {
    const struct config *config = &doctor->config;
    const char *active = doctor->store.active_model;
    PULMO_SCOPED(model_files_free) struct model_files files = {.count = 0};
    if (!*active)
        return engine_open(config, out, err);
    return store_inspect_model(config->data_folder, active, &files, err) && engine_open_files(config, &files, out, err);
}

void doctor_model(struct doctor *doctor) {
    const struct store_inspection *store = &doctor->store;
    struct engine engine;
    struct err err = {0};
    if (!model_open(doctor, &engine, &err)) {
        doctor_say(doctor, DOCTOR_FAILED, "%s; %s", err.text,
                   *store->active_model ? "pulmo model install its model.json again, or pulmo model rollback"
                                        : "install the model again");
        return;
    }
    const struct infer_model_info *info = infer_model_info(engine.model);
    bool stands_in = infer_backend_stands_in(engine.session);
    doctor_say(doctor, stands_in ? DOCTOR_WARNING : DOCTOR_OK,
               "%s %s, %s, digests right (sha256 %.16s...), %s%s%s; %lld installed", info->name, info->version,
               *store->active_model ? "promoted" : "of the configuration", info->sha256,
               infer_backend_detail(engine.session), stands_in ? "; no card: " : "",
               stands_in ? infer_backend_reason(engine.session) : "", (long long)store->models);
    engine_close(&engine);
}

/* In a process of its own: an engine that crashes is a finding, too. Returns its exit status, or -1; out: what it said.
 */
static int run_selftest(const char *config_path, char *out, size_t size) {
    char program[] = "/proc/self/exe", name[] = "selftest", option[] = "-c", path[4096];
    int ends[2], status = 0;
    pid_t child = 0;
    posix_spawn_file_actions_t actions;
    snprintf(path, sizeof path, "%s", config_path ? config_path : "");
    char *arguments[] = {program, name, config_path ? option : NULL, path, NULL};
    if (pipe(ends) != 0)
        return -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    bool started = posix_spawn(&child, program, &actions, NULL, arguments, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    size_t used = 0;
    for (ssize_t got = 1; started && got > 0 && used + 1 < size; used += got > 0 ? (size_t)got : 0)
        got = read(ends[0], out + used, size - 1 - used);
    out[used] = '\0';
    out[strcspn(out, "\n")] = '\0';
    close(ends[0]);
    if (!started || waitpid(child, &status, 0) < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void doctor_selftest(struct doctor *doctor) {
    char said[400] = "";
    if (doctor->quick) {
        doctor_say(doctor, DOCTOR_SKIPPED, "left out (--quick)");
        return;
    }
    int status = run_selftest(doctor->config_path, said, sizeof said);
    if (status == 0)
        doctor_say(doctor, DOCTOR_OK, "%s", said);
    else
        doctor_say(doctor, DOCTOR_FAILED, "%s (exit status %d); results of this machine cannot be trusted", said,
                   status);
}
