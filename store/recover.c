#include "store/recover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "store/blob.h"

#define PATH_SIZE 4096
#define ASIDE_PREFIX "pulmo.db.corrupt-"
#define LOG_MAX_BYTES ((off_t)1 << 30)
/* SQLite's locks on the -shm file (its file format, 2.3.2): one byte each. */
#define BYTE_WRITE 120
#define BYTE_OPEN 128
#define LOCK_TRIES 50
#define LOCK_WAIT_NS 10000000L
#define ENDING_WAIT_MS 8000 /* processes of a supervisor that was killed still close the database */

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

static void folder_close_at(DIR **folder) {
    if (*folder)
        closedir(*folder);
}

static bool fail(struct err *err, const char *what, const char *path) {
    return err_set(err, ERR_IO, "%s %s: %s", what, path, strerror(errno));
}

static void path_of(const char *folder, const char *name, char out[PATH_SIZE]) {
    snprintf(out, PATH_SIZE, "%s/%s", folder, name);
}

static off_t size_of(const char *folder, const char *name) {
    char path[PATH_SIZE];
    struct stat status;
    path_of(folder, name, path);
    return stat(path, &status) == 0 ? status.st_size : -1;
}

/* ---- what must not be written over --------------------------------------------------------------------- */

/* The newest database that was moved aside; "" when there is none. */
static bool aside_find(const char *path, char name[256], struct err *err) {
    PULMO_SCOPED(folder_close_at) DIR *folder = opendir(path);
    if (!folder)
        return fail(err, "cannot read the folder", path);
    name[0] = '\0';
    for (struct dirent *entry; (entry = readdir(folder));) {
        size_t length = strlen(entry->d_name);
        bool part = length > 4 && strcmp(entry->d_name + length - 4, "-wal") == 0;
        part = part || (length > 4 && strcmp(entry->d_name + length - 4, "-shm") == 0);
        if (!part && strncmp(entry->d_name, ASIDE_PREFIX, strlen(ASIDE_PREFIX)) == 0 && strcmp(entry->d_name, name) > 0)
            snprintf(name, 256, "%s", entry->d_name);
    }
    return true;
}

static bool has_files(const char *folder, const char *name) {
    char path[PATH_SIZE];
    path_of(folder, name, path);
    PULMO_SCOPED(folder_close_at) DIR *files = opendir(path);
    for (struct dirent *entry; files && (entry = readdir(files));)
        if (entry->d_name[0] != '.')
            return true;
    return false;
}

/* Both are filled by stores whose database was there before. */
static bool has_contents(const char *folder) {
    char name[16];
    bool found = has_files(folder, "journal");
    for (unsigned index = 0; !found && index < 256; index++) {
        snprintf(name, sizeof name, "blobs/%02x", index);
        found = has_files(folder, name);
    }
    return found;
}

static bool refuse(const char *folder, const char *what, struct err *err) {
    return err_set(err, ERR_IO,
                   "%s; nothing was written over. Move %s away as it is, then make a new one of the last backup: pulmo"
                   " restore BACKUP --to %s",
                   what, folder, folder);
}

bool recover_permit(const char *folder, struct err *err) {
    char name[256], what[400];
    if (size_of(folder, "pulmo.db") > 0)
        return true;
    if (!aside_find(folder, name, err))
        return false;
    snprintf(what, sizeof what, "the database was damaged and lies aside as %s", name);
    if (*name)
        return refuse(folder, what, err);
    return !has_contents(folder) || refuse(folder, "the database is gone, though its contents are there", err);
}

/* ---- marks ------------------------------------------------------------------------------------------- */

