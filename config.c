#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum config_kind { KIND_TEXT, KIND_INTEGER, KIND_NUMBER, KIND_CHOICE };

struct config_key {
    const char *key;
    enum config_kind kind;
    size_t offset, size;       /* of the field; size bounds a text */
    const char *default_value; /* of a choice: all values, "|" between them, the default first */
    double minimum, maximum;
    const char *help;
};

#define FIELD(name) offsetof(struct config, name), sizeof((struct config *)0)->name

static const struct config_key keys[] = {
    {"data_folder", KIND_TEXT, FIELD(data_folder), "/var/lib/pulmo", 0, 0,
     "Everything that Pulmo keeps: images, results, audit trail."},
    {"model", KIND_TEXT, FIELD(model), "", 0, 0,
     "model.json of the model that is in use while none is promoted (pulmo model promote); empty = the one installed "
     "beside the program."},
    {"viewer_folder", KIND_TEXT, FIELD(viewer_folder), "", 0, 0,
     "The built viewer; empty = the one installed beside the program."},
    {"ae_title", KIND_TEXT, FIELD(ae_title), "PULMO", 0, 0,
     "Our AE title, as called by the PACS and as calling when results are sent."},
    {"dicom_port", KIND_INTEGER, FIELD(dicom_port), "11112", 0, 65535,
     "DICOM port; 0 = any free one (written to the log)."},
    {"dicom_bind", KIND_TEXT, FIELD(dicom_bind), "", 0, 0, "Address to listen on; empty = all."},
    {"called_aets", KIND_TEXT, FIELD(called_aets), "", 0, 0,
     "Called AE titles that are accepted, comma-separated; empty = only ae_title."},
    {"calling_aets", KIND_TEXT, FIELD(calling_aets), "", 0, 0,
     "Calling AE titles that are accepted, comma-separated; empty = all."},
    {"allowed_addresses", KIND_TEXT, FIELD(allowed_addresses), "", 0, 0,
     "Peer addresses or networks (10.1.0.0/16) that are accepted, comma-separated; empty = all."},
    {"associations_max", KIND_INTEGER, FIELD(associations_max), "96", 1, 1024,
     "Associations at one time; more are rejected as a local limit."},
    {"associations_max_an_address", KIND_INTEGER, FIELD(associations_max_an_address), "80", 0, 1024,
     "Associations of one address at one time, so that some are left for others; 0 = no limit of its own."},
    {"instance_mb_max", KIND_INTEGER, FIELD(instance_mb_max), "512", 1, 4096,
     "Largest instance that is accepted, in MiB."},
    {"reception_mb_max", KIND_INTEGER, FIELD(reception_mb_max), "2048", 64, 1048576,
     "Instances that are being received, all together; more are refused (0xA700), in MiB."},
    {"pdu_bytes_max", KIND_INTEGER, FIELD(pdu_bytes_max), "131072", 4096, 131072,
     "Largest PDU that is offered, in bytes."},
    {"dicom_timeout_s", KIND_INTEGER, FIELD(dicom_timeout_s), "30", 1, 3600,
     "A peer that is silent for so long within an association is dropped, in seconds."},
    {"dicom_tls_port", KIND_INTEGER, FIELD(dicom_tls_port), "2762", 0, 65535,
     "DICOM TLS port (PS3.15 B.12, Non-Downgrading BCP 195); used when a certificate is set."},
    {"dicom_tls_certificate", KIND_TEXT, FIELD(dicom_tls_certificate), "", 0, 0,
     "PEM certificate for DICOM TLS; empty = no TLS."},
    {"dicom_tls_key", KIND_TEXT, FIELD(dicom_tls_key), "", 0, 0, "PEM private key of that certificate."},
    {"dicom_tls_ca", KIND_TEXT, FIELD(dicom_tls_ca), "", 0, 0,
     "PEM certificates of authorities that sign the peers' certificates."},
    {"dicom_tls_require_peer", KIND_INTEGER, FIELD(dicom_tls_require_peer), "0", 0, 1,
     "1 = a peer must show a certificate signed by dicom_tls_ca."},
    {"quiet_ms", KIND_INTEGER, FIELD(quiet_ms), "15000", 100, 3600000,
     "A study without an open association and without a new instance for so long is complete, in ms."},
    {"disk_reserve_mb", KIND_INTEGER, FIELD(disk_reserve_mb), "2048", 16, 1048576,
     "Below so much free space reception refuses (0xA700), in MiB."},
    {"lease_s", KIND_INTEGER, FIELD(lease_s), "300", 10, 86400,
     "A job whose worker is silent for so long is taken again, in seconds."},
    {"attempts_max", KIND_INTEGER, FIELD(attempts_max), "3", 1, 100,
     "Attempts of a job, or of sending an object that the PACS refuses, before it is put aside."},
    {"threads", KIND_INTEGER, FIELD(threads), "0", 0, 256,
     "Threads of the analysis; 0 = all processors. Results do not depend on it."},
    {"precision", KIND_CHOICE, FIELD(precision), "auto|fp32|mixed", 0, 0,
     "Of the detector: fp32; mixed = each layer as `pulmo model calibrate` found it fastest on this processor, which "
     "is "
     "done at the first start if it was not; auto = mixed where that was done, else fp32. Results name what ran."},
    {"devices", KIND_INTEGER, FIELD(devices), "1", 1, 8,
     "Sessions that share the work of one analysis, each with its part of the threads; one that fails is left out and "
     "its work done again. Results do not depend on it."},
    {"backend", KIND_CHOICE, FIELD(backend), "auto|cpu|cuda", 0, 0,
     "Where the networks run: cuda = on an NVIDIA card, cpu = on the processor, auto = on the card where there is one. "
     "Without plugin, driver, library or card the processor takes over, and the result says so. A card needs devices = "
     "1."},
    {"backend_plugin", KIND_TEXT, FIELD(backend_plugin), "", 0, 0,
     "The plugin for the card, pulmo_cuda.so; empty = the one installed beside the program."},
    {"workers_min", KIND_INTEGER, FIELD(workers_min), "1", 1, 32,
     "Analysis processes that always run; each takes up to 1.5 GiB for a CT of 300 slices."},
    {"workers_max", KIND_INTEGER, FIELD(workers_max), "1", 0, 32,
     "Analysis processes while studies wait, one a study; 0 = one a processor, as far as the free memory goes."},
    {"worker_idle_s", KIND_INTEGER, FIELD(worker_idle_s), "60", 1, 86400,
     "An analysis process beyond workers_min ends when it had no work for so long, in seconds."},
    {"passes", KIND_INTEGER, FIELD(passes), "0", 0, FINDING_PASSES_MAX,
     "Monte-Carlo dropout passes a finding; 0 = as the model says."},
    {"seed", KIND_INTEGER, FIELD(seed), "1", 0, 9007199254740991.0,
     "Random seed of the passes, recorded with every result."},
    {"operating_point", KIND_NUMBER, FIELD(operating_point), "-1", -1, 1,
     "Probability from which a finding is reported; -1 = as the model says."},
    {"dropout", KIND_NUMBER, FIELD(dropout), "-1", -1, 0.95, "Dropout rate of the passes; -1 = as the model says."},
    {"destinations", KIND_TEXT, FIELD(destinations), "", 0, 0,
     "Where results go: AET@host:port, comma-separated; empty = nowhere. /commitment, /find or /none after the port "
     "says "
     "how it confirms what it got; without it, Storage Commitment and C-FIND are tried by turns."},
    {"destination_tls_ca", KIND_TEXT, FIELD(destination_tls_ca), "", 0, 0,
     "PEM authorities of the destinations; when set, results are sent over TLS."},
    {"retention_days", KIND_NUMBER, FIELD(retention_days), "30", -1, 36500,
     "Images of signed studies are purged so many days after all destinations that confirm have confirmed their "
     "results; "
     "-1 = only when the disk is full."},
    {"confirm_images", KIND_INTEGER, FIELD(confirm_images), "1", 0, 1,
     "1 = the destination must have the images, too; 0 = they are kept by somebody else, the results are enough."},
    {"commitment_wait_s", KIND_INTEGER, FIELD(commitment_wait_s), "600", 1, 86400,
     "Time for the report of a Storage Commitment before it is asked for again, doubled each time, in seconds."},
    {"disk_high_percent", KIND_INTEGER, FIELD(disk_high_percent), "85", 1, 100,
     "When the disk of data_folder is fuller, what may be purged is, oldest first and without waiting for its days "
     "..."},
    {"disk_low_percent", KIND_INTEGER, FIELD(disk_low_percent), "75", 0, 100, "... until it is no fuller than this."},
    {"retention_period_s", KIND_INTEGER, FIELD(retention_period_s), "60", 1, 86400,
     "How often is looked for what is to be purged, in seconds."},
    {"https_port", KIND_INTEGER, FIELD(https_port), "8443", 0, 65535,
     "HTTPS port; 0 = any free one (written to the log)."},
    {"https_bind", KIND_TEXT, FIELD(https_bind), "", 0, 0, "Address of the web server; empty = all."},
    {"https_certificate", KIND_TEXT, FIELD(https_certificate), "", 0, 0,
     "PEM certificate; empty = one in data_folder, made at first start."},
    {"https_key", KIND_TEXT, FIELD(https_key), "", 0, 0, "PEM private key of that certificate."},
    {"body_mb_max", KIND_INTEGER, FIELD(body_mb_max), "4", 1, 1024, "Largest body of an HTTPS request, in MiB."},
    {"request_deadline_s", KIND_INTEGER, FIELD(request_deadline_s), "30", 1, 3600,
     "A request that is not complete after so long is closed, in seconds."},
    {"keep_alive_s", KIND_INTEGER, FIELD(keep_alive_s), "60", 1, 3600,
     "An HTTPS connection that rests between two requests is closed after so long, in seconds."},
    {"connections_max", KIND_INTEGER, FIELD(connections_max), "256", 8, 65535, "HTTPS connections at one time."},
    {"connections_max_an_address", KIND_INTEGER, FIELD(connections_max_an_address), "64", 0, 65535,
     "HTTPS connections of one IPv4 address, or one /64 of IPv6, at one time; 0 = no limit of its own."},
    {"https_proxies", KIND_TEXT, FIELD(https_proxies), "", 0, 0,
     "Addresses of reverse proxies, comma-separated: without that limit; the last address in their X-Forwarded-For is "
     "the client's in the audit trail and for failed logins."},
    {"organization", KIND_TEXT, FIELD(organization), "Not specified", 0, 0,
     "The verifying organization in signed reports."},
};
#define KEY_COUNT (sizeof keys / sizeof *keys)

