#include "store/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_SIZE ((size_t)1 << 20)

const char *const backup_files[] = {"https-certificate.pem", "https-key.pem", "audit-key.pem", "audit-key.pub.pem"};
const size_t backup_file_count = sizeof backup_files / sizeof *backup_files;

bool backup_path(const char *folder, const char *name, char out[BACKUP_PATH_SIZE], struct err *err) {
    int length = snprintf(out, BACKUP_PATH_SIZE, "%s/%s", folder, name);
    if (length < 0 || length >= BACKUP_PATH_SIZE)
        return err_set(err, ERR_LIMIT, "path too long: %s", folder);
    return true;
}

bool backup_folder_make(const char *folder, const char *name, struct err *err) {
    char path[BACKUP_PATH_SIZE];
    if (!backup_path(folder, name, path, err))
        return false;
    if (mkdir(path, 0750) != 0 && errno != EEXIST)
        return err_set(err, errno == ENOSPC ? ERR_NO_SPACE : ERR_IO, "cannot make %s: %s", path, strerror(errno));
    return true;
}

static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

static void context_free_at(EVP_MD_CTX **context) {
    EVP_MD_CTX_free(*context);
}

static bool source_fails(struct err *err, const char *path) {
    return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_INPUT, "cannot read %s: %s", path, strerror(errno));
}

static bool target_fails(struct err *err, const char *what, const char *path) {
    enum err_kind kind = errno == ENOSPC || errno == EDQUOT ? ERR_NO_SPACE : ERR_IO;
    return err_set(err, kind, "cannot %s %s: %s", what, path, strerror(errno));
}

struct copying {
    const char *from, *to; /* to: NULL = only read */
    int source, target;
    EVP_MD_CTX *context;
    uint8_t *piece;
};

static bool copy_pieces(struct copying *copying, int64_t *size, struct err *err) {
    for (*size = 0;;) {
        ssize_t got = read(copying->source, copying->piece, PIECE_SIZE);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return source_fails(err, copying->from);
        if (got == 0)
            return true;
        if (EVP_DigestUpdate(copying->context, copying->piece, (size_t)got) != 1)
            return err_set(err, ERR_INTERNAL, "SHA-256 failed");
        if (copying->to && !bytes_write_all(copying->target, copying->piece, (size_t)got))
            return target_fails(err, "write", copying->to);
        *size += got;
    }
}

static bool copy_open(struct copying *copying, struct backup_copied *out, struct err *err) {
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned raw_size = 0;
    if (EVP_DigestInit_ex(copying->context, EVP_sha256(), NULL) != 1)
        return err_set(err, ERR_INTERNAL, "SHA-256 failed");
    if (!copy_pieces(copying, &out->size, err))
        return false;
    if (copying->to && fsync(copying->target) != 0)
        return target_fails(err, "sync", copying->to);
    if (EVP_DigestFinal_ex(copying->context, raw, &raw_size) != 1)
        return err_set(err, ERR_INTERNAL, "SHA-256 failed");
    for (unsigned index = 0; index < raw_size; index++)
        snprintf(out->digest + (size_t)2 * index, 3, "%02x", raw[index]);
    return true;
}

bool backup_copy(const char *from, const char *to, unsigned mode, struct backup_copied *out, struct err *err) {
    PULMO_SCOPED(descriptor_close_at) int source = open(from, O_RDONLY | O_CLOEXEC);
    if (source < 0)
        return source_fails(err, from);
    PULMO_SCOPED(descriptor_close_at)
    int target = to ? open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, (mode_t)mode) : -1;
    if (to && target < 0)
        return target_fails(err, "make", to);
    PULMO_SCOPED(context_free_at) EVP_MD_CTX *context = EVP_MD_CTX_new();
    PULMO_SCOPED(pulmo_free_at) uint8_t *piece = pulmo_alloc(PIECE_SIZE, 1, err);
    if (!context || !piece)
        return err_set(err, ERR_MEMORY, "out of memory for a copy");
    struct copying copying = {from, to, source, target, context, piece};
    struct backup_copied copied = {.size = 0};
    bool good = copy_open(&copying, &copied, err);
    if (good)
        *out = copied;
    else if (to)
        unlink(to);
    return good;
}

struct store *backup_database_open(const char *path, int flags, struct err *err) {
    PULMO_SCOPED(store_close_at) struct store *store = pulmo_alloc(1, sizeof *store, err);
    if (!store)
        return NULL;
    store->watch = store->holder_file = -1;
    char *folder = strdup(path);
    store->config.folder = folder;
    if (folder && strrchr(folder, '/'))
        *strrchr(folder, '/') = '\0';
    if (!folder || sqlite3_open_v2(path, &store->database, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        err_set(err, ERR_IO, "cannot open the database %s", path);
        return NULL;
    }
    sqlite3_extended_result_codes(store->database, 1);
    struct store *opened = store;
    store = NULL;
    return opened;
}
