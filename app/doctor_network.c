#include "app/doctor.h"
#include "dicom/dicom.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PEER_TIMEOUT_S 5
#define CERTIFICATE_DAYS_MIN 30

static void certificate_free_at(X509 **certificate) {
    X509_free(*certificate);
}
static void key_free_at(EVP_PKEY **key) {
    EVP_PKEY_free(*key);
}
static void file_close_at(FILE **file) {
    if (*file)
        fclose(*file);
}
static void descriptor_close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

/* ---- ports ------------------------------------------------------------------------------------------- */

static bool port_is_free(const char *bind_address, int64_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    PULMO_SCOPED(descriptor_close_at) int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    if (*bind_address && inet_pton(AF_INET, bind_address, &address.sin_addr) != 1)
        return true;                                             /* a name or IPv6: the start itself will tell */
    setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* as the listener does */
    return bind(probe, (const struct sockaddr *)&address, sizeof address) == 0 || errno != EADDRINUSE;
}

static const char *own_address(const char *bind_address) {
    return *bind_address && strcmp(bind_address, "0.0.0.0") != 0 ? bind_address : "127.0.0.1";
}

static void check_dicom_port(struct doctor *doctor) {
    const struct config *config = &doctor->config;
    struct dicom_destination self = {.host = own_address(config->dicom_bind),
                                     .called_aet = config->ae_title,
                                     .calling_aet = config->ae_title,
                                     .port = (uint16_t)config->dicom_port,
                                     .timeout_s = PEER_TIMEOUT_S};
    struct err err = {0};
    if (!config->dicom_port)
        doctor_say(doctor, DOCTOR_OK, "DICOM: any free one, as configured");
    else if (port_is_free(config->dicom_bind, config->dicom_port))
        doctor_say(doctor, DOCTOR_OK, "DICOM port %lld is free: reception does not run", (long long)config->dicom_port);
    else if (dicom_echo(&self, &err) || err.kind == ERR_DENIED) /* an allow-list that does not name ourselves */
        doctor_say(doctor, DOCTOR_OK, "DICOM port %lld answers as %s", (long long)config->dicom_port, config->ae_title);
    else
        doctor_say(doctor, DOCTOR_FAILED,
                   "DICOM port %lld is taken and does not answer as %s: %s; another program has it",
                   (long long)config->dicom_port, config->ae_title, err.text);
}