static bool is_damage(int code) {
    return (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB;
}

void recover_note(const struct store *store, int code) {
    char path[PATH_SIZE];
    if (!is_damage(code) || !store->config.folder)
        return;
    path_of(store->config.folder, RECOVER_SUSPECT_NAME, path);
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    if (file >= 0)
        close(file);
}

bool recover_is_suspect(const char *folder) {
    return size_of(folder, RECOVER_SUSPECT_NAME) >= 0;
}

/* ---- recovery ---------------------------------------------------------------------------------------- */

/* Every connection in WAL mode holds a shared lock on one byte of the index. Asked for without a connection of our own:
 * closing any descriptor of the file would end that one's locks. */
static bool in_use(const char *folder) {
    char path[PATH_SIZE];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = BYTE_OPEN, .l_len = 1};
    path_of(folder, "pulmo.db-shm", path);
    PULMO_SCOPED(descriptor_close_at) int file = open(path, O_RDWR | O_CLOEXEC);
    return file >= 0 && (fcntl(file, F_GETLK, &lock) != 0 || lock.l_type != F_UNLCK);
}

static bool part_rewrite(int file, off_t offset, struct bytes *part, struct err *err) {
    ssize_t got = pread(file, part->data, part->size, offset);
    if (got <= 0 || pwrite(file, part->data, (size_t)got, offset) != got)
        return fail(err, "cannot write again", "pulmo.db-wal");
    return true;
}

/* The same bytes into the same places: an interruption changes nothing. */
static bool log_rewrite(const char *folder, struct err *err) {
    char path[PATH_SIZE];
    off_t size = size_of(folder, "pulmo.db-wal");
    path_of(folder, "pulmo.db-wal", path);
    if (size <= 0 || size > LOG_MAX_BYTES)
        return true;
    PULMO_SCOPED(descriptor_close_at) int file = open(path, O_RDWR | O_CLOEXEC);
    PULMO_SCOPED(bytes_free) struct bytes part = {.data = pulmo_alloc(1 << 16, 1, err), .size = 1 << 16};
    if (!part.data)
        return false;
    if (file < 0)
        return fail(err, "cannot open", path);
    for (off_t offset = 0; offset < size; offset += (off_t)part.size)
        if (!part_rewrite(file, offset, &part, err))
            return false;
    return fsync(file) == 0 || fail(err, "cannot sync", path);
}

/* *sound = false when the database is not what SQLite wrote; a disk that cannot be read is an error instead. */
static bool database_judge(const char *folder, bool *sound, char *why, size_t why_size, struct err *err) {
    char path[PATH_SIZE];
    sqlite3 *database = NULL;
    sqlite3_stmt *statement = NULL;
    path_of(folder, "pulmo.db", path);
    int code = sqlite3_open_v2(path, &database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK) { /* a damaged one is evidence: nothing is moved into it from its log */
        sqlite3_db_config(database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_busy_timeout(database, ENDING_WAIT_MS);
    }
    if (code == SQLITE_OK)
        code = sqlite3_prepare_v2(database, "PRAGMA quick_check(1)", -1, &statement, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_step(statement);
    const unsigned char *text = code == SQLITE_ROW ? sqlite3_column_text(statement, 0) : NULL;
    *sound = text && strcmp((const char *)text, "ok") == 0;
    snprintf(why, why_size, "%s", text ? (const char *)text : sqlite3_errmsg(database));
    bool judged = code == SQLITE_ROW || is_damage(code);
    if (!judged)
        err_set(err, (code & 0xff) == SQLITE_NOMEM ? ERR_MEMORY : ERR_IO, "cannot check %s: %s (%d)", path,
                sqlite3_errmsg(database), code);
    sqlite3_finalize(statement);
    sqlite3_close(database);
    return judged;
}

/* The database goes first: without it the folder is refused, and its log is nothing that could be believed alone. */
static bool move_aside(const char *folder, char name[256], struct err *err) {
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char stamp[32] = "", from[PATH_SIZE], to[PATH_SIZE];
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc))
        strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &utc);
    snprintf(name, 256, "%s%s", ASIDE_PREFIX, stamp);
    for (size_t index = 0; index < sizeof suffixes / sizeof *suffixes; index++) {
        snprintf(from, sizeof from, "%s/pulmo.db%s", folder, suffixes[index]);
        snprintf(to, sizeof to, "%s/%s%s", folder, name, suffixes[index]);
        if (rename(from, to) != 0 && errno != ENOENT)
            return fail(err, "cannot move aside", from);
    }
    return blob_folder_sync(folder, err);
}

