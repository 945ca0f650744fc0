#include "dicom/scu.h"

#include "dicom/part10.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXTS_MAX = 127 }; /* odd identifiers of one byte, PS3.8 9.3.2.2 */
#define FILE_BYTES_MAX ((size_t)2 << 30)
#define NOT_SENT 0xFFFF

static const struct shim_tls *tls_of(const struct dicom_destination *destination, struct shim_tls *out) {
    if (destination->tls == NULL)
        return NULL;
    *out = (struct shim_tls){destination->tls->key_file, destination->tls->certificate_file, destination->tls->ca_file,
                             true};
    return out;
}

struct association *scu_connect(const struct dicom_destination *destination, const struct shim_proposal *proposals,
                                size_t count, struct err *err) {
    struct shim_tls tls;
    const struct connect_config config = {.host = destination->host,
                                          .called_aet = destination->called_aet,
                                          .calling_aet = destination->calling_aet,
                                          .port = destination->port,
                                          .tls = tls_of(destination, &tls),
                                          .timeout_s = destination->timeout_s};
    struct association *association = association_connect(&config, proposals, count, err);
    if (association == NULL)
        err_within(err, "%s at %s:%u", destination->called_aet, destination->host, destination->port);
    return association;
}

bool dicom_echo(const struct dicom_destination *destination, struct err *err) {
    const struct shim_proposal proposal = {"1.2.840.10008.1.1", "1.2.840.10008.1.2"};
    PULMO_SCOPED(association_close_at) struct association *association = scu_connect(destination, &proposal, 1, err);
    return association != NULL && association_echo(association, err) && association_release(association, err);
}

/* ---- what the files are ------------------------------------------------------------------------------ */

/* One file's identity; without a SOP class it cannot be sent, and `problem` says why. */
struct outgoing {
    struct part10 meta;
    char problem[200];
};

static bool identify(const struct bytes *file, struct part10 *out, struct err *err) {
    if (!part10_split(file->data, file->size, out, err))
        return false;
    if (out->sop_class_uid[0] != '\0' && out->sop_instance_uid[0] != '\0')
        return true;
    PULMO_SCOPED(shim_dataset_free_at)
    struct shim_dataset *dataset = shim_dataset_parse_header(file->data, file->size, err);
    if (dataset == NULL)
        return false;
    shim_get_string(dataset, 0x00080016, out->sop_class_uid, sizeof out->sop_class_uid);
    shim_get_string(dataset, 0x00080018, out->sop_instance_uid, sizeof out->sop_instance_uid);
    const bool found = (out->sop_class_uid[0] != '\0' && out->sop_instance_uid[0] != '\0') ||
                       err_set(err, ERR_INPUT, "SOP Class UID or SOP Instance UID is missing");
    return shim_concluded(dataset, found, err);
}

static void inspect(const char *path, struct outgoing *out) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    struct err err = {0};
    if (!bytes_read_file(path, FILE_BYTES_MAX, &file, &err) || !identify(&file, &out->meta, &err)) {
        out->meta.sop_class_uid[0] = '\0';
        snprintf(out->problem, sizeof out->problem, "%.190s", err.text);
    }
}

/* The distinct pairs of SOP class and transfer syntax, as one context each: just what the files need. */
static size_t collect_proposals(struct outgoing *files, size_t count, struct shim_proposal proposals[CONTEXTS_MAX]) {
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const struct part10 *meta = &files[i].meta;
        size_t k = 0;
        while (k < used && (strcmp(proposals[k].sop_class_uid, meta->sop_class_uid) != 0 ||
                            strcmp(proposals[k].transfer_syntax_uid, meta->transfer_syntax_uid) != 0))
            k++;
        if (meta->sop_class_uid[0] == '\0' || k < used)
            continue;
        if (used == CONTEXTS_MAX)
            snprintf(files[i].problem, sizeof files[i].problem, "more than %d presentation contexts", CONTEXTS_MAX);
        else
            proposals[used++] = (struct shim_proposal){meta->sop_class_uid, meta->transfer_syntax_uid};
    }
    return used;
}

/* ---- sending ----------------------------------------------------------------------------------------- */

/* False when the association is of no further use. */
static bool send_one(struct association *association, const char *path, const struct outgoing *outgoing,
                     uint16_t *status, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    struct part10 meta;
    if (outgoing->problem[0] != '\0') {
        err_set(err, ERR_INPUT, "%s", outgoing->problem);
        return true;
    }
    if (!bytes_read_file(path, FILE_BYTES_MAX, &file, err) || !part10_split(file.data, file.size, &meta, err))
        return true;
    const struct store_request request = {
        .sop_class_uid = outgoing->meta.sop_class_uid,
        .sop_instance_uid = outgoing->meta.sop_instance_uid,
        .transfer_syntax_uid = outgoing->meta.transfer_syntax_uid,
        .dataset = {file.data + meta.dataset_offset, file.size - meta.dataset_offset}};
    return association_store(association, &request, status, err) || err->kind == ERR_UNSUPPORTED;
}

static bool is_success(uint16_t status) {
    return status == 0x0000 || (status & 0xF000) == 0xB000; /* success or warning, PS3.4 B.2.3 */
}

struct batch {
    const char *const *paths;
    const struct outgoing *files;
    size_t count;
    dicom_send_progress *progress;
    void *context;
};

/* *refused counts the files that did not arrive; the first reason is told. */
static bool send_batch(struct association *association, const struct batch *batch, size_t *refused, struct err *err) {
    struct err first = {0};
    for (size_t i = 0; i < batch->count; i++) {
        struct err why = {0};
        uint16_t status = NOT_SENT;
        const bool usable = send_one(association, batch->paths[i], &batch->files[i], &status, &why);
        if (!is_success(status)) {
            if (why.kind == ERR_NONE)
                err_set(&why, ERR_INPUT, "the peer refused it with status 0x%04X", status);
            first = (*refused)++ == 0 ? why : first;
        }
        const bool go_on =
            batch->progress == NULL || batch->progress(batch->context, i, status, status == NOT_SENT ? why.text : NULL);
        if (!usable)
            return err_set(err, why.kind, "file %zu of %zu: %.400s", i + 1, batch->count, why.text);
        if (!go_on)
            return err_set(err, ERR_BUSY, "stopped after %zu of %zu files", i + 1, batch->count);
    }
    return *refused == 0 ||
           err_set(err, first.kind, "%zu of %zu files did not arrive: %.400s", *refused, batch->count, first.text);
}

bool dicom_send(const struct dicom_destination *destination, const char *const *paths, size_t count,
                dicom_send_progress *progress, void *context, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct outgoing *files = pulmo_alloc(count, sizeof *files, err);
    struct shim_proposal proposals[CONTEXTS_MAX];
    if (files == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        inspect(paths[i], &files[i]);
    const size_t contexts = collect_proposals(files, count, proposals);
    if (contexts == 0)
        return err_set(err, ERR_INPUT, "none of %zu files can be sent: %.300s", count, count ? files[0].problem : "");
    PULMO_SCOPED(association_close_at)
    struct association *association = scu_connect(destination, proposals, contexts, err);
    if (association == NULL)
        return false;
    const struct batch batch = {paths, files, count, progress, context};
    struct err why = {0}, ignored = {0};
    size_t refused = 0;
    const bool sent = send_batch(association, &batch, &refused, &why);
    if (why.kind != ERR_NETWORK)
        (void)!association_release(association, &ignored); /* every file has been answered by now */
    return sent || err_set(err, why.kind, "%s", why.text);
}
