/* A backup becomes a data folder, after all of it was checked. */
#include "app/command.h"
#include "app/processes.h"
#include "app/progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void on_progress(void *context, int64_t done_bytes, int64_t total_bytes) {
    progress_draw(context, done_bytes, total_bytes);
}

static void on_fault(void *context, const char *sentence) {
    progress_end(context);
    fprintf(stderr, "pulmo restore: %s\n", sentence);
}

/* The restored store opens, which brings it forward to this program's version, and says in its chain what it is. */
static bool record(const char *folder, const struct store_backup_figures *figures, struct err *err) {
    struct config config;
    char detail[128], actor[32];
    config_defaults(&config);
    struct store_config store_config = processes_store_config(&config);
    store_config.folder = folder;
    PULMO_SCOPED(store_close_at) struct store *store = store_open(&store_config, err);
    snprintf(actor, sizeof actor, "uid %u", (unsigned)getuid());
    snprintf(detail, sizeof detail, "restored from the backup of %lld ms, %lld rows, %lld contents",
             (long long)figures->made_ms, (long long)figures->rows, (long long)figures->contents);
    struct store_audit audit = {.code = "110107", .action = "restore", .actor = actor, .detail = detail};
    return store && store_audit_append(store, &audit, err);
}

static void print_figures(const struct store_backup_figures *figures, const char *what) {
    char moment[32] = "";
    struct tm utc;
    time_t seconds = (time_t)(figures->made_ms / 1000);
    if (gmtime_r(&seconds, &utc))
        strftime(moment, sizeof moment, "%Y-%m-%d %H:%M:%S UTC", &utc);
    printf(
        "%s the backup of %s: %lld rows (integrity_check ok, audit chain of %lld whole), %lld contents (%lld bytes), "
        "each by its digest\n",
        what, moment, (long long)figures->rows, (long long)figures->audit_rows, (long long)figures->contents,
        (long long)figures->content_bytes);
}

static int restore(const char *backup, const char *folder) {
    struct progress_bar bar = {0};
    struct store_backup_figures figures = {0};
    struct err err = {0};
    struct store_restore_config config = {
        .backup = backup, .folder = folder, .progress = on_progress, .fault = on_fault, .context = &bar};
    bool restored = store_restore(&config, &figures, &err);
    progress_end(&bar);
    if (!restored || (folder && !record(folder, &figures, &err)))
        return command_fail(&command_restore, &err);
    print_figures(&figures, folder ? "restored" : "checked");
    if (folder)
        printf("%s holds it, with users and %lld files of keys, certificates and configuration. Studies that arrived "
               "after "
               "the backup are to be sent again by the PACS.\n",
               folder, (long long)figures.files);
    return EXIT_DONE;
}

/* Back to the program before an upgrade: its database, of before the migration. */
static int put_back(const char *config_path, const char *version_text, bool discard) {
    struct config config;
    struct store_put_back_figures figures = {0};
    struct err err = {0};
    int64_t version = 0;
    if (!command_integer(version_text, 1, 9999, &version))
        return EXIT_USAGE;
    if (!command_config(config_path, &config, &err) ||
        !store_put_back(config.data_folder, (int)version, discard, &figures, &err))
        return command_fail(&command_restore, &err);
    printf("the database is again that of version %lld, of before the upgrade; the one of version %lld lies beside it "
           "as %s\n",
           (long long)version, (long long)figures.version, figures.kept_as);
    if (figures.instances || figures.results)
        printf("not in it: %lld instances and %lld results of after the upgrade\n", (long long)figures.instances,
               (long long)figures.results);
    return EXIT_DONE;
}

static int run(int argc, char **argv) {
    const char *folder = NULL, *config_path = NULL, *version = NULL;
    bool check = false, discard = false;
    const struct command_option options[] = {{"--to", &folder, NULL},
                                             {"--check", NULL, &check},
                                             {"-c", &config_path, NULL},
                                             {"--before-upgrade", &version, NULL},
                                             {"--discard-newer", NULL, &discard}};
    int count = command_options(argc, argv, options, sizeof options / sizeof *options);
    if (count == 0 && version && !folder && !check)
        return put_back(config_path, version, discard);
    if (count != 1 || version || discard || config_path || (folder != NULL) == check)
        return command_usage(&command_restore);
    return restore(argv[0], folder);
}

const struct command command_restore = {
    "restore", "restore DIR --to FOLDER | DIR --check | --before-upgrade VERSION [--discard-newer] [-c FILE]",
    "check a backup and make a data folder of it, or put back the database of before an upgrade", run};
