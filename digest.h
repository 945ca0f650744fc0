/* SHA-256 digests (FIPS 180-4, through OpenSSL), the names of content in the store and the audit chain. */
#ifndef PULMO_DIGEST_H
#define PULMO_DIGEST_H

#include "pulmo.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DIGEST_HEX_SIZE 65 /* 64 lower-case hexadecimal digits and NUL */

/* Digest of size bytes as hexadecimal text. Any thread. */
bool digest_hex(const void *data, size_t size, char out[DIGEST_HEX_SIZE], struct err *err) PULMO_MUST_USE;
/* Digest of a file's content, read in pieces. */
bool digest_file_hex(const char *path, char out[DIGEST_HEX_SIZE], struct err *err) PULMO_MUST_USE;

/* The digest of what comes in pieces: begin, add ..., end; then begin again. One thread at a time. */
struct digest;
struct digest *digest_new(struct err *err);
void digest_free(struct digest *digest);
void digest_free_at(struct digest **digest);
bool digest_begin(struct digest *digest, struct err *err) PULMO_MUST_USE;
bool digest_add(struct digest *digest, const void *data, size_t size, struct err *err) PULMO_MUST_USE;
bool digest_end(struct digest *digest, char out[DIGEST_HEX_SIZE], struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
