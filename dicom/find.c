/* C-FIND as service class user, Study Root Query/Retrieve, PS3.4 C.4.1 and C.6.2. */
#include "dicom/scu.h"

#include <string.h>

#define FIND_CLASS "1.2.840.10008.5.1.4.1.2.2.1"
#define TAG_LEVEL 0x00080052
#define TAG_STUDY 0x0020000D
#define TAG_SERIES 0x0020000E
#define TAG_INSTANCE 0x00080018
#define ROWS_MAX 100000 /* of one series: a peer that ignores a key would send its whole archive */

/* The instances of one series: both UIDs are unique keys of the levels above, PS3.4 C.6.2.1. */
static bool write_query(const struct dicom_find *find, size_t series, struct bytes *out, struct err *err) {
    PULMO_SCOPED(shim_dataset_free_at) struct shim_dataset *dataset = shim_dataset_new(err);
    if (dataset == NULL)
        return false;
    (void)shim_remove(dataset, 0x00080005);
    return shim_put_string(dataset, TAG_LEVEL, "IMAGE", err) &&
           shim_put_string(dataset, TAG_STUDY, find->study_uid, err) &&
           shim_put_string(dataset, TAG_SERIES, find->series_uids[series], err) &&
           shim_put_string(dataset, TAG_INSTANCE, "", err) &&
           shim_dataset_write_body(dataset, IMPLICIT_LITTLE_ENDIAN, out, err);
}

struct asking {
    struct association *association;
    const struct dicom_find *find;
    dicom_find_row *row;
    void *context;
    uint16_t message_id;
    size_t series, rows;
    bool over;
};

static bool take_row(struct asking *asking, const struct command *command, struct err *err) {
    char uid[DICOM_UID_SIZE], series[DICOM_UID_SIZE];
    PULMO_SCOPED(shim_dataset_free_at)
    struct shim_dataset *dataset =
        shim_dataset_read(command->dataset.data, command->dataset.size, command->transfer_syntax_uid, 0xFFFFFFFF, err);
    if (dataset == NULL)
        return false;
    if (++asking->rows > ROWS_MAX)
        return err_set(err, ERR_LIMIT, "the peer names more than %d instances of a series", ROWS_MAX);
    const bool is_named = shim_get_string(dataset, TAG_INSTANCE, uid, sizeof uid);
    /* A peer that does not know a key may ignore it: what it says of another series is no answer. */
    const bool is_other = shim_get_string(dataset, TAG_SERIES, series, sizeof series) &&
                          strcmp(series, asking->find->series_uids[asking->series]) != 0;
    if (!shim_concluded(dataset, true, err))
        return false;
    return !is_named || is_other || asking->row(asking->context, uid, err);
}

/* 0xFF00 and 0xFF01 are pending, 0x0000 is the end, all else a failure: PS3.4 table C.4-1. */
static bool read_answer(struct asking *asking, struct err *err) {
    struct command command; /* its data set is good until the next one is read */
    if (!command_read(asking->association, 0, &command, err))
        return false;
    if (command.kind == COMMAND_RELEASE || command.kind == COMMAND_ABORT)
        return err_set(err, ERR_NETWORK, "the peer ended the association without an answer");
    if (command.field != (FIELD_FIND | FIELD_RESPONSE) || command.message_id != asking->message_id)
        return err_set(err, ERR_NETWORK, "the peer answered something else (command 0x%04X)", command.field);
    if (command.status == 0xFF00 || command.status == 0xFF01)
        return !command.has_dataset || take_row(asking, &command, err);
    asking->over = true;
    return command.status == 0 || err_set(err, command.status == 0x0122 ? ERR_UNSUPPORTED : ERR_NETWORK,
                                          "C-FIND was answered with status 0x%04X", command.status);
}

static bool ask_series(struct asking *asking, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes dataset = {0};
    if (!write_query(asking->find, asking->series, &dataset, err))
        return false;
    const struct plain_request request = {.field = FIELD_FIND, .sop_class_uid = FIND_CLASS, .dataset = dataset};
    if (!association_request(asking->association, &request, &asking->message_id, err))
        return false;
    asking->rows = 0;
    for (asking->over = false; !asking->over;)
        if (!read_answer(asking, err))
            return false;
    return true;
}

bool dicom_find_instances(const struct dicom_destination *destination, const struct dicom_find *find,
                          dicom_find_row *row, void *context, struct err *err) {
    static const struct shim_proposal proposal = {FIND_CLASS, IMPLICIT_LITTLE_ENDIAN};
    PULMO_SCOPED(association_close_at)
    struct association *association = scu_connect(destination, &proposal, 1, err);
    if (association == NULL)
        return false;
    struct asking asking = {.association = association, .find = find, .row = row, .context = context};
    for (; asking.series < find->series_count; asking.series++)
        if (!ask_series(&asking, err))
            return false;
    struct err ignored = {0};
    (void)!association_release(association, &ignored); /* everything has been answered by now */
    return true;
}