static bool set_number(const struct config_key *key, void *field, const char *value, struct err *err) {
    char *end = NULL;
    errno = 0;
    double number = strtod(value, &end);
    if (end == value || *end || errno || !isfinite(number))
        return err_set(err, ERR_CONFIG, "%s = %s: a number is expected", key->key, value);
    if (key->kind == KIND_INTEGER && number != floor(number))
        return err_set(err, ERR_CONFIG, "%s = %s: a whole number is expected", key->key, value);
    if (number < key->minimum || number > key->maximum)
        return err_set(err, ERR_CONFIG, "%s = %s: must be from %.17g to %.17g", key->key, value, key->minimum,
                       key->maximum);
    if (key->kind == KIND_INTEGER)
        memcpy(field, &(int64_t){(int64_t)number}, sizeof(int64_t));
    else
        memcpy(field, &number, sizeof number);
    return true;
}

static size_t default_size(const struct config_key *key) {
    return key->kind == KIND_CHOICE ? strcspn(key->default_value, "|") : strlen(key->default_value);
}

static bool set_choice(const struct config_key *key, char *field, const char *value, struct err *err) {
    size_t size = strlen(value);
    for (const char *choice = key->default_value; *choice; choice += *choice == '|') {
        size_t choice_size = strcspn(choice, "|");
        if (size == choice_size && strncmp(choice, value, size) == 0) {
            memset(field, 0, key->size);
            memcpy(field, value, size);
            return true;
        }
        choice += choice_size;
    }
    return err_set(err, ERR_CONFIG, "%s = %s: must be one of %s", key->key, value, key->default_value);
}

