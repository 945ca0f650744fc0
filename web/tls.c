#include "web/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define VALID_DAYS 3650
#define CIPHERS_TLS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"
#define NAME_SIZE 65 /* commonName holds at most 64, RFC 5280 A.1 */

static void key_free_at(EVP_PKEY **key) {
    EVP_PKEY_free(*key);
}
static void certificate_free_at(X509 **certificate) {
    X509_free(*certificate);
}
static void bio_free_at(BIO **bio) {
    BIO_free_all(*bio);
}

static bool refuse(struct err *err, enum err_kind kind, const char *what, const char *path) {
    char reason[256];
    ERR_error_string_n(ERR_get_error(), reason, sizeof reason);
    ERR_clear_error();
    return err_set(err, kind, "%s %s: %s", what, path, reason);
}

/* ---- making a certificate ---------------------------------------------------------------------------- */

/* The machine's name if it can stand in a certificate, else "localhost". */
static void host_name(char out[NAME_SIZE]) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-";
    if (gethostname(out, NAME_SIZE) != 0 || !memchr(out, '\0', NAME_SIZE) || !*out || out[strspn(out, allowed)] != '\0')
        snprintf(out, NAME_SIZE, "localhost");
}

static bool add_extension(X509 *certificate, int nid, const char *value) {
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_nconf_nid(NULL, &context, nid, value);
    bool added = extension && X509_add_ext(certificate, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return added;
}

static bool set_serial(X509 *certificate) {
    unsigned char random[16];
    if (RAND_bytes(random, sizeof random) != 1)
        return false;
    random[0] &= 0x7F; /* positive, RFC 5280 4.1.2.2 */
    BIGNUM *number = BN_bin2bn(random, sizeof random, NULL);
    bool set = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL;
    BN_free(number);
    return set;
}

static bool set_names(X509 *certificate) {
    char host[NAME_SIZE], alternatives[NAME_SIZE + 64];
    host_name(host);
    snprintf(alternatives, sizeof alternatives, "DNS:localhost,DNS:%s,IP:127.0.0.1,IP:::1", host);
    X509_NAME *name = X509_get_subject_name(certificate);
    return X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const unsigned char *)"Pulmo", -1, -1, 0) == 1 &&
           X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)host, -1, -1, 0) == 1 &&
           X509_set_issuer_name(certificate, name) == 1 &&
           add_extension(certificate, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(certificate, NID_key_usage, "critical,digitalSignature") &&
           add_extension(certificate, NID_ext_key_usage, "serverAuth") &&
           add_extension(certificate, NID_subject_alt_name, alternatives);
}

/* An hour of slack at the start: clocks of browsers differ. */
static bool fill_certificate(X509 *certificate, EVP_PKEY *key) {
    return X509_set_version(certificate, X509_VERSION_3) == 1 && set_serial(certificate) &&
           X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL &&
           X509_time_adj_ex(X509_getm_notAfter(certificate), VALID_DAYS, 0, NULL) != NULL &&
           X509_set_pubkey(certificate, key) == 1 && set_names(certificate) &&
           X509_sign(certificate, key, EVP_sha256()) > 0;
}

static bool write_certificate(const char *path, EVP_PKEY *key, struct err *err) {
    PULMO_SCOPED(certificate_free_at) X509 *certificate = X509_new();
    PULMO_SCOPED(bio_free_at) BIO *pem = BIO_new(BIO_s_mem());
    if (!certificate || !pem || !fill_certificate(certificate, key) || PEM_write_bio_X509(pem, certificate) != 1)
        return refuse(err, ERR_INTERNAL, "cannot make the certificate", path);
    char *text = NULL;
    long size = BIO_get_mem_data(pem, &text);
    return bytes_write_file(path, text, (size_t)size, true, err);
}

/* Never readable by others, not even for a moment: made with its mode, under another name until it is whole. */
static bool write_private(const char *path, const char *text, size_t size, struct err *err) {
    char temporary[4096];
    int length = snprintf(temporary, sizeof temporary, "%s.new", path);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return err_set(err, ERR_LIMIT, "path too long: %s", path);
    unlink(temporary);
    int descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool written = descriptor >= 0 && write(descriptor, text, size) == (ssize_t)size && fsync(descriptor) == 0;
    int number = errno;
    if (descriptor >= 0)
        close(descriptor);
    if (!written || rename(temporary, path) != 0)
        return err_set(err, ERR_IO, "cannot write the key %s: %s", path, strerror(written ? errno : number));
    return true;
}

static bool write_key(const char *path, EVP_PKEY *key, struct err *err) {
    PULMO_SCOPED(bio_free_at) BIO *pem = BIO_new(BIO_s_secmem());
    if (!pem || PEM_write_bio_PrivateKey(pem, key, NULL, NULL, 0, NULL, NULL) != 1)
        return refuse(err, ERR_INTERNAL, "cannot write the key", path);
    char *text = NULL;
    long size = BIO_get_mem_data(pem, &text);
    return write_private(path, text, (size_t)size, err);
}

/* The key of the file, or a new one written to it; owned. */
static EVP_PKEY *key_for(const char *path, struct err *err) {
    if (access(path, F_OK) == 0) {
        PULMO_SCOPED(bio_free_at) BIO *file = BIO_new_file(path, "r");
        EVP_PKEY *key = file ? PEM_read_bio_PrivateKey(file, NULL, NULL, NULL) : NULL;
        if (!key)
            refuse(err, ERR_CONFIG, "cannot read the key", path);
        return key;
    }
    EVP_PKEY *key = EVP_EC_gen("P-256");
    if (!key)
        refuse(err, ERR_INTERNAL, "cannot make the key", path);
    else if (!write_key(path, key, err)) {
        EVP_PKEY_free(key);
        key = NULL;
    }
    return key;
}

static bool ensure_certificate(const char *certificate_file, const char *key_file, struct err *err) {
    if (access(certificate_file, F_OK) == 0) {
        if (access(key_file, F_OK) != 0)
            return err_set(err, ERR_CONFIG, "the certificate %s has no key %s", certificate_file, key_file);
        return true;
    }
    PULMO_SCOPED(key_free_at) EVP_PKEY *key = key_for(key_file, err);
    return key && write_certificate(certificate_file, key, err);
}

/* ---- context ----------------------------------------------------------------------------------------- */

static bool context_fill(SSL_CTX *context, const char *certificate_file, const char *key_file, struct err *err) {
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_cipher_list(context, CIPHERS_TLS_1_2) != 1)
        return refuse(err, ERR_INTERNAL, "cannot set up TLS with", certificate_file);
    if (SSL_CTX_use_certificate_chain_file(context, certificate_file) != 1)
        return refuse(err, ERR_CONFIG, "cannot use the certificate", certificate_file);
    if (SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1)
        return refuse(err, ERR_CONFIG, "cannot use the key", key_file);
    return true;
}

SSL_CTX *tls_context_new(const char *certificate_file, const char *key_file, struct err *err) {
    if (!ensure_certificate(certificate_file, key_file, err))
        return NULL;
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (!context) {
        refuse(err, ERR_MEMORY, "no TLS context for", certificate_file);
        return NULL;
    }
    if (context_fill(context, certificate_file, key_file, err))
        return context;
    SSL_CTX_free(context);
    return NULL;
}
