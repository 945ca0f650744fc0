/* Keeps a study's images whatever the settings say: a legal matter, a teaching file. */
#include "app/command.h"
#include "app/processes.h"

#include <stdio.h>
#include <unistd.h>

static int run(int argc, char **argv) {
    const char *config_path = NULL, *reason = "";
    bool release = false;
    const struct command_option options[] = {
        {"-c", &config_path, NULL}, {"--reason", &reason, NULL}, {"--release", NULL, &release}};
    if (command_options(argc, argv, options, sizeof options / sizeof *options) != 1)
        return command_usage(&command_hold);
    struct config config;
    struct err err = {0};
    char actor[32]; /* of the audit row: who ran the command */
    snprintf(actor, sizeof actor, "uid %u", (unsigned)getuid());
    if (!command_config(config_path, &config, &err))
        return command_fail(&command_hold, &err);
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(&config, &err);
    if (!store)
        return command_fail(&command_hold, &err);
    bool done = release ? store_study_release(store, argv[0], actor, &err)
                        : store_study_hold(store, argv[0], reason, actor, &err);
    return done ? EXIT_DONE : command_fail(&command_hold, &err);
}

const struct command command_hold = {"hold", "hold STUDY-UID [--reason TEXT] [--release] [-c FILE]",
                                     "keep a study's images whatever the settings say, or no longer", run};
