#include "app/command.h"
#include "app/processes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PASSWORD_SIZE 256

struct request {
    const char *config_path, *role, *display_name;
    bool password_stdin;
};

/* 20 characters of 32 that nobody confuses: 100 bits. */
static bool make_password(char out[PASSWORD_SIZE], struct err *err) {
    static const char letters[] = "abcdefghjkmnpqrstuvwxyz23456789A";
    unsigned char random[20];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return err_set(err, ERR_INTERNAL, "no random numbers: %s", strerror(errno));
    for (size_t index = 0; index < sizeof random; index++)
        out[index] = letters[random[index] & 31];
    out[sizeof random] = '\0';
    return true;
}

static bool read_password(char out[PASSWORD_SIZE], struct err *err) {
    if (!fgets(out, PASSWORD_SIZE, stdin))
        return err_set(err, ERR_INPUT, "no password on standard input");
    out[strcspn(out, "\r\n")] = '\0';
    return true;
}

static int with_password(struct store *store, const struct request *request, const char *verb, const char *name) {
    struct err err = {0};
    char password[PASSWORD_SIZE];
    bool good = request->password_stdin ? read_password(password, &err) : make_password(password, &err);
    if (good && !strcmp(verb, "add"))
        good = store_user_add(store, name, request->display_name ? request->display_name : name, request->role,
                              password, &err);
    else if (good)
        good = store_user_password(store, name, password, &err);
    if (good && !request->password_stdin)
        printf("%s\n", password);
    explicit_bzero(password, sizeof password);
    return good ? EXIT_DONE : command_fail(&command_user, &err);
}

static int list(struct store *store) {
    struct err err = {0};
    PULMO_SCOPED(pulmo_free_at) struct store_user *users = NULL;
    size_t count = 0;
    if (!store_user_list(store, &users, &count, &err))
        return command_fail(&command_user, &err);
    for (size_t index = 0; index < count; index++)
        printf("%-24s %-14s %s%s\n", users[index].name, users[index].role, users[index].display_name,
               users[index].disabled ? " (disabled)" : "");
    return EXIT_DONE;
}

static int dispatch(struct store *store, const struct request *request, int count, char **argv) {
    struct err err = {0};
    if (count == 1 && !strcmp(argv[0], "list"))
        return list(store);
    if (count == 2 && (!strcmp(argv[0], "add") || !strcmp(argv[0], "password")))
        return with_password(store, request, argv[0], argv[1]);
    if (count == 2 && !strcmp(argv[0], "disable"))
        return store_user_disable(store, argv[1], &err) ? EXIT_DONE : command_fail(&command_user, &err);
    return command_usage(&command_user);
}

static int run(int argc, char **argv) {
    struct request request = {.role = "radiologist"};
    const struct command_option options[] = {{"-c", &request.config_path, NULL},
                                             {"--role", &request.role, NULL},
                                             {"--name", &request.display_name, NULL},
                                             {"--password-stdin", NULL, &request.password_stdin}};
    int count = command_options(argc, argv, options, 4);
    if (count < 1)
        return command_usage(&command_user);
    struct config config;
    struct err err = {0};
    if (!command_config(request.config_path, &config, &err))
        return command_fail(&command_user, &err);
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(&config, &err);
    return store ? dispatch(store, &request, count, argv) : command_fail(&command_user, &err);
}

const struct command command_user = {
    "user",
    "user add NAME [--role viewer|radiologist|administrator|auditor] [--name TEXT] [--password-stdin] | list | "
    "disable NAME | password NAME [--password-stdin]    [-c FILE]",
    "accounts of the web server; prints a new password when none is given", run};
