/* DICOM in and out: reception (SCP), sending (SCU), CT series as volumes, SEG and SR objects.
 *
 * DCMTK does the protocol and the encoding behind dicom/dcmtk_shim.h; no type of it is seen here. */
#ifndef PULMO_DICOM_H
#define PULMO_DICOM_H

#include "pulmo.h"

/* ---- reception: dicom/scp.c -------------------------------------------------------------------------- */

/* Called on an association's thread for each C-STORE. True only when the instance would survive a power cut.
 * The error's kind decides the DIMSE status (REFERENCE 7): ERR_NO_SPACE 0xA700, ERR_INPUT 0xC000 or 0xA900,
 * ERR_UNSUPPORTED 0x0122, ERR_DENIED 0x0124, other 0xC000. */
typedef bool dicom_sink(void *context, const struct instance *instance, struct err *err);

enum dicom_event_kind {
    DICOM_EVENT_ASSOCIATION_OPENED,
    DICOM_EVENT_ASSOCIATION_CLOSED,
    DICOM_EVENT_ASSOCIATION_REJECTED,
    DICOM_EVENT_INSTANCE_REFUSED,
    DICOM_EVENT_PROTOCOL_ERROR
};
struct dicom_event { /* borrowed; for the audit trail: no patient data */
    enum dicom_event_kind kind;
    const char *calling_aet, *called_aet, *peer_address, *sop_instance_uid, *detail;
    uint16_t status;
    uint64_t association_id;
    bool was_unknown; /* closed: OPENED was not told before; nothing but C-ECHO came between the two */
};
typedef void dicom_event_sink(void *context, const struct dicom_event *event);

/* What a peer says of a Storage Commitment that was asked for (PS3.4 J.3.3); borrowed. */
struct dicom_reference {
    char sop_class_uid[DICOM_UID_SIZE], sop_instance_uid[DICOM_UID_SIZE];
};
struct dicom_commitment_report {
    char transaction_uid[DICOM_UID_SIZE];
    const struct dicom_reference *stored, *failed;
    size_t stored_count, failed_count;
};
/* True when the report is noted for good. ERR_NOT_FOUND: such a transaction was never asked for (0x0112). */
typedef bool dicom_commitment_sink(void *context, const struct dicom_commitment_report *report, struct err *err);

struct dicom_tls {
    const char *key_file, *certificate_file, *ca_file;
    bool require_peer_certificate;
};
struct dicom_scp_config {
    uint16_t port; /* 0 = any free one */
    const char *bind_address;
    const char *ae_title;
    const char *called_aets;            /* comma-separated; empty = only ae_title */
    const char *calling_aets;           /* comma-separated allow-list; empty = all */
    const char *addresses;              /* comma-separated addresses or CIDR networks; empty = all */
    const struct dicom_tls *tls;        /* NULL = plain */
    dicom_commitment_sink *commitments; /* with the context of the SCP; NULL = no reports are taken */
    uint32_t associations_max;
    uint32_t associations_max_an_address; /* 0 = no limit of its own */
    size_t instance_bytes_max;
    size_t reception_bytes_max; /* data sets that are being received, together; 0 = no limit of its own */
    uint32_t pdu_bytes_max;
    int timeout_s;
};
struct dicom_scp;
struct dicom_scp *dicom_scp_start(const struct dicom_scp_config *config, dicom_sink *sink, dicom_event_sink *events,
                                  void *context, struct err *err);
uint16_t dicom_scp_port(const struct dicom_scp *scp);
/* From now on new associations are rejected as a temporary congestion (PS3.8 table 9-21: try again later); those in
 * progress go on. The 8 s of dicom_scp_stop begin here, so that several can be stopped within one span. */
void dicom_scp_refuse(struct dicom_scp *scp);
/* Lets associations in progress end by themselves for up to 8 s; then answers the command at hand and aborts; frees. */
void dicom_scp_stop(struct dicom_scp *scp);

/* What DCMTK loads once (its dictionary, codecs), which else is loaded by the first call that needs it: a process that
 * is to survive lack of memory calls this first, because DCMTK does not survive it there. ERR_CONFIG: no dictionary. */
