#include "digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
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

static void context_free_at(EVP_MD_CTX **context) {
    EVP_MD_CTX_free(*context);
}

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
    PULMO_SCOPED(context_free_at) EVP_MD_CTX *context = EVP_MD_CTX_new();
    unsigned char buffer[65536], raw[EVP_MAX_MD_SIZE];
    unsigned raw_size = 0;
    bool good = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
    for (size_t got = 0; good && (got = fread(buffer, 1, sizeof buffer, file)) > 0;)
        good = EVP_DigestUpdate(context, buffer, got) == 1;
    if (ferror(file))
        return err_set(err, ERR_IO, "cannot read %s: %s", path, strerror(errno));
    if (!good || EVP_DigestFinal_ex(context, raw, &raw_size) != 1)
        return err_set(err, ERR_MEMORY, "out of memory for SHA-256");
    hex_of(raw, raw_size, out);
    return true;
}
