/* The configuration: one file of `key = value` lines, read once, constant after start.
 *
 * One table in config.c (key, kind, default, range, help) drives parsing and pulmo.conf.example; a test compares them.
 * An unknown key or a bad value refuses the start and names the line. */
#ifndef PULMO_CONFIG_H
#define PULMO_CONFIG_H

#include "pulmo.h"

#define CONFIG_TEXT_SIZE 256
#define CONFIG_LIST_SIZE 1024

struct config {
    /* where things lie */
    char data_folder[CONFIG_TEXT_SIZE], model[CONFIG_TEXT_SIZE], viewer_folder[CONFIG_TEXT_SIZE];
    /* DICOM reception */
    char ae_title[17], dicom_bind[64], called_aets[CONFIG_LIST_SIZE], calling_aets[CONFIG_LIST_SIZE],
        allowed_addresses[CONFIG_LIST_SIZE];
    int64_t dicom_port, dicom_tls_port, associations_max, associations_max_an_address, instance_mb_max,
        reception_mb_max, pdu_bytes_max, dicom_timeout_s;
    char dicom_tls_certificate[CONFIG_TEXT_SIZE], dicom_tls_key[CONFIG_TEXT_SIZE], dicom_tls_ca[CONFIG_TEXT_SIZE];
    int64_t dicom_tls_require_peer;
    /* study, disk, jobs */
    int64_t quiet_ms, disk_reserve_mb, lease_s, attempts_max;
    /* analysis */
    char precision[8]; /* auto, fp32, mixed */
    int64_t threads, devices, workers_min, workers_max, worker_idle_s, passes, seed;
    double operating_point, dropout;
    char backend[8], backend_plugin[CONFIG_TEXT_SIZE];
    /* return to the PACS */
    char destinations[CONFIG_LIST_SIZE]; /* AET@host:port, ... */
    char destination_tls_ca[CONFIG_TEXT_SIZE];
    /* what the PACS confirms, and what is given up then */
    int64_t confirm_images, commitment_wait_s, disk_high_percent, disk_low_percent, retention_period_s;
    double retention_days;
    /* web */
    char https_bind[64], https_certificate[CONFIG_TEXT_SIZE], https_key[CONFIG_TEXT_SIZE];
    int64_t https_port, body_mb_max, request_deadline_s, keep_alive_s, connections_max, connections_max_an_address;
    char https_proxies[CONFIG_LIST_SIZE];
    char organization[64];
};

/* Every key at its default. */
void config_defaults(struct config *out);
/* Reads a file over the defaults: ERR_CONFIG "pulmo.conf:12: quiet_ms = x: ...", ERR_NOT_FOUND. */
bool config_read(const char *path, struct config *out, struct err *err) PULMO_MUST_USE;
/* Sets one key from text, as a line of the file would. */
bool config_set(struct config *config, const char *key, const char *value, struct err *err) PULMO_MUST_USE;
/* The text of pulmo.conf.example: every key with its help, range and default. */
bool config_example(struct bytes *out, struct err *err) PULMO_MUST_USE;

/* How a destination confirms what it got: Storage Commitment, C-FIND, by turns, or not at all. */
enum config_confirm { CONFIRM_AUTO = 0, CONFIRM_COMMITMENT, CONFIRM_FIND, CONFIRM_NONE };
/* One entry of `destinations`: "AET@host:port" or "AET@host:port/commitment". *cursor moves on; false at the end of the
 * list or, with err set, at an entry that cannot be read. */
struct config_destination {
    char name[64]; /* the entry as written, without how it confirms */
    char ae_title[DICOM_AET_SIZE], host[128];
    uint16_t port;
    enum config_confirm confirm;
};
bool config_destination_next(const char **cursor, struct config_destination *out, struct err *err);

#endif
