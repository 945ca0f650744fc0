/* The only door to DCMTK: data sets, files, pixel data, associations and TLS as plain C. Private to dicom/.
 *
 * Every entry catches every C++ exception and turns it into an error. Tags are (group << 16) | element. Strings are
 * UTF-8 on this side where they carry text. One thread at a time per handle. */
#ifndef PULMO_DICOM_DCMTK_SHIM_H
#define PULMO_DICOM_DCMTK_SHIM_H

#include "pulmo.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- data sets --------------------------------------------------------------------------------------- */

struct shim_dataset; /* a data set or an item; the root owns its items */

/* Empty, but for Specific Character Set = ISO_IR 192 (UTF-8). */
struct shim_dataset *shim_dataset_new(struct err *err);
void shim_dataset_free(struct shim_dataset *dataset); /* roots only; items are borrowed from their root */
void shim_dataset_free_at(struct shim_dataset **dataset);
/* Parses a Part 10 file in memory (a missing preamble or meta header is tolerated where the syntax can be told). */
struct shim_dataset *shim_dataset_parse(const void *part10, size_t size, struct err *err);
/* As above, but stops before Pixel Data. */
struct shim_dataset *shim_dataset_parse_header(const void *part10, size_t size, struct err *err);
/* Writes a Part 10 file: zero preamble, complete meta header, Explicit VR Little Endian (or the given syntax UID,
 * NULL = that default). Encapsulated syntaxes: see shim_dataset_encode. */
bool shim_dataset_write(const struct shim_dataset *dataset, const char *transfer_syntax_uid, struct bytes *out,
                        struct err *err) PULMO_MUST_USE;
const char *shim_dataset_transfer_syntax(const struct shim_dataset *dataset); /* of the parsed file; borrowed */

bool shim_put_string(struct shim_dataset *dataset, uint32_t tag, const char *value, struct err *err) PULMO_MUST_USE;
bool shim_put_u16(struct shim_dataset *dataset, uint32_t tag, const uint16_t *values, size_t count, struct err *err) PULMO_MUST_USE;
/* UL; AT too, each value (group << 16) | element. */
bool shim_put_u32(struct shim_dataset *dataset, uint32_t tag, const uint32_t *values, size_t count, struct err *err) PULMO_MUST_USE;
bool shim_put_f32(struct shim_dataset *dataset, uint32_t tag, const float *values, size_t count, struct err *err) PULMO_MUST_USE;
bool shim_put_f64(struct shim_dataset *dataset, uint32_t tag, const double *values, size_t count, struct err *err) PULMO_MUST_USE;
bool shim_put_bytes(struct shim_dataset *dataset, uint32_t tag, const void *data, size_t size, struct err *err) PULMO_MUST_USE;
/* Appends an item to a sequence (made when absent); the item is borrowed. An empty sequence: item = NULL. */
bool shim_put_item(struct shim_dataset *dataset, uint32_t sequence_tag, struct shim_dataset **item, struct err *err) PULMO_MUST_USE;
/* Copies one attribute (with sequences) from another data set, as UTF-8; absent = nothing is done, true. Specific
 * Character Set itself is never copied. */
bool shim_copy(struct shim_dataset *to, const struct shim_dataset *from, uint32_t tag, struct err *err) PULMO_MUST_USE;
bool shim_remove(struct shim_dataset *dataset, uint32_t tag);