bool config_set(struct config *config, const char *name, const char *value, struct err *err) {
    for (size_t index = 0; index < KEY_COUNT; index++) {
        const struct config_key *key = &keys[index];
        if (strcmp(key->key, name) != 0)
            continue;
        char *field = (char *)config + key->offset;
        if (key->kind == KIND_CHOICE)
            return set_choice(key, field, value, err);
        if (key->kind != KIND_TEXT)
            return set_number(key, field, value, err);
        size_t size = strlen(value);
        if (size >= key->size)
            return err_set(err, ERR_CONFIG, "%s: at most %zu characters", name, key->size - 1);
        memcpy(field, value, size + 1);
        return true;
    }
    return err_set(err, ERR_CONFIG, "%s is not a key; pulmo.conf.example lists all of them", name);
}

void config_defaults(struct config *out) {
    memset(out, 0, sizeof *out);
    for (size_t index = 0; index < KEY_COUNT; index++) {
        struct err err = {0};
        char value[CONFIG_LIST_SIZE];
        snprintf(value, sizeof value, "%.*s", (int)default_size(&keys[index]), keys[index].default_value);
        if (!config_set(out, keys[index].key, value, &err))
            abort(); /* a default that breaks its own rule is a bug of this table */
    }
}

static char *trim(char *text) {
    while (isspace((unsigned char)*text))
        text++;
    size_t size = strlen(text);
    while (size && isspace((unsigned char)text[size - 1]))
        text[--size] = '\0';
    return text;
}

