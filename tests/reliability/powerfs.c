/* A file system under test: passes through to a folder, writes down every change and every sync, and fails when told
 * to.
 *
 *   powerfs MOUNT BACKING LOG CONTROL [SYNC_US]     in the foreground, until it is unmounted (umount MOUNT)
 *
 * BACKING is an empty folder. LOG receives the records of power_log.h, from which power_replay builds what a power cut
 * would leave; "-" = none. CONTROL is a file of struct power_control. A sync counts from the moment it is asked for and
 * returns SYNC_US later: what another thread writes meanwhile is not covered by it, as on a real disk. Nothing is
 * synced in truth, the log is what counts.
 *
 * syncfs does not reach a FUSE file system; power_preload.c turns it into a sync of the file POWER_SYNC_ALL_NAME. Page
 * cache on, direct_io off, since SQLite maps its -shm file; writeback cache off, so that each write is seen when it is
 * made. */
#define FUSE_USE_VERSION 31
#include <fuse.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "power_log.h"

#define SYNC_ALL_PATH "/.power-sync-all"
#define CACHE_S 3600.0 /* nobody else changes the backing folder */

static const char *backing;
static int log_file = -1;
static struct power_control *control;
static long sync_us;
/* An operation and its record are one step. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- log and faults ---------------------------------------------------------------------------------- */

static void note(struct power_record record, const void *first, const void *second, size_t second_size) {
    struct iovec parts[] = {{&record, sizeof record},
                            {(void *)(uintptr_t)first, record.size - second_size},
                            {(void *)(uintptr_t)second, second_size}};
    if (log_file < 0)
        return;
    if (writev(log_file, parts, 3) != (ssize_t)(sizeof record + record.size)) {
        fprintf(stderr, "powerfs: cannot write the log: %s\n", strerror(errno));
        abort(); /* a log with a hole would prove nothing */
    }
}

static void note_path(enum power_kind kind, uint64_t node, const char *path) {
    note((struct power_record){.kind = kind, .size = (uint32_t)strlen(path) + 1, .node = node}, path, NULL, 0);
}

/* The error that this operation shall fail with; 0 = none. */
static int fault(unsigned classes, const char *path) {
    struct power_control *now = control;
    if (!now->error || !(now->classes & classes) || (*now->path && (!path || !strstr(path, now->path))))
        return 0;
    uint32_t number = __atomic_fetch_add(&now->seen, 1, __ATOMIC_SEQ_CST);
    if (number < now->skip || (now->times && number >= now->skip + now->times))
        return 0;
    __atomic_fetch_add(&now->hit, 1, __ATOMIC_SEQ_CST);
    return (int)now->error;
}

/* Faults of descriptors are chosen by the path that the file was opened with. */
struct handle {
    int descriptor;
    uint64_t node;
    bool sync_all;
    char path[];
};

static struct handle *handle_of(const struct fuse_file_info *info) {
    return (struct handle *)(uintptr_t)info->fh;
}

static int handle_new(struct fuse_file_info *info, const char *path, int descriptor) {
    struct stat status;
    struct handle *handle = calloc(1, sizeof *handle + strlen(path) + 1);
    if (!handle || fstat(descriptor, &status) != 0) {
        free(handle);
        close(descriptor);
        return -ENOMEM;
    }
    handle->descriptor = descriptor;
    handle->node = status.st_ino;
    handle->sync_all = strcmp(path, SYNC_ALL_PATH) == 0;
    memcpy(handle->path, path, strlen(path) + 1);
    info->fh = (uintptr_t)handle;
    /* A reader must meet the faults of the disk, and so must not find its pages kept. */
    info->keep_cache = !(control->error && control->classes & POWER_CLASS_READ);
    return 0;
}

static bool below(const char *path, char out[PATH_MAX]) {
    return snprintf(out, PATH_MAX, "%s%s", backing, path) < PATH_MAX;
}

static uint64_t node_of(const char *full) {
    struct stat status;
    return lstat(full, &status) == 0 ? status.st_ino : 0;
}

/* ---- names ------------------------------------------------------------------------------------------- */

static void *fs_start(struct fuse_conn_info *connection, struct fuse_config *config) {
    connection->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
    config->use_ino = 1;
    config->nullpath_ok = 0;
    config->hard_remove = 1; /* an unlinked file is gone, not renamed */
    config->entry_timeout = config->attr_timeout = CACHE_S;
    config->negative_timeout = 0;
    return NULL;
}