static bool recover_locked(const char *folder, struct err *err) {
    char why[256] = "", name[256], what[400], suspect[PATH_SIZE];
    bool sound = true;
    if (!recover_permit(folder, err))
        return false;
    if (size_of(folder, "pulmo.db") < 0 || in_use(folder)) /* others have recovered it */
        return true;
    if (!log_rewrite(folder, err) || !database_judge(folder, &sound, why, sizeof why, err))
        return false;
    if (!sound && !move_aside(folder, name, err))
        return false;
    path_of(folder, RECOVER_SUSPECT_NAME, suspect);
    unlink(suspect);
    snprintf(what, sizeof what, "the database is damaged (%.100s) and was moved aside as %s", why, name);
    return sound || refuse(folder, what, err);
}

bool store_recover(const struct store_config *config, struct err *err) {
    struct stat status;
    if (stat(config->folder, &status) != 0 && errno == ENOENT)
        return true;
    PULMO_SCOPED(descriptor_close_at) int lock = store_open_lock(config->folder, err);
    return lock >= 0 && recover_locked(config->folder, err);
}

/* ---- who holds the lock ------------------------------------------------------------------------------ */

/* "POSIX ADVISORY WRITE pid major:minor:inode first last" of /proc/locks; 0 when nobody of this machine is seen. */
static long lock_holder(const char *folder) {
    char path[PATH_SIZE], line[256];
    struct stat status;
    path_of(folder, "pulmo.db-shm", path);
    FILE *locks = stat(path, &status) == 0 ? fopen("/proc/locks", "re") : NULL;
    long holder = 0;
    while (locks && !holder && fgets(line, sizeof line, locks)) {
        long process = 0;
        unsigned major = 0, minor = 0;
        unsigned long long inode = 0, first = 0, last = 0;
        if (sscanf(line, "%*s POSIX %*s WRITE %ld %x:%x:%llu %llu %llu", &process, &major, &minor, &inode, &first,
                   &last) == 6 &&
            inode == status.st_ino && makedev(major, minor) == status.st_dev && first <= BYTE_WRITE &&
            last >= BYTE_WRITE)
            holder = process;
    }
    if (locks)
        fclose(locks);
    return holder;
}

static void program_of(long process, char *out, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/comm", process);
    snprintf(out, size, "unknown");
    FILE *file = process > 0 ? fopen(path, "re") : NULL;
    if (file && fgets(out, (int)size, file))
        out[strcspn(out, "\n")] = '\0';
    if (file)
        fclose(file);
}

/* True when the lock to write can be had within half a second: a commit takes milliseconds. */
static bool can_write(struct store *store, int *code) {
    sqlite3_busy_timeout(store->database, 0);
    for (int tries = 0; tries < LOCK_TRIES; tries++) {
        *code = sqlite3_exec(store->database, "BEGIN IMMEDIATE; ROLLBACK", NULL, NULL, NULL);
        if ((*code & 0xff) != SQLITE_BUSY)
            break;
        nanosleep(&(struct timespec){.tv_nsec = LOCK_WAIT_NS}, NULL);
    }
    store_busy_handler_set(store);
    return *code == SQLITE_OK;
}

void recover_check_lock(struct store *store, struct store_health *health) {
    int code = SQLITE_OK;
    if (health->problem_count == STORE_PROBLEMS_MAX || can_write(store, &code))
        return;
    struct store_problem *problem = &health->problems[health->problem_count++];
    if ((code & 0xff) != SQLITE_BUSY) {
        snprintf(problem->code, sizeof problem->code, "DATABASE_FAILS");
        snprintf(problem->text, sizeof problem->text, "The database cannot be written: %s (%d).",
                 sqlite3_errmsg(store->database), code);
        return;
    }
    char program[32];
    long holder = lock_holder(store->config.folder);
    program_of(holder, program, sizeof program);
    snprintf(problem->code, sizeof problem->code, "DATABASE_LOCKED");
    snprintf(problem->text, sizeof problem->text,
             "The database is kept locked by process %ld (%s). Nothing is received, no result is written.", holder,
             program);
}