static int connect_to(const char *host, int64_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval timeout = {.tv_sec = PEER_TIMEOUT_S};
    int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(peer, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    if (peer >= 0 && inet_pton(AF_INET, host, &address.sin_addr) == 1 &&
        connect(peer, (const struct sockaddr *)&address, sizeof address) == 0)
        return peer;
    if (peer >= 0)
        close(peer);
    return -1;
}

static X509 *certificate_read(const char *path) {
    PULMO_SCOPED(file_close_at) FILE *file = fopen(path, "re");
    return file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;
}

/* Whoever listens there shows the certificate that we would. */
static bool shows_certificate(const char *host, int64_t port, const char *path) {
    PULMO_SCOPED(certificate_free_at) X509 *own = certificate_read(path);
    PULMO_SCOPED(descriptor_close_at) int peer = connect_to(host, port);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *connection = context ? SSL_new(context) : NULL;
    bool same = false;
    if (own && peer >= 0 && connection && SSL_set_fd(connection, peer) == 1 && SSL_connect(connection) == 1) {
        PULMO_SCOPED(certificate_free_at) X509 *shown = SSL_get1_peer_certificate(connection);
        same = shown && X509_cmp(shown, own) == 0;
    }
    SSL_free(connection);
    SSL_CTX_free(context);
    return same;
}

static void https_files(const struct config *config, char certificate[CONFIG_TEXT_SIZE + 32],
                        char key[CONFIG_TEXT_SIZE + 32]) {
    bool own = *config->https_certificate == '\0'; /* as app/web_process.c */
    snprintf(certificate, CONFIG_TEXT_SIZE + 32, "%s%s", own ? config->data_folder : config->https_certificate,
             own ? "/https-certificate.pem" : "");
    snprintf(key, CONFIG_TEXT_SIZE + 32, "%s%s", own ? config->data_folder : config->https_key,
             own ? "/https-key.pem" : "");
}

static void check_https_port(struct doctor *doctor) {
    const struct config *config = &doctor->config;
    char certificate[CONFIG_TEXT_SIZE + 32], key[CONFIG_TEXT_SIZE + 32];
    https_files(config, certificate, key);
    if (!config->https_port)
        doctor_say(doctor, DOCTOR_OK, "HTTPS: any free one, as configured");
    else if (port_is_free(config->https_bind, config->https_port))
        doctor_say(doctor, DOCTOR_OK, "HTTPS port %lld is free: the web server does not run",
                   (long long)config->https_port);
    else if (shows_certificate(own_address(config->https_bind), config->https_port, certificate))
        doctor_say(doctor, DOCTOR_OK, "HTTPS port %lld answers with our certificate", (long long)config->https_port);
    else
        doctor_say(doctor, DOCTOR_FAILED, "HTTPS port %lld is taken, and not by us: another program has it",
                   (long long)config->https_port);
}

void doctor_ports(struct doctor *doctor) {
    check_dicom_port(doctor);
    check_https_port(doctor);
}

/* ---- certificates ------------------------------------------------------------------------------------ */

static bool key_fits(X509 *certificate, const char *path) {
    PULMO_SCOPED(file_close_at) FILE *file = fopen(path, "re");
    PULMO_SCOPED(key_free_at) EVP_PKEY *key = file ? PEM_read_PrivateKey(file, NULL, NULL, NULL) : NULL;
    return key && X509_check_private_key(certificate, key) == 1;
}

static void check_certificate(struct doctor *doctor, const char *what, const char *path, const char *key_path) {
    PULMO_SCOPED(certificate_free_at) X509 *certificate = certificate_read(path);
    struct stat status;
    int days = 0, seconds = 0;
    if (!certificate)
        doctor_say(doctor, DOCTOR_FAILED, "%s: %s is no certificate that can be read", what, path);
    else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
        doctor_say(doctor, DOCTOR_FAILED, "%s: %s is not valid yet; look at the clock", what, path);
    else if (!ASN1_TIME_diff(&days, &seconds, NULL, X509_get0_notAfter(certificate)) || days < 0 || seconds < 0)
        doctor_say(doctor, DOCTOR_FAILED, "%s: %s has run out; renew it", what, path);
    else if (!key_fits(certificate, key_path))
        doctor_say(doctor, DOCTOR_FAILED, "%s: %s is not the key of %s", what, key_path, path);
    else if (stat(key_path, &status) == 0 && (status.st_mode & S_IRWXO))
        doctor_say(doctor, DOCTOR_FAILED, "%s: everybody on this machine may read the key %s; chmod 600", what,
                   key_path);
    else
        doctor_say(doctor, days < CERTIFICATE_DAYS_MIN ? DOCTOR_WARNING : DOCTOR_OK, "%s: %s is valid for %d days%s",
                   what, path, days, days < CERTIFICATE_DAYS_MIN ? "; renew it" : "");
}

void doctor_certificates(struct doctor *doctor) {
    const struct config *config = &doctor->config;
    char certificate[CONFIG_TEXT_SIZE + 32], key[CONFIG_TEXT_SIZE + 32];
    https_files(config, certificate, key);
    if (!*config->https_certificate && access(certificate, F_OK) != 0)
        doctor_say(doctor, DOCTOR_SKIPPED, "HTTPS: there is none yet; pulmo serve makes it");
    else
        check_certificate(doctor, "HTTPS", certificate, key);
    if (*config->dicom_tls_certificate)
        check_certificate(doctor, "DICOM TLS", config->dicom_tls_certificate, config->dicom_tls_key);
}

/* ---- destinations ------------------------------------------------------------------------------------ */

static void check_destination(struct doctor *doctor, const struct config_destination *to) {
    const struct config *config = &doctor->config;
    struct dicom_tls tls = {.ca_file = config->destination_tls_ca, .require_peer_certificate = true};
    struct dicom_destination destination = {.host = to->host,
                                            .called_aet = to->ae_title,
                                            .calling_aet = config->ae_title,
                                            .port = to->port,
                                            .tls = *config->destination_tls_ca ? &tls : NULL,
                                            .timeout_s = PEER_TIMEOUT_S};
    struct err err = {0};
    if (dicom_echo(&destination, &err))
        doctor_say(doctor, DOCTOR_OK, "%s answers C-ECHO", to->name);
    else
        doctor_say(doctor, DOCTOR_FAILED, "%s: %s; results wait in the outbox until it answers", to->name, err.text);
}

void doctor_destinations(struct doctor *doctor) {
    const char *cursor = doctor->config.destinations;
    struct config_destination destination;
    struct err err = {0};
    size_t count = 0;
    for (; config_destination_next(&cursor, &destination, &err); count++)
        check_destination(doctor, &destination);
    if (err.kind)
        doctor_say(doctor, DOCTOR_FAILED, "%s", err.text);
    else if (!count)
        doctor_say(doctor, DOCTOR_WARNING, "none is configured: results stay in the browser");
}
