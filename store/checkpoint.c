/* Signed checkpoints of the audit chain. The chain alone cannot show that somebody with the database rebuilt all of it;
 * a checkpoint that has left the machine can, since the digest of one row covers every row before it.
 *
 * The file is text, so that it can be printed, mailed and kept for years:
 *   Pulmo audit checkpoint 1
 *   device <UID of the installation>
 *   rows <n>
 *   digest <SHA-256 of row n>
 *   time_ms <Unix epoch>
 *   signature <Ed25519 over the lines before, hexadecimal> */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "store/audit.h"
#include "store/backup.h"
#include "store/handle.h"

#define KEY_FILE "audit-key.pem"
#define PUBLIC_KEY_FILE "audit-key.pub.pem"
#define TEXT_SIZE 512
#define SIGNATURE_SIZE 64 /* RFC 8032 5.1.6 */
#define SIGNATURE_WORD "signature "

static void key_free_at(EVP_PKEY **key) {
    EVP_PKEY_free(*key);
}
static void context_free_at(EVP_MD_CTX **context) {
    EVP_MD_CTX_free(*context);
}
static void bio_free_at(BIO **bio) {
    BIO_free_all(*bio);
}

/* ---- key --------------------------------------------------------------------------------------------- */

/* Whole and synced before it has its name, and never readable by others. */
static bool private_write(const char *path, const char *text, size_t size, struct err *err) {
    char temporary[BACKUP_PATH_SIZE];
    int length = snprintf(temporary, sizeof temporary, "%s.new", path);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return err_set(err, ERR_LIMIT, "path too long: %s", path);
    unlink(temporary);
    int descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool written =
        descriptor >= 0 && bytes_write_all(descriptor, (const uint8_t *)text, size) && fsync(descriptor) == 0;
    int number = errno;
    if (descriptor >= 0)
        close(descriptor);
    if (!written || rename(temporary, path) != 0)
        return err_set(err, ERR_IO, "cannot write the key %s: %s", path, strerror(written ? errno : number));
    return true;
}

/* The public half follows the private one, and is made again when it is gone. */
static bool public_write(const char *path, EVP_PKEY *key, struct err *err) {
    PULMO_SCOPED(bio_free_at) BIO *pem = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (!pem || PEM_write_bio_PUBKEY(pem, key) != 1)
        return err_set(err, ERR_INTERNAL, "cannot write the public key %s", path);
    long size = BIO_get_mem_data(pem, &text);
    return bytes_write_file(path, text, (size_t)size, true, err);
}

static EVP_PKEY *key_make(const char *path, struct err *err) {
    PULMO_SCOPED(key_free_at) EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    PULMO_SCOPED(bio_free_at) BIO *pem = BIO_new(BIO_s_secmem());
    char *text = NULL;
    if (!key || !pem || PEM_write_bio_PrivateKey(pem, key, NULL, NULL, 0, NULL, NULL) != 1) {
        err_set(err, ERR_INTERNAL, "cannot make the key %s", path);
        return NULL;
    }
    long size = BIO_get_mem_data(pem, &text);
    if (!private_write(path, text, (size_t)size, err))
        return NULL;
    EVP_PKEY *made = key;
    key = NULL;
    return made;
}

/* The installation's key; owned. */
static EVP_PKEY *key_get(const char *folder, struct err *err) {
    char path[BACKUP_PATH_SIZE], public_path[BACKUP_PATH_SIZE];
    if (!backup_path(folder, KEY_FILE, path, err) || !backup_path(folder, PUBLIC_KEY_FILE, public_path, err))
        return NULL;
    PULMO_SCOPED(key_free_at) EVP_PKEY *key = NULL;
    if (access(path, F_OK) == 0) {
        PULMO_SCOPED(bio_free_at) BIO *file = BIO_new_file(path, "r");
        key = file ? PEM_read_bio_PrivateKey(file, NULL, NULL, NULL) : NULL;
        if (!key || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519) {
            err_set(err, ERR_CONFIG, "%s is no Ed25519 key", path);
            return NULL;
        }
    } else {
        key = key_make(path, err);
    }
    if (!key || (access(public_path, F_OK) != 0 && !public_write(public_path, key, err)))
        return NULL;
    EVP_PKEY *got = key;
    key = NULL;
    return got;
}

/* ---- text -------------------------------------------------------------------------------------------- */

static void text_make(const struct store_checkpoint *checkpoint, char out[TEXT_SIZE]) {
    snprintf(out, TEXT_SIZE, "Pulmo audit checkpoint 1\ndevice %s\nrows %" PRId64 "\ndigest %s\ntime_ms %" PRId64 "\n",
             checkpoint->device_uid, checkpoint->rows, checkpoint->digest, checkpoint->time_ms);
}

static bool sign(EVP_PKEY *key, const char *text, char out[2 * SIGNATURE_SIZE + 1], struct err *err) {
    unsigned char raw[SIGNATURE_SIZE];
    size_t size = sizeof raw;
    PULMO_SCOPED(context_free_at) EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!context || EVP_DigestSignInit(context, NULL, NULL, NULL, key) != 1 ||
        EVP_DigestSign(context, raw, &size, (const unsigned char *)text, strlen(text)) != 1 || size != sizeof raw)
        return err_set(err, ERR_INTERNAL, "cannot sign the checkpoint");
    for (size_t index = 0; index < size; index++)
        snprintf(out + 2 * index, 3, "%02x", raw[index]);
    return true;
}