bool dicom_ready(struct err *err) PULMO_MUST_USE;
/* Reads the attributes of `struct instance` from a Part 10 file in memory (borrowed into out->part10). */
bool dicom_instance_parse(const void *part10, size_t size, struct instance *out, struct err *err) PULMO_MUST_USE;
/* A UID derived from text, the same for the same text: 2.25.<128 bits of SHA-256 as a version 8 UUID> (PS3.5 B.2). */
bool dicom_uid_derive(const char *text, char out[DICOM_UID_SIZE], struct err *err) PULMO_MUST_USE;
/* SHA-256 of the decoded stored pixel values, for "transcoded or conflict". */
bool dicom_pixel_digest(const void *part10, size_t size, char out[65], struct err *err) PULMO_MUST_USE;

/* ---- what would happen: dicom/route.c ---------------------------------------------------------------- */

/* Whether an association with this peer would be accepted; parts that are NULL are not asked about. ERR_DENIED says why
 * not. Of config only the lists count. */
struct dicom_peer {
    const char *calling_aet, *called_aet, *address;
};
bool dicom_scp_admits(const struct dicom_scp_config *config, const struct dicom_peer *peer,
                      struct err *err) PULMO_MUST_USE;
/* Whether a C-STORE of the instance would come as far as the sink; *status: the DIMSE status, when not with err. */
bool dicom_scp_takes(const struct dicom_scp_config *config, const struct instance *instance, uint16_t *status,
                     struct err *err) PULMO_MUST_USE;
/* The status by which a sink's error is answered. */
uint16_t dicom_scp_status(enum err_kind kind);
/* Adds what the gate has against one file by itself (NOT_CT, LOCALIZER, NOT_AXIAL, UNREADABLE); what only a series can
 * tell (spacing, missing slices, lungs) is not asked. False when it is no DICOM file that can be read. */
bool dicom_slice_judge(const char *path, struct refusals *refusals, struct err *err) PULMO_MUST_USE;

/* ---- sending: dicom/scu.c ---------------------------------------------------------------------------- */

struct dicom_destination {
    const char *host, *called_aet, *calling_aet;
    uint16_t port;
    const struct dicom_tls *tls;
    int timeout_s;
};
bool dicom_echo(const struct dicom_destination *destination, struct err *err) PULMO_MUST_USE;
/* Progress of one file: called after each; status is the peer's DIMSE status, or 0xFFFF with `error` set when it was
 * not sent. False stops the sending. */
typedef bool dicom_send_progress(void *context, size_t index, uint16_t status, const char *error);
bool dicom_send(const struct dicom_destination *destination, const char *const *paths, size_t count,
                dicom_send_progress *progress, void *context, struct err *err) PULMO_MUST_USE;

/* ---- asking what a peer has: dicom/commitment.c, dicom/find.c ---------------------------------------- */

/* Asks the peer to commit itself to the safekeeping of instances (Storage Commitment Push Model, PS3.4 J.3.2). True
 * when it took the request. Its report comes to the SCP at any later time, or at once on this association: then to the
 * sink. ERR_UNSUPPORTED the peer does not offer this, or refuses the request. transaction_uid: never used before. */
struct dicom_commitment {
    const char *transaction_uid;
    const struct dicom_reference *references;
    size_t count;
};
bool dicom_commitment_request(const struct dicom_destination *destination, const struct dicom_commitment *commitment,
                              dicom_commitment_sink *sink, void *context, struct err *err) PULMO_MUST_USE;
/* Asks for the instances that the peer has of the series of a study (C-FIND, Study Root, IMAGE level, PS3.4 C.6.2). The
 * row is called for each; false from it ends the question. ERR_UNSUPPORTED the peer does not offer this. */
struct dicom_find {
    const char *study_uid;
    const char *const *series_uids;
    size_t series_count;
};
typedef bool dicom_find_row(void *context, const char *sop_instance_uid, struct err *err);
bool dicom_find_instances(const struct dicom_destination *destination, const struct dicom_find *find,
                          dicom_find_row *row, void *context, struct err *err) PULMO_MUST_USE;
/* A UID that nobody used before: 2.25.<random UUID> (PS3.5 B.2). */
bool dicom_uid_new(char out[DICOM_UID_SIZE], struct err *err) PULMO_MUST_USE;

/* ---- CT series: dicom/ct.c --------------------------------------------------------------------------- */

