#include "app/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct command *const commands[] = {
    &command_serve, &command_analyze, &command_phantom, &command_evaluate, &command_replay, &command_requeue,
    &command_hold,  &command_audit,   &command_backup,  &command_restore,  &command_doctor, &command_model,
    &command_user,  &command_route,   &command_send,    &command_selftest, &command_survey, &command_bench,
};

static int help(FILE *to) {
    fprintf(to, "Pulmo %s: chest CT in over DICOM, findings with their uncertainty and reasons out.\n%s\n\n",
            PULMO_VERSION, PULMO_NOT_FOR_DIAGNOSIS);
    for (size_t index = 0; index < sizeof commands / sizeof *commands; index++)
        fprintf(to, "  pulmo %s\n      %s\n", commands[index]->usage, commands[index]->summary);
    fprintf(to, "\nExit status: 0 done, 1 failed, 2 usage, 3 input refused.\n");
    return to == stdout ? EXIT_DONE : EXIT_USAGE;
}

static bool asks_for_help(int argc, char **argv) {
    return argc == 3 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h"));
}

static int help_on(const struct command *command) {
    printf("usage: pulmo %s\n%s\n", command->usage, command->summary);
    return EXIT_DONE;
}

/* What was printed has arrived: a script must not take half a document, or half an audit trail, for the whole. */
static int flushed(int status) {
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "pulmo: cannot write to standard output: %s\n", strerror(errno));
    return EXIT_FAILED;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
        return help(stdout);
    if (!strcmp(name, "--version")) {
        printf("pulmo %s\n", PULMO_VERSION);
        return EXIT_DONE;
    }
    for (size_t index = 0; index < sizeof commands / sizeof *commands; index++)
        if (!strcmp(name, commands[index]->name))
            return flushed(asks_for_help(argc, argv) ? help_on(commands[index])
                                                     : commands[index]->run(argc - 1, argv + 1));
    if (*name)
        fprintf(stderr, "pulmo: there is no command %s\n", name);
    return help(stderr);
}