static int fs_getattr(const char *path, struct stat *out, struct fuse_file_info *info) {
    char full[PATH_MAX];
    if (info)
        return fstat(handle_of(info)->descriptor, out) == 0 ? 0 : -errno;
    return below(path, full) && lstat(full, out) == 0 ? 0 : -errno;
}

static int fs_mknod(const char *path, mode_t mode, dev_t device) {
    char full[PATH_MAX];
    int error = fault(POWER_CLASS_SPACE | POWER_CLASS_CHANGE, path);
    (void)device;
    if (error || !S_ISREG(mode) || !below(path, full))
        return error ? -error : -EPERM;
    pthread_mutex_lock(&lock);
    error = mknod(full, mode, 0) == 0 ? 0 : errno;
    if (!error)
        note_path(POWER_FILE, node_of(full), path);
    pthread_mutex_unlock(&lock);
    return -error;
}

static int fs_mkdir(const char *path, mode_t mode) {
    char full[PATH_MAX];
    int error = fault(POWER_CLASS_SPACE | POWER_CLASS_CHANGE, path);
    if (error || !below(path, full))
        return error ? -error : -ENAMETOOLONG;
    pthread_mutex_lock(&lock);
    error = mkdir(full, mode) == 0 ? 0 : errno;
    if (!error)
        note_path(POWER_FOLDER, 0, path);
    pthread_mutex_unlock(&lock);
    return -error;
}

static int remove_with(int (*call)(const char *), enum power_kind kind, const char *path) {
    char full[PATH_MAX];
    int error = fault(POWER_CLASS_CHANGE, path);
    if (error || !below(path, full))
        return error ? -error : -ENAMETOOLONG;
    pthread_mutex_lock(&lock);
    error = call(full) == 0 ? 0 : errno;
    if (!error)
        note_path(kind, 0, path);
    pthread_mutex_unlock(&lock);
    return -error;
}

static int fs_unlink(const char *path) {
    return remove_with(unlink, POWER_UNLINK, path);
}

static int fs_rmdir(const char *path) {
    return remove_with(rmdir, POWER_RMDIR, path);
}

static int fs_rename(const char *from, const char *to, unsigned flags) {
    char full_from[PATH_MAX], full_to[PATH_MAX];
    int error = fault(POWER_CLASS_CHANGE, to);
    if (error || flags & ~1U /* RENAME_NOREPLACE */ || !below(from, full_from) || !below(to, full_to))
        return error ? -error : -EINVAL;
    pthread_mutex_lock(&lock);
    error = renameat2(AT_FDCWD, full_from, AT_FDCWD, full_to, flags) == 0 ? 0 : errno;
    size_t from_size = strlen(from) + 1, to_size = strlen(to) + 1;
    if (!error)
        note((struct power_record){.kind = POWER_RENAME, .size = (uint32_t)(from_size + to_size)}, from, to, to_size);
    pthread_mutex_unlock(&lock);
    return -error;
}

static int fs_link(const char *from, const char *to) {
    char full_from[PATH_MAX], full_to[PATH_MAX];
    int error = fault(POWER_CLASS_SPACE | POWER_CLASS_CHANGE, to);
    if (error || !below(from, full_from) || !below(to, full_to))
        return error ? -error : -ENAMETOOLONG;
    pthread_mutex_lock(&lock);
    error = link(full_from, full_to) == 0 ? 0 : errno;
    if (!error)
        note_path(POWER_LINK, node_of(full_to), to);
    pthread_mutex_unlock(&lock);
    return -error;
}

static int fs_chmod(const char *path, mode_t mode, struct fuse_file_info *info) {
    char full[PATH_MAX];
    int error = fault(POWER_CLASS_CHANGE, path);
    if (error)
        return -error;
    if (info)
        return fchmod(handle_of(info)->descriptor, mode) == 0 ? 0 : -errno;
    return below(path, full) && chmod(full, mode) == 0 ? 0 : -errno;
}

static int fs_chown(const char *path, uid_t user, gid_t group, struct fuse_file_info *info) {
    char full[PATH_MAX];
    (void)info;
    return below(path, full) && lchown(full, user, group) == 0 ? 0 : -errno;
}

