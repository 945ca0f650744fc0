#include "digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void hex_of(const unsigned char *raw, unsigned size, char *out) {
    for (unsigned index = 0; index < size; index++)
        snprintf(out + (size_t)2 * index, 3, "%02x", raw[index]);
}

bool digest_hex(const void *data, size_t size, char out[DIGEST_HEX_SIZE], struct err *err) {
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned raw_size = 0;
    if (EVP_Digest(data, size, raw, &raw_size, EVP_sha256(), NULL) != 1)
        return err_set(err, ERR_MEMORY, "out of memory for SHA-256");
    hex_of(raw, raw_size, out);
    return true;
}

/* ---- in pieces ---------------------------------------------------------------------------------------- */

struct digest {
    EVP_MD_CTX *context;
};

struct digest *digest_new(struct err *err) {
    PULMO_SCOPED(digest_free_at) struct digest *digest = pulmo_alloc(1, sizeof *digest, err);
    if (!digest)
        return NULL;
    digest->context = EVP_MD_CTX_new();
    if (!digest->context) {
        err_set(err, ERR_MEMORY, "out of memory for a digest");
        return NULL;
    }
    struct digest *made = digest;
    digest = NULL;
    return made;
}

void digest_free(struct digest *digest) {
    if (digest)
        EVP_MD_CTX_free(digest->context);
    free(digest);
}

void digest_free_at(struct digest **digest) {
    digest_free(*digest);
}

bool digest_begin(struct digest *digest, struct err *err) {
    return EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL) == 1 ||
           err_set(err, ERR_MEMORY, "out of memory for SHA-256");
}

bool digest_add(struct digest *digest, const void *data, size_t size, struct err *err) {
    return EVP_DigestUpdate(digest->context, data, size) == 1 || err_set(err, ERR_MEMORY, "out of memory for SHA-256");
}

bool digest_end(struct digest *digest, char out[DIGEST_HEX_SIZE], struct err *err) {
    unsigned char raw[EVP_MAX_MD_SIZE];
    unsigned raw_size = 0;
    if (EVP_DigestFinal_ex(digest->context, raw, &raw_size) != 1)
        return err_set(err, ERR_MEMORY, "out of memory for SHA-256");
    hex_of(raw, raw_size, out);
    return true;
}

/* ---- of a file ---------------------------------------------------------------------------------------- */

static void file_close_at(FILE **file) {
    if (*file)
        fclose(*file);
}

bool digest_file_hex(const char *path, char out[DIGEST_HEX_SIZE], struct err *err) {
    PULMO_SCOPED(file_close_at) FILE *file = fopen(path, "rbe");
    if (!file)
        return err_set(err,
                       errno == ENOENT   ? ERR_NOT_FOUND
                       : errno == ENOMEM ? ERR_MEMORY
                                         : ERR_IO,
                       "cannot read %s: %s", path, strerror(errno));
    PULMO_SCOPED(digest_free_at) struct digest *digest = digest_new(err);
    unsigned char buffer[65536];
    bool good = digest && digest_begin(digest, err);
    for (size_t got = 0; good && (got = fread(buffer, 1, sizeof buffer, file)) > 0;)
        good = digest_add(digest, buffer, got, err);
    if (ferror(file))
        return err_set(err, ERR_IO, "cannot read %s: %s", path, strerror(errno));
    return good && digest_end(digest, out, err);
}
