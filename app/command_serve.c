#include "app/command.h"
#include "app/descriptors.h"
#include "app/processes.h"
#include "app/stop.h"
#include "log.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct process {
    const char *name;
    bool (*run)(const struct config *config, struct err *err);
} processes[] = {
    {"scp", reception_run}, {"decode", decoder_run}, {"work", worker_run}, {"spare", spare_run}, {"web", web_run}};

static int run_only(const char *name, const struct config *config) {
    struct err err = {0};
    for (size_t index = 0; index < sizeof processes / sizeof *processes; index++) {
        if (strcmp(processes[index].name, name) != 0)
            continue;
        if (processes[index].run(config, &err))
            return EXIT_DONE;
        log_err(LOG_ERROR, name, "process ends", &err);
        return command_fail(&command_serve, &err);
    }
    return command_usage(&command_serve);
}

static int run(int argc, char **argv) {
    const char *config_path = NULL, *only = NULL;
    const struct command_option options[] = {{"-c", &config_path, NULL}, {"--only", &only, NULL}};
    if (command_options(argc, argv, options, 2) != 0)
        return command_usage(&command_serve);
    struct config config;
    struct err err = {0};
    if (!command_config(config_path, &config, &err))
        return command_fail(&command_serve, &err);
    stop_on_signals();
    descriptors_raise();
    if (only)
        return run_only(only, &config);
    char program[4096] = "";
    ssize_t size = readlink("/proc/self/exe", program, sizeof program - 1);
    if (size < 0)
        return EXIT_FAILED;
    return supervisor_run(program, config_path, &config, &err) ? EXIT_DONE : command_fail(&command_serve, &err);
}

const struct command command_serve = {"serve", "serve [-c FILE] [--only scp|decode|work|spare|web]",
                                      "the appliance: reception, decoding, analysis and web", run};