/* text_make of what was read must be what was signed: there is one spelling, and nothing beside it. */
static bool text_read(const char *text, struct store_checkpoint *out, unsigned char signature[SIGNATURE_SIZE],
                      struct err *err) {
    struct store_checkpoint read = {.rows = 0};
    char canonical[TEXT_SIZE];
    if (sscanf(text,
               "Pulmo audit checkpoint 1\ndevice %64[0-9.]\nrows %" SCNd64 "\ndigest %64[0-9a-f]\ntime_ms %" SCNd64,
               read.device_uid, &read.rows, read.digest, &read.time_ms) != 4)
        return err_set(err, ERR_INPUT, "it is no checkpoint of an audit chain");
    text_make(&read, canonical);
    size_t size = strlen(canonical);
    if (strncmp(text, canonical, size) != 0 || strncmp(text + size, SIGNATURE_WORD, sizeof SIGNATURE_WORD - 1) != 0)
        return err_set(err, ERR_INPUT, "it is no checkpoint of an audit chain");
    const char *hex = text + size + sizeof SIGNATURE_WORD - 1;
    for (size_t index = 0; index < SIGNATURE_SIZE; index++, hex += 2)
        if (strspn(hex, "0123456789abcdef") < 2 || sscanf(hex, "%2hhx", &signature[index]) != 1)
            return err_set(err, ERR_INPUT, "the checkpoint's signature is cut off");
    *out = read;
    return true;
}

static bool signature_check(const char *public_key_path, const struct store_checkpoint *checkpoint,
                            const unsigned char signature[SIGNATURE_SIZE], struct err *err) {
    char text[TEXT_SIZE];
    text_make(checkpoint, text);
    PULMO_SCOPED(bio_free_at) BIO *file = BIO_new_file(public_key_path, "r");
    PULMO_SCOPED(key_free_at) EVP_PKEY *key = file ? PEM_read_bio_PUBKEY(file, NULL, NULL, NULL) : NULL;
    PULMO_SCOPED(context_free_at) EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!key || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519)
        return err_set(err, ERR_INPUT, "%s is no public Ed25519 key", public_key_path);
    if (!context || EVP_DigestVerifyInit(context, NULL, NULL, NULL, key) != 1)
        return err_set(err, ERR_INTERNAL, "cannot check a signature");
    return EVP_DigestVerify(context, signature, SIGNATURE_SIZE, (const unsigned char *)text, strlen(text)) == 1 ||
           err_set(err, ERR_DENIED, "the checkpoint was changed, or signed by another key than %s", public_key_path);
}

/* ---- together ---------------------------------------------------------------------------------------- */

bool store_checkpoint_write(struct store *store, const char *path, struct store_checkpoint *out, struct err *err) {
    struct store_audit_verdict verdict = {.rows = 0};
    struct store_checkpoint checkpoint = {.time_ms = pulmo_now_ms()};
    char text[TEXT_SIZE], file[2 * TEXT_SIZE], signature[2 * SIGNATURE_SIZE + 1];
    if (!store_device_uid(store, checkpoint.device_uid, err) || !audit_verify(store, NULL, &verdict, err))
        return false;
    if (verdict.first_bad_row)
        return err_set(err, ERR_CONFLICT, "the audit chain is broken at row %lld (%s): it is not signed",
                       (long long)verdict.first_bad_row, verdict.reason);
    PULMO_SCOPED(key_free_at) EVP_PKEY *key = key_get(store->config.folder, err);
    checkpoint.rows = verdict.rows;
    memcpy(checkpoint.digest, verdict.digest, sizeof checkpoint.digest);
    text_make(&checkpoint, text);
    if (!key || !sign(key, text, signature, err))
        return false;
    int size = snprintf(file, sizeof file, "%s" SIGNATURE_WORD "%s\n", text, signature);
    if (!bytes_write_file(path, file, (size_t)size, true, err))
        return false;
    *out = checkpoint;
    return true;
}

bool store_checkpoint_verify(struct store *store, const char *path, const char *public_key_path,
                             struct store_checkpoint *checkpoint, struct store_audit_verdict *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    unsigned char signature[SIGNATURE_SIZE];
    char device_uid[DICOM_UID_SIZE];
    struct store_checkpoint read = {.rows = 0};
    if (!bytes_read_file(path, 2 * TEXT_SIZE, &file, err) || !bytes_append(&file, "", 1, 4 * TEXT_SIZE, err))
        return false;
    if (!text_read((const char *)file.data, &read, signature, err))
        return err_within(err, "%s", path);
    if (!signature_check(public_key_path, &read, signature, err) || !store_device_uid(store, device_uid, err))
        return false;
    if (strcmp(device_uid, read.device_uid) != 0)
        return err_set(err, ERR_CONFLICT, "the checkpoint is of installation %s, this is %s", read.device_uid,
                       device_uid);
    struct audit_point point = {.rows = read.rows};
    memcpy(point.digest, read.digest, sizeof point.digest);
    if (!audit_verify(store, &point, out, err))
        return false;
    *checkpoint = read;
    return true;
}
