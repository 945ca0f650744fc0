/* What was given up gets another chance, once its cause is mended: a PACS that refused objects, a full memory. */
#include "app/command.h"
#include "app/processes.h"

#include <stdio.h>
#include <unistd.h>

static int run(int argc, char **argv) {
    const char *config_path = NULL;
    const struct command_option options[] = {{"-c", &config_path, NULL}};
    if (command_options(argc, argv, options, 1) != 1)
        return command_usage(&command_requeue);
    struct config config;
    struct err err = {0};
    char actor[32]; /* of the audit row: who ran the command */
    snprintf(actor, sizeof actor, "uid %u", (unsigned)getuid());
    if (!command_config(config_path, &config, &err))
        return command_fail(&command_requeue, &err);
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(&config, &err);
    return store && store_study_requeue(store, argv[0], actor, &err) ? EXIT_DONE : command_fail(&command_requeue, &err);
}

const struct command command_requeue = {"requeue", "requeue STUDY-UID [-c FILE]",
                                        "try again what was given up on a study: its analysis, its sendings", run};
