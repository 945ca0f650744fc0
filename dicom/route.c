/* What would happen to an instance, asked without an association: the same tables and the same judges as reception and
 * gate have, so that the answer is theirs. */
#include "dicom/ct.h"
#include "dicom/scp_access.h"
#include "dicom/scp_tables.h"

#include <string.h>

bool dicom_scp_admits(const struct dicom_scp_config *config, const struct dicom_peer *peer, struct err *err) {
    struct access *access = access_new(config, err);
    if (access == NULL)
        return false;
    bool admitted = true;
    if (peer->address != NULL && !access_address_ok(access, peer->address))
        admitted =
            err_set(err, ERR_DENIED, "address %s is not on the allow-list: the association is rejected", peer->address);
    else if (peer->called_aet != NULL && !access_called_ok(access, peer->called_aet))
        admitted =
            err_set(err, ERR_DENIED, "called AE title %s is not ours: the association is rejected", peer->called_aet);
    else if (peer->calling_aet != NULL && !access_calling_ok(access, peer->calling_aet))
        admitted = err_set(err, ERR_DENIED, "calling AE title %s is not on the allow-list: the association is rejected",
                           peer->calling_aet);
    access_free(access);
    return admitted;
}

bool dicom_scp_takes(const struct dicom_scp_config *config, const struct instance *instance, uint16_t *status,
                     struct err *err) {
    *status = STATUS_CLASS_NOT_SUPPORTED;
    if (!scp_takes_class(instance->sop_class_uid))
        return err_set(err, ERR_UNSUPPORTED, "SOP class %s is not CT: no presentation context is accepted for it",
                       instance->sop_class_uid);
    if (!scp_takes_syntax(instance->transfer_syntax_uid))
        return err_set(err, ERR_UNSUPPORTED, "transfer syntax %s is not accepted", instance->transfer_syntax_uid);
    *status = STATUS_OUT_OF_RESOURCES;
    if (instance->part10_size > config->instance_bytes_max)
        return err_set(err, ERR_LIMIT, "data set of more than %zu bytes", config->instance_bytes_max);
    *status = STATUS_SUCCESS;
    return true;
}

bool dicom_slice_judge(const char *path, struct refusals *refusals, struct err *err) {
    PULMO_SCOPED(ct_headers_free) struct ct_headers headers = {0};
    struct grid unused;
    struct refusals found = {0};
    if (!ct_headers_read(path, 0, &headers, err))
        return false;
    struct ct_group group = {.headers = headers.items, .count = headers.count};
    ct_geometry(&group, &unused, &found);
    for (size_t index = 0; index < found.count; index++)
        if (found.items[index].code != REFUSAL_TOO_FEW_SLICES) /* of a series, not of a slice */
            refusals_add(refusals, found.items[index].code, "%s", found.items[index].text);
    return true;
}