bool shim_has(const struct shim_dataset *dataset, uint32_t tag);
/* The VR as stored, two letters and NUL; false = absent. */
bool shim_vr(const struct shim_dataset *dataset, uint32_t tag, char vr[3]);
/* All values, backslash-separated, UTF-8, trimmed; false = absent or empty (out = ""). Truncates to out_size. */
bool shim_get_string(const struct shim_dataset *dataset, uint32_t tag, char *out, size_t out_size);
/* One value of a number or a text as DCMTK prints it; false = absent or empty. Not in UTF-8. */
bool shim_get_value(const struct shim_dataset *dataset, uint32_t tag, size_t index, char *out, size_t out_size);
/* dicom/values.c: false where the value is absent or not a finite number (of any VR of numbers, DS and IS). */
bool shim_get_f64(const struct shim_dataset *dataset, uint32_t tag, size_t index, double *out);
bool shim_get_i64(const struct shim_dataset *dataset, uint32_t tag, size_t index, int64_t *out);
size_t shim_value_count(const struct shim_dataset *dataset, uint32_t tag);
/* Raw bytes of OB/OW/UN as stored, native byte order for OW; borrowed until the data set changes. */
bool shim_get_bytes(const struct shim_dataset *dataset, uint32_t tag, const uint8_t **data, size_t *size);
size_t shim_item_count(const struct shim_dataset *dataset, uint32_t sequence_tag);
struct shim_dataset *shim_item(const struct shim_dataset *dataset, uint32_t sequence_tag, size_t index); /* borrowed */

/* ---- pixel data -------------------------------------------------------------------------------------- */

/* dicom/pixels.c: decodes one frame of a monochrome image to int32 stored values, sign-extended from Bits Stored, in
 * every syntax (JPEG 2000 and HTJ2K by OpenJPEG, the rest by DCMTK). count must be rows * columns. */
bool shim_frame_decode(const struct shim_dataset *dataset, size_t frame, int32_t *out, size_t count, struct err *err) PULMO_MUST_USE;
/* dicom/pixels.c: the compressed bytes of one frame, its fragments joined. */
bool shim_frame_fragments(const struct shim_dataset *dataset, size_t frame, struct bytes *out, struct err *err) PULMO_MUST_USE;
/* Fragments of encapsulated Pixel Data; index 0 is the Basic Offset Table; false = absent or empty. Borrowed. */
size_t shim_fragment_count(const struct shim_dataset *dataset);
bool shim_fragment(const struct shim_dataset *dataset, size_t index, const uint8_t **data, size_t *size);
/* DCMTK's codec for one frame that begins in the given fragment; size = rows * columns * Bits Allocated / 8, made even.
 * The stream's own size must have been checked against Rows and Columns before. */
bool shim_frame_decompress(const struct shim_dataset *dataset, size_t frame, size_t fragment, void *out, size_t size,
                           struct err *err) PULMO_MUST_USE;
/* Re-encodes uncompressed pixel data to a syntax that DCMTK can write (JPEG lossless, JPEG-LS, RLE, deflated). */
bool shim_dataset_encode(struct shim_dataset *dataset, const char *transfer_syntax_uid, struct err *err) PULMO_MUST_USE;
/* Sets compressed frames (one fragment each) made elsewhere as the pixel data, in an encapsulated syntax known to DCMTK
 * (JPEG 2000: dicom/jpeg2000.h); shim_dataset_write then takes the same UID. */
bool shim_put_frames(struct shim_dataset *dataset, const char *transfer_syntax_uid, const struct bytes *frames,
                     size_t count, struct err *err) PULMO_MUST_USE;

void shim_uid_new(char out[DICOM_UID_SIZE]); /* under this product's root, unique */

/* ---- network ----------------------------------------------------------------------------------------- */

struct shim_tls { /* NULL where plain TCP is meant */
    const char *key_file, *certificate_file; /* PEM */
    const char *ca_file;                     /* NULL = peers need no certificate */
    bool require_peer_certificate;
};
struct shim_listener;    /* accepts on one thread; hands each association to another */
struct shim_association; /* one thread at a time */

struct shim_listen_config {
    uint16_t port; /* 0 = any free one */
    const char *bind_address; /* NULL = all */
    const struct shim_tls *tls;
    uint32_t pdu_bytes_max;
    int timeout_s; /* of a silent peer */
};
struct shim_listener *shim_listen(const struct shim_listen_config *config, struct err *err);
uint16_t shim_listener_port(const struct shim_listener *listener);
void shim_listener_close(struct shim_listener *listener);
/* Waits up to wait_ms for a TCP connection and takes it, WITHOUT reading from it (a silent peer must not hold the
 * accepting thread). *out = NULL when none came. Sets TCP_NODELAY. */
