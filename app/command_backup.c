/* A copy of everything that the appliance must not lose, made while it works. */
#include "app/command.h"
#include "app/processes.h"
#include "app/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void on_progress(void *context, int64_t done_bytes, int64_t total_bytes) {
    progress_draw(context, done_bytes, total_bytes);
}

static void on_fault(void *context, const char *sentence) {
    progress_end(context);
    fprintf(stderr, "pulmo backup: %s\n", sentence);
}

/* What a restored machine would lack: keys and certificates that the configuration places elsewhere. */
static void name_what_is_outside(const struct config *config) {
    const char *const files[] = {config->dicom_tls_key, config->dicom_tls_certificate, config->dicom_tls_ca,
                                 config->https_key,     config->https_certificate,     config->destination_tls_ca,
                                 config->model};
    for (size_t index = 0; index < sizeof files / sizeof *files; index++)
        if (*files[index])
            printf("not in the backup, since it lies outside of the data folder: %s\n", files[index]);
}

static void print_figures(const struct store_backup_figures *figures, const char *folder) {
    printf(
        "%s: database of %lld rows (%lld bytes, audit chain of %lld), %lld contents (%lld bytes), of these %lld copied "
        "now (%lld bytes)\n",
        folder, (long long)figures->rows, (long long)figures->database_bytes, (long long)figures->audit_rows,
        (long long)figures->contents, (long long)figures->content_bytes, (long long)figures->copied,
        (long long)figures->copied_bytes);
    printf(
        "with secrets: users with the digests of their passwords, %lld files of keys, certificates and configuration. "
        "Keep it as safe as the appliance itself.\n",
        (long long)figures->files);
}

struct arguments {
    const char *folder, *config_path;
    bool prune;
};

static int save(struct store *store, const struct config *config, const struct arguments *arguments) {
    struct progress_bar bar = {0};
    struct store_backup_figures figures = {0};
    struct err err = {0};
    char actor[32];
    snprintf(actor, sizeof actor, "uid %u", (unsigned)getuid());
    struct store_backup_config backup = {.folder = arguments->folder,
                                         .config_file = arguments->config_path,
                                         .prune = arguments->prune,
                                         .actor = actor,
                                         .progress = on_progress,
                                         .fault = on_fault,
                                         .context = &bar};
    bool saved = store_backup(store, &backup, &figures, &err);
    progress_end(&bar);
    if (!saved)
        return command_fail(&command_backup, &err);
    print_figures(&figures, arguments->folder);
    if (arguments->prune)
        printf("%lld files removed that no row names any more\n", (long long)figures.pruned);
    name_what_is_outside(config);
    if (figures.damaged)
        fprintf(stderr, "pulmo backup: %lld contents are lost or changed in the store; the backup has the others\n",
                (long long)figures.damaged);
    return figures.damaged ? EXIT_FAILED : EXIT_DONE;
}

static int run(int argc, char **argv) {
    struct arguments arguments = {.folder = NULL};
    const struct command_option options[] = {{"-c", &arguments.config_path, NULL}, {"--prune", NULL, &arguments.prune}};
    if (command_options(argc, argv, options, 2) != 1)
        return command_usage(&command_backup);
    struct config config;
    struct err err = {0};
    arguments.folder = argv[0];
    arguments.config_path = command_config_path(arguments.config_path);
    if (!command_config(arguments.config_path, &config, &err))
        return command_fail(&command_backup, &err);
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(&config, &err);
    return store ? save(store, &config, &arguments) : command_fail(&command_backup, &err);
}

const struct command command_backup = {"backup", "backup DIR [--prune] [-c FILE]",
                                       "save database, images, results and keys, while studies arrive; --prune removes "
                                       "from DIR what the store has given up",
                                       run};
