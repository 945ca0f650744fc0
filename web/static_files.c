#include "web/static_files.h"
#include "digest.h"
#include "web/reply.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 64
#define FILE_BYTES_MAX ((size_t)32 << 20)
#define NAME_SIZE 128

struct static_file {
    char name[NAME_SIZE];
    const char *media_type;
    struct bytes content, compressed;
    char etag[DIGEST_HEX_SIZE + 4]; /* weak: the compressed form has the same */
};
struct static_files {
    struct static_file items[FILES_MAX];
    size_t count;
};

static const char *media_type_of(const char *name) {
    static const struct {
        const char *suffix, *media_type;
    } rows[] = {{".html", "text/html; charset=utf-8"},
                {".js", "text/javascript; charset=utf-8"},
                {".css", "text/css; charset=utf-8"},
                {".svg", "image/svg+xml"},
                {".png", "image/png"},
                {".woff2", "font/woff2"},
                {".wasm", "application/wasm"},
                {".txt", "text/plain; charset=utf-8"}};
    const char *suffix = strrchr(name, '.');
    for (size_t index = 0; suffix && index < sizeof rows / sizeof *rows; index++)
        if (strcmp(suffix, rows[index].suffix) == 0)
            return rows[index].media_type;
    return NULL;
}

static bool read_optional(const char *path, struct bytes *out, struct err *err) {
    struct err missing = {0};
    if (bytes_read_file(path, FILE_BYTES_MAX, out, &missing) || missing.kind == ERR_NOT_FOUND)
        return true;
    return err_set(err, missing.kind, "%s", missing.text);
}

static bool add_file(struct static_files *files, const char *folder, const char *name, struct err *err) {
    const char *media_type = media_type_of(name);
    if (!media_type || strlen(name) >= NAME_SIZE)
        return true;
    if (files->count == FILES_MAX)
        return err_set(err, ERR_LIMIT, "%s holds more than %d files", folder, FILES_MAX);
    char path[4096], digest[DIGEST_HEX_SIZE];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    struct static_file *file = &files->items[files->count++];
    *file = (struct static_file){.media_type = media_type};
    snprintf(file->name, sizeof file->name, "%s", name);
    if (!bytes_read_file(path, FILE_BYTES_MAX, &file->content, err) ||
        !digest_hex(file->content.data, file->content.size, digest, err))
        return false;
    snprintf(file->etag, sizeof file->etag, "W/\"%s\"", digest);
    snprintf(path, sizeof path, "%s/%s.gz", folder, name);
    return read_optional(path, &file->compressed, err);
}

static const struct static_file *find(const struct static_files *files, const char *path) {
    const char *name = strcmp(path, "/") == 0 ? "index.html" : path + 1;
    for (size_t index = 0; index < files->count; index++)
        if (strcmp(files->items[index].name, name) == 0)
            return &files->items[index];
    return NULL;
}

static bool read_folder(struct static_files *files, const char *folder, struct err *err) {
    DIR *entries = opendir(folder);
    if (!entries)
        return err_set(err, ERR_CONFIG, "the viewer's folder %s cannot be read (is it built?)", folder);
    bool good = true;
    for (const struct dirent *entry = readdir(entries); good && entry; entry = readdir(entries))
        if (entry->d_type == DT_REG || entry->d_type == DT_UNKNOWN)
            good = add_file(files, folder, entry->d_name, err);
    closedir(entries);
    if (good && !find(files, "/"))
        return err_set(err, ERR_CONFIG, "the viewer's folder %s has no index.html (is it built?)", folder);
    return good;
}

struct static_files *static_files_new(const char *folder, struct err *err) {
    struct static_files *files = pulmo_alloc(1, sizeof *files, err);
    if (files && !read_folder(files, folder, err)) {
        static_files_free(files);
        return NULL;
    }
    return files;
}

void static_files_free(struct static_files *files) {
    for (size_t index = 0; files && index < files->count; index++) {
        bytes_free(&files->items[index].content);
        bytes_free(&files->items[index].compressed);
    }
    free(files);
}

static bool header_has(struct request *request, const char *name, const char *part) {
    const char *value = evhttp_find_header(evhttp_request_get_input_headers(request->http), name);
    return value && strstr(value, part);
}

bool static_files_reply(struct request *request, struct err *err) {
    const struct static_file *file = find(request->web->files, request->path);
    if (!file)
        return err_set(err, ERR_NOT_FOUND, "there is nothing at this address");
    if (!reply_header(request, "ETag", file->etag, err))
        return false;
    if (header_has(request, "If-None-Match", file->etag))
        return reply_empty(request, 304, err);
    if (!file->compressed.size || !header_has(request, "Accept-Encoding", "gzip"))
        return reply_borrowed(request, file->media_type, file->content.data, file->content.size, err);
    return reply_header(request, "Content-Encoding", "gzip", err) &&
           reply_header(request, "Vary", "Accept-Encoding", err) &&
           reply_borrowed(request, file->media_type, file->compressed.data, file->compressed.size, err);
}