bool shim_accept(struct shim_listener *listener, int wait_ms, struct shim_association **out, struct err *err) PULMO_MUST_USE;
/* On the association's own thread: TLS handshake and A-ASSOCIATE-RQ. Fills the titles for the allow-list. */
struct shim_request {
    char calling_aet[DICOM_AET_SIZE], called_aet[DICOM_AET_SIZE], peer_address[64];
};
bool shim_association_receive(struct shim_association *association, struct shim_request *out, struct err *err) PULMO_MUST_USE;
/* Accepts the presentation contexts of C-ECHO and of every SOP class in sop_class_uids with any syntax in
 * transfer_syntax_uids (in this order of preference), or rejects the association. */
bool shim_association_accept(struct shim_association *association, const char *const *sop_class_uids, size_t sop_classes,
                             const char *const *transfer_syntax_uids, size_t transfer_syntaxes, struct err *err) PULMO_MUST_USE;
enum shim_reject { SHIM_REJECT_CALLED_AET = 0, SHIM_REJECT_CALLING_AET, SHIM_REJECT_LIMIT, SHIM_REJECT_CONTEXT_NAME };
void shim_association_reject(struct shim_association *association, enum shim_reject reason);

enum shim_command_kind { SHIM_COMMAND_ECHO, SHIM_COMMAND_STORE, SHIM_COMMAND_OTHER, SHIM_COMMAND_RELEASE, SHIM_COMMAND_ABORT };
struct shim_command {
    enum shim_command_kind kind;
    uint16_t message_id, command_field;
    char sop_class_uid[DICOM_UID_SIZE], sop_instance_uid[DICOM_UID_SIZE], transfer_syntax_uid[DICOM_UID_SIZE];
    struct bytes dataset; /* of C-STORE, encoded as received, read by PDVs up to size_max; owned by the caller */
    bool too_large;       /* the data set was longer than size_max: read to its end, thrown away */
};
bool shim_association_command(struct shim_association *association, size_t size_max, struct shim_command *out,
                              struct err *err) PULMO_MUST_USE;
bool shim_association_respond(struct shim_association *association, const struct shim_command *command, uint16_t status,
                              const char *comment, struct err *err) PULMO_MUST_USE;
void shim_association_close(struct shim_association *association); /* release or abort as fits, then frees */
/* Makes a blocking read of another thread return, for a prompt stop. Any thread. */
void shim_association_interrupt(struct shim_association *association);

/* Client side. proposals: pairs of SOP class and transfer syntax, at most 127. */
struct shim_proposal {
    const char *sop_class_uid, *transfer_syntax_uid;
};
struct shim_connect_config {
    const char *host, *called_aet, *calling_aet;
    uint16_t port;
    const struct shim_tls *tls;
    int timeout_s;
    uint32_t pdu_bytes_max;
};
struct shim_association *shim_connect(const struct shim_connect_config *config, const struct shim_proposal *proposals,
                                      size_t count, struct err *err);
bool shim_echo(struct shim_association *association, struct err *err) PULMO_MUST_USE;
/* Sends a Part 10 file with its bytes as they are; *status = the peer's DIMSE status. ERR_UNSUPPORTED when the peer
 * accepted no fitting presentation context (the association lives on). */
bool shim_store(struct shim_association *association, const void *part10, size_t size, uint16_t *status, struct err *err) PULMO_MUST_USE;
bool shim_release(struct shim_association *association, struct err *err) PULMO_MUST_USE;

/* Wraps a data set as received over the network into a Part 10 file: zeroed preamble, meta information. */
bool shim_part10_wrap(const struct shim_command *command, const char *calling_aet, struct bytes *out, struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