static bool read_line(struct config *config, char *line, struct err *err) {
    char *text = trim(line);
    if (!*text || *text == '#')
        return true;
    char *equals = strchr(text, '=');
    if (!equals)
        return err_set(err, ERR_CONFIG, "\"%.80s\": a line reads key = value", text);
    *equals = '\0';
    return config_set(config, trim(text), trim(equals + 1), err);
}

bool config_read(const char *path, struct config *out, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    if (!bytes_read_file(path, (size_t)1 << 20, &file, err))
        return false;
    if (file.size && memchr(file.data, '\0', file.size))
        return err_set(err, ERR_CONFIG, "%s: is no text", path);
    if (!bytes_append(&file, "", 1, (size_t)2 << 20, err))
        return false;
    struct config config;
    config_defaults(&config);
    int number = 0;
    for (char *line = (char *)file.data; line;) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        number++;
        if (!read_line(&config, line, err))
            return err_within(err, "%s:%d", path, number);
        line = next;
    }
    *out = config;
    return true;
}

bool config_example(struct bytes *out, struct err *err) {
    static const char head[] = "# Pulmo's configuration. Every key with its default; a line reads key = value.\n"
                               "# " PULMO_NOT_FOR_DIAGNOSIS "\n";
    if (!bytes_append(out, head, sizeof head - 1, (size_t)1 << 20, err))
        return false;
    for (size_t index = 0; index < KEY_COUNT; index++) {
        const struct config_key *key = &keys[index];
        char text[1024], range[96] = "";
        if (key->kind == KIND_CHOICE)
            snprintf(range, sizeof range, " One of %s.", key->default_value);
        else if (key->kind != KIND_TEXT)
            snprintf(range, sizeof range, " From %.17g to %.17g.", key->minimum, key->maximum);
        int size = snprintf(text, sizeof text, "\n# %s%s\n#%s = %.*s\n", key->help, range, key->key,
                            (int)default_size(key), key->default_value);
        if (size < 0 || !bytes_append(out, text, (size_t)size, (size_t)1 << 20, err))
            return false;
    }
    return true;
}

/* Cuts "/find" and the like off the entry. */
static bool parse_confirm(char *entry, enum config_confirm *out, struct err *err) {
    static const char *const names[] = {"auto", "commitment", "find", "none"};
    char *slash = strchr(entry, '/');
    *out = CONFIRM_AUTO;
    if (!slash)
        return true;
    *slash++ = '\0';
    for (size_t index = 0; index < sizeof names / sizeof *names; index++)
        if (strcmp(slash, names[index]) == 0) {
            *out = (enum config_confirm)index;
            return true;
        }
    return err_set(err, ERR_CONFIG, "destinations: \"%s/%s\": /commitment, /find, /none or nothing", entry, slash);
}

static bool parse_destination(char *entry, struct config_destination *out, struct err *err) {
    struct config_destination destination = {0};
    if (!parse_confirm(entry, &destination.confirm, err))
        return false;
    const char *at = strchr(entry, '@'), *colon = strrchr(entry, ':');
    char *end = NULL;
    unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;
    bool good = at && colon && at < colon && at > entry && at - entry < DICOM_AET_SIZE && colon - at - 1 > 0 &&
                (size_t)(colon - at - 1) < sizeof destination.host && end && !*end && port > 0 && port < 65536 &&
                strlen(entry) < sizeof destination.name;
    if (!good)
        return err_set(err, ERR_CONFIG, "destinations: \"%s\" is not AET@host:port", entry);
    memcpy(destination.name, entry, strlen(entry));
    memcpy(destination.ae_title, entry, (size_t)(at - entry));
    memcpy(destination.host, at + 1, (size_t)(colon - at - 1));
    destination.port = (uint16_t)port;
    *out = destination;
    return true;
}

bool config_destination_next(const char **cursor, struct config_destination *out, struct err *err) {
    while (**cursor == ',' || isspace((unsigned char)**cursor))
        (*cursor)++;
    if (!**cursor)
        return false;
    size_t size = strcspn(*cursor, ",");
    char entry[CONFIG_LIST_SIZE];
    snprintf(entry, sizeof entry, "%.*s", (int)size, *cursor);
    *cursor += size;
    return parse_destination(trim(entry), out, err);
}
