#include "app/command.h"
#include "app/processes.h"

#include <stdio.h>
#include <string.h>

struct arguments {
    const char *config_path, *checkpoint, *key, *out;
};

static bool print_line(void *context, const char *json, struct err *err) {
    if (fputs(json, context) < 0 || fputc('\n', context) < 0)
        return err_set(err, ERR_IO, "cannot write the audit trail");
    return true;
}

static int print_verdict(const struct store_audit_verdict *verdict) {
    if (verdict->first_bad_row) {
        printf("audit chain broken at row %lld: %s\n", (long long)verdict->first_bad_row, verdict->reason);
        return EXIT_FAILED;
    }
    printf("audit chain whole: %lld rows\n", (long long)verdict->rows);
    return EXIT_DONE;
}

static int verify(struct store *store) {
    struct err err = {0};
    struct store_audit_verdict verdict = {.rows = 0};
    if (!store_audit_verify(store, &verdict.rows, &verdict.first_bad_row, verdict.reason, sizeof verdict.reason, &err))
        return command_fail(&command_audit, &err);
    return print_verdict(&verdict);
}

static int verify_checkpoint(struct store *store, const struct arguments *arguments) {
    struct err err = {0};
    struct store_checkpoint checkpoint = {.rows = 0};
    struct store_audit_verdict verdict = {.rows = 0};
    if (!store_checkpoint_verify(store, arguments->checkpoint, arguments->key, &checkpoint, &verdict, &err))
        return command_fail(&command_audit, &err);
    int status = print_verdict(&verdict);
    if (status == EXIT_DONE)
        printf("up to row %lld as the checkpoint signed it: nothing before was changed or cut off\n",
               (long long)checkpoint.rows);
    return status;
}

static int checkpoint(struct store *store, const struct config *config, const char *path) {
    struct err err = {0};
    struct store_checkpoint written = {.rows = 0};
    if (!store_checkpoint_write(store, path, &written, &err))
        return command_fail(&command_audit, &err);
    printf("%s: row %lld, digest %s. Keep it and %s/audit-key.pub.pem outside of this machine.\n", path,
           (long long)written.rows, written.digest, config->data_folder);
    return EXIT_DONE;
}

static int run_action(const char *action, struct store *store, const struct config *config,
                      const struct arguments *arguments) {
    struct err err = {0};
    if (!strcmp(action, "checkpoint"))
        return checkpoint(store, config, arguments->out);
    if (!strcmp(action, "verify"))
        return arguments->checkpoint ? verify_checkpoint(store, arguments) : verify(store);
    return store_audit_export(store, print_line, stdout, &err) ? EXIT_DONE : command_fail(&command_audit, &err);
}

/* Each action with the options that belong to it. */
static bool fits(const char *action, const struct arguments *arguments) {
    if (!strcmp(action, "checkpoint"))
        return arguments->out && !arguments->checkpoint && !arguments->key;
    if (!strcmp(action, "verify"))
        return !arguments->out && !arguments->checkpoint == !arguments->key;
    return !strcmp(action, "export") && !arguments->out && !arguments->checkpoint && !arguments->key;
}

static int run(int argc, char **argv) {
    struct arguments arguments = {0};
    const struct command_option options[] = {{"-c", &arguments.config_path, NULL},
                                             {"--checkpoint", &arguments.checkpoint, NULL},
                                             {"--key", &arguments.key, NULL},
                                             {"--out", &arguments.out, NULL}};
    if (command_options(argc, argv, options, sizeof options / sizeof *options) != 1 || !fits(argv[0], &arguments))
        return command_usage(&command_audit);
    struct config config;
    struct err err = {0};
    if (!command_config(arguments.config_path, &config, &err))
        return command_fail(&command_audit, &err);
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(&config, &err);
    return store ? run_action(argv[0], store, &config, &arguments) : command_fail(&command_audit, &err);
}

const struct command command_audit = {
    "audit", "audit verify [--checkpoint FILE --key PUBLIC-KEY] | export | checkpoint --out FILE [-c FILE]",
    "check the audit chain, also against a signed checkpoint; print it as one JSON document a line; sign its end", run};