static int fs_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *info) {
    char full[PATH_MAX];
    (void)info;
    return below(path, full) && utimensat(AT_FDCWD, full, times, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -errno;
}

static int fs_statfs(const char *path, struct statvfs *out) {
    (void)path;
    if (statvfs(backing, out) != 0)
        return -errno;
    if (control->error == ENOSPC && control->classes & POWER_CLASS_SPACE && control->seen >= control->skip)
        out->f_bfree = out->f_bavail = 0;
    if (control->error == EROFS)
        out->f_flag |= ST_RDONLY;
    return 0;
}

/* ---- content ----------------------------------------------------------------------------------------- */

static int fs_create(const char *path, mode_t mode, struct fuse_file_info *info) {
    char full[PATH_MAX];
    int error = fault(POWER_CLASS_SPACE | POWER_CLASS_CHANGE, path);
    if (error || !below(path, full))
        return error ? -error : -ENAMETOOLONG;
    pthread_mutex_lock(&lock);
    bool there = node_of(full) != 0;
    int descriptor = open(full, (info->flags & ~(O_APPEND | O_DIRECT)) | O_CREAT | O_CLOEXEC, mode);
    error = descriptor >= 0 ? 0 : errno;
    if (!error && !there)
        note_path(POWER_FILE, node_of(full), path);
    else if (!error && info->flags & O_TRUNC)
        note((struct power_record){.kind = POWER_TRUNCATE, .node = node_of(full)}, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return error ? -error : handle_new(info, path, descriptor);
}

static int fs_open(const char *path, struct fuse_file_info *info) {
    char full[PATH_MAX];
    int error = info->flags & O_ACCMODE ? 0 : fault(POWER_CLASS_READ, path);
    if (error || !below(path, full))
        return error ? -error : -ENAMETOOLONG;
    if ((info->flags & O_ACCMODE) != O_RDONLY && control->error == EROFS && (error = fault(POWER_CLASS_CHANGE, path)))
        return -error;
    pthread_mutex_lock(&lock);
    int descriptor = open(full, (info->flags & ~(O_APPEND | O_DIRECT)) | O_CLOEXEC);
    error = descriptor >= 0 ? 0 : errno;
    if (!error && info->flags & O_TRUNC)
        note((struct power_record){.kind = POWER_TRUNCATE, .node = node_of(full)}, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return error ? -error : handle_new(info, path, descriptor);
}

static int fs_read(const char *path, char *out, size_t size, off_t offset, struct fuse_file_info *info) {
    const struct handle *handle = handle_of(info);
    int error = fault(POWER_CLASS_READ, handle->path);
    (void)path;
    if (error)
        return -error;
    ssize_t got = pread(handle->descriptor, out, size, offset);
    return got < 0 ? -errno : (int)got;
}

static int fs_write(const char *path, const char *data, size_t size, off_t offset, struct fuse_file_info *info) {
    const struct handle *handle = handle_of(info);
    int error = fault(POWER_CLASS_SPACE | POWER_CLASS_CHANGE, handle->path);
    (void)path;
    if (error)
        return -error;
    pthread_mutex_lock(&lock);
    ssize_t done = pwrite(handle->descriptor, data, size, offset);
    error = done < 0 ? errno : 0;
    if (done > 0)
        note((struct power_record){POWER_WRITE, (uint32_t)done, handle->node, (uint64_t)offset}, data, NULL, 0);
    pthread_mutex_unlock(&lock);
    return error ? -error : (int)done;
}

static int fs_truncate(const char *path, off_t size, struct fuse_file_info *info) {
    char full[PATH_MAX];
    int error = fault(POWER_CLASS_CHANGE, path);
    if (error || !below(path, full))
        return error ? -error : -ENAMETOOLONG;
    pthread_mutex_lock(&lock);
    uint64_t node = info ? handle_of(info)->node : node_of(full);
    error = (info ? ftruncate(handle_of(info)->descriptor, size) : truncate(full, size)) == 0 ? 0 : errno;
    if (!error)
        note((struct power_record){.kind = POWER_TRUNCATE, .node = node, .offset = (uint64_t)size}, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return -error;
}

/* Room without content, and a new size where that is asked for: all that a cut can take away of it is the size. */
static int fs_fallocate(const char *path, int mode, off_t offset, off_t size, struct fuse_file_info *info) {
    const struct handle *handle = handle_of(info);
    struct stat before;
    int error = fault(POWER_CLASS_SPACE | POWER_CLASS_CHANGE, handle->path);
    (void)path;
    if (error || mode & ~FALLOC_FL_KEEP_SIZE)
        return error ? -error : -EOPNOTSUPP;
    pthread_mutex_lock(&lock);
    error =
        fstat(handle->descriptor, &before) == 0 && fallocate(handle->descriptor, mode, offset, size) == 0 ? 0 : errno;
    if (!error && !mode && offset + size > before.st_size)
        note((struct power_record){.kind = POWER_TRUNCATE, .node = handle->node, .offset = (uint64_t)(offset + size)},
             NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return -error;
}

static int fs_release(const char *path, struct fuse_file_info *info) {
    struct handle *handle = handle_of(info);
    (void)path;
    close(handle->descriptor);
    free(handle);
    return 0;
}

/* ---- syncs ------------------------------------------------------------------------------------------- */

static int sync_note(struct power_record record, const char *path, const char *fault_path) {
    int error = fault(POWER_CLASS_SYNC, fault_path);
    if (error && record.kind != POWER_SYNC)
        return -error;
    pthread_mutex_lock(&lock);
    if (error)
        record.kind = POWER_SYNC_FAILED;
    record.size = path ? (uint32_t)strlen(path) + 1 : 0;
    note(record, path, NULL, 0);
    pthread_mutex_unlock(&lock);
    if (sync_us)
        nanosleep(&(struct timespec){.tv_nsec = sync_us * 1000}, NULL);
    return -error;
}

static int fs_fsync(const char *path, int data_only, struct fuse_file_info *info) {
    const struct handle *handle = handle_of(info);
    (void)path;
    (void)data_only; /* fdatasync keeps the size too where the data need it */
    if (handle->sync_all)
        return sync_note((struct power_record){.kind = POWER_SYNC_ALL}, NULL, handle->path);
    return sync_note((struct power_record){.kind = POWER_SYNC, .node = handle->node}, NULL, handle->path);
}

static int fs_fsyncdir(const char *path, int data_only, struct fuse_file_info *info) {
    (void)data_only;
    (void)info;
    return sync_note((struct power_record){.kind = POWER_SYNC_FOLDER}, path, path);
}

static int fs_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *info,
                      enum fuse_readdir_flags flags) {
    char full[PATH_MAX];
    DIR *folder = below(path, full) ? opendir(full) : NULL;
    (void)offset;
    (void)info;
    (void)flags;
    if (!folder)
        return -errno;
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat status = {.st_ino = entry->d_ino, .st_mode = (mode_t)DTTOIF(entry->d_type)};
        if (fill(buffer, entry->d_name, &status, 0, (enum fuse_fill_dir_flags)0))
            break;
    }
    closedir(folder);
    return 0;
}

static const struct fuse_operations operations = {
    .init = fs_start,
    .getattr = fs_getattr,
    .mknod = fs_mknod,
    .mkdir = fs_mkdir,
    .unlink = fs_unlink,
    .rmdir = fs_rmdir,
    .rename = fs_rename,
    .link = fs_link,
    .chmod = fs_chmod,
    .chown = fs_chown,
    .utimens = fs_utimens,
    .statfs = fs_statfs,
    .create = fs_create,
    .open = fs_open,
    .read = fs_read,
    .write = fs_write,
    .truncate = fs_truncate,
    .fallocate = fs_fallocate,
    .release = fs_release,
    .fsync = fs_fsync,
    .fsyncdir = fs_fsyncdir,
    .readdir = fs_readdir,
};

static bool control_map(const char *path) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, sizeof *control) != 0)
        return false;
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return control != MAP_FAILED;
}

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6) {
        fprintf(stderr, "usage: powerfs MOUNT BACKING LOG CONTROL [SYNC_US]\n");
        return 2;
    }
    backing = realpath(argv[2], NULL); /* libfuse changes the working folder */
    sync_us = argc > 5 ? strtol(argv[5], NULL, 10) % 1000000 : 0;
    if (strcmp(argv[3], "-") != 0)
        log_file = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (!backing || (strcmp(argv[3], "-") != 0 && log_file < 0) || !control_map(argv[4])) {
        fprintf(stderr, "powerfs: %s, %s or %s: %s\n", argv[2], argv[3], argv[4], strerror(errno));
        return 1;
    }
    umask(0);
    char *arguments[] = {argv[0], "-f", "-o", "fsname=powerfs,subtype=powerfs", argv[1], NULL};
    return fuse_main(5, arguments, &operations, NULL);
}