struct dicom_slice {
    char sop_class_uid[DICOM_UID_SIZE], sop_instance_uid[DICOM_UID_SIZE];
    double position_lps_mm[3];
    int64_t instance_number;
    uint32_t frame_number; /* of a multi-frame instance, from 1; 0 = the instance has one frame */
};
/* One CT series: what a report must say of it, its volume, and why it cannot be analysed. */
struct dicom_series {
    char study_uid[DICOM_UID_SIZE], series_uid[DICOM_UID_SIZE], frame_of_reference_uid[DICOM_UID_SIZE];
    char series_description[256], modality[20];
    double slice_spacing_mm, slice_thickness_mm; /* spacing from positions */
    struct volume *volume;                       /* NULL when refused before pixels were read */
    struct dicom_slice *slices;                  /* slice_count, in the order of the volume's k */
    size_t slice_count;
    struct refusals refusals;
    struct bytes header; /* first instance as Part 10 without pixel data: patient and study modules for SR and SEG */
};
/* Reads the most suitable CT series among count Part 10 files (any order; several series and foreign objects may be
 * among them; classic, Enhanced and Legacy Converted Enhanced CT, PS3.3 A.3, A.38, A.70; each frame is a slice): most
 * axial slices covering a chest, thin, soft kernel before sharp; ties by UID. A series that cannot be analysed is
 * returned with refusals, and is no error. HU from rescale, rounded, clipped to int16, Pixel Padding becomes -1024;
 * slices sorted along the normal; k grows along the normal. errors ERR_INPUT no readable DICOM file at all, ERR_LIMIT,
 * ERR_IO, ERR_MEMORY. PS3.3 C.7.6.2, C.11.1. */
struct dicom_series *dicom_series_read(const char *const *paths, size_t count, struct err *err);
void dicom_series_free(struct dicom_series *series);
/* Writes a volume as a CT series into a folder, one file a slice (phantom). Non-NULL syntax name: "explicit",
 * "implicit", "deflated", "rle", "jpegls", "jpeg-lossless", "j2k". */
struct dicom_ct_write_config {
    const char *folder, *transfer_syntax;
    const char *patient_name, *patient_id, *study_description, *series_description;
    uint64_t seed; /* UIDs are derived from it, so the same phantom is the same study */
};
bool dicom_ct_write(const struct volume *volume, const struct dicom_ct_write_config *config,
                    struct err *err) PULMO_MUST_USE;

/* ---- results: dicom/seg.c, dicom/sr.c ---------------------------------------------------------------- */

enum dicom_verdict { DICOM_VERDICT_NONE = 0, DICOM_VERDICT_ACCEPTED, DICOM_VERDICT_REJECTED, DICOM_VERDICT_ADDED };
struct dicom_report_finding {
    const struct finding *finding;
    const struct mask *mask; /* on a box of the series' grid; NULL = none */
    enum dicom_verdict verdict;
    char tracking_uid[DICOM_UID_SIZE];
};
#define DICOM_REVIEW_RULE_SIZE 256
struct dicom_report {
    const struct dicom_series *series;
    const struct dicom_report_finding *findings; /* the reported ones only */
    size_t finding_count;
    const struct refusals *refusals; /* non-empty: a refused study */
    const char *failure;             /* non-NULL: a failed study */
    const char *model_name, *model_version, *model_sha256, *backend;
    const char *backend_reason; /* why the processor stands in for a card; NULL = it does not */
    char precision[96];         /* of the detector's layers; "" = fp32 throughout */
    uint32_t passes;
    double dropout, operating_point;
    char review_rule[DICOM_REVIEW_RULE_SIZE]; /* what "review" is worth, beside findings that carry it; "" = not said */
    uint64_t seed;
    const char *device_observer_uid; /* one per installation */
    int64_t time_ms;                 /* content date and time, and the UIDs' seed: the same report has the same bytes */
    /* signed reports */
    const char *verifier_name, *verifier_organization;                 /* NULL = unsigned */
    const char *predecessor_sop_instance_uid, *predecessor_series_uid; /* NULL = none */
};
/* Segmentation (…66.4), one finding a segment; ERR_INPUT when there is no finding with a mask. */
bool dicom_seg_write(const struct dicom_report *report, struct bytes *out, char sop_instance_uid[DICOM_UID_SIZE],
                     struct err *err) PULMO_MUST_USE;
/* Comprehensive 3D SR, TID 1500. seg_part10: the SEG its groups refer to, or NULL. */
bool dicom_sr_write(const struct dicom_report *report, const struct bytes *seg_part10, struct bytes *out,
                    char sop_instance_uid[DICOM_UID_SIZE], struct err *err) PULMO_MUST_USE;

#endif
