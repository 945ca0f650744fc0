/* A command of the tool: one file, one constant entry. */
#ifndef PULMO_APP_COMMAND_H
#define PULMO_APP_COMMAND_H

#include "config.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_REFUSED = 3 };

struct command {
    const char *name, *usage, *summary;
    int (*run)(int argc, char **argv); /* argv[0] = the command's name */
};
extern const struct command command_analyze, command_audit, command_backup, command_bench, command_doctor,
    command_evaluate, command_hold, command_model, command_phantom, command_replay, command_requeue, command_restore,
    command_route, command_selftest, command_send, command_serve, command_survey, command_user;

/* Prints "pulmo NAME: sentence" and returns the exit status that fits the error. */
int command_fail(const struct command *command, const struct err *err);
int command_usage(const struct command *command);
/* path, or /etc/pulmo/pulmo.conf when there is one, or NULL. */
const char *command_config_path(const char *path);
/* Reads -c FILE, or /etc/pulmo/pulmo.conf when there is one, or the defaults. */
bool command_config(const char *path, struct config *out, struct err *err) PULMO_MUST_USE;

/* Options: a table, read by command_options. A value option takes the next argument. */
struct command_option {
    const char *name;   /* "--out" */
    const char **value; /* set to the argument, or NULL for a flag */
    bool *flag;
};
/* Sets the options and moves what is no option to the front of argv; returns how many, or -1 on an unknown option. */
int command_options(int argc, char **argv, const struct command_option *options, size_t count);
/* A whole number from text in [low, high]; false otherwise. */
bool command_integer(const char *text, int64_t low, int64_t high, int64_t *out);
bool command_number(const char *text, double low, double high, double *out);

/* Every regular file below paths (folders are walked), sorted; owned. */
struct file_list {
    char **items;
    size_t count;
};
bool file_list_make(const char *const *paths, size_t count, struct file_list *out, struct err *err) PULMO_MUST_USE;
void file_list_free(struct file_list *list);

#endif
