#include "app/command.h"
#include "app/processes.h"

#include <stdio.h>
#include <string.h>

static bool print_line(void *context, const char *json, struct err *err) {
    if (fputs(json, context) < 0 || fputc('\n', context) < 0)
        return err_set(err, ERR_IO, "cannot write the audit trail");
    return true;
}

static int verify(struct store *store) {
    struct err err = {0};
    int64_t rows = 0, first_bad = 0;
    char reason[256] = "";
    if (!store_audit_verify(store, &rows, &first_bad, reason, sizeof reason, &err))
        return command_fail(&command_audit, &err);
    if (first_bad) {
        printf("audit chain broken at row %lld: %s\n", (long long)first_bad, reason);
        return EXIT_FAILED;
    }
    printf("audit chain whole: %lld rows\n", (long long)rows);
    return EXIT_DONE;
}

static int run(int argc, char **argv) {
    const char *config_path = NULL;
    const struct command_option options[] = {{"-c", &config_path, NULL}};
    if (command_options(argc, argv, options, 1) != 1 || (strcmp(argv[0], "verify") && strcmp(argv[0], "export")))
        return command_usage(&command_audit);
    struct config config;
    struct err err = {0};
    if (!command_config(config_path, &config, &err))
        return command_fail(&command_audit, &err);
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(&config, &err);
    if (!store)
        return command_fail(&command_audit, &err);
    if (!strcmp(argv[0], "verify"))
        return verify(store);
    return store_audit_export(store, print_line, stdout, &err) ? EXIT_DONE : command_fail(&command_audit, &err);
}

const struct command command_audit = {"audit", "audit verify|export [-c FILE]",
                                      "check the audit chain, or print it as one JSON document a line", run};
