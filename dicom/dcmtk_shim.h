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
bool shim_ready(struct err *err) PULMO_MUST_USE; /* dicom_ready */
struct shim_dataset *shim_dataset_new(struct err *err);
void shim_dataset_free(struct shim_dataset *dataset); /* roots only; items are borrowed from their root */
void shim_dataset_free_at(struct shim_dataset **dataset);
/* Parses a Part 10 file in memory (a missing preamble or meta header is tolerated where the syntax can be told). */
struct shim_dataset *shim_dataset_parse(const void *part10, size_t size, struct err *err);
/* As above, but stops before Pixel Data. */
struct shim_dataset *shim_dataset_parse_header(const void *part10, size_t size, struct err *err);
/* The same, with its structure checked to the end, and what its Pixel Data holds: to judge an image needs no copy of
 * its pixels. Where elements of the header come after Pixel Data, all is parsed. */
struct structure_pixels;
struct shim_dataset *shim_dataset_parse_image(const void *part10, size_t size, struct structure_pixels *pixels,
                                              struct err *err);
/* Writes a Part 10 file: zero preamble, complete meta header, Explicit VR Little Endian (or the given syntax UID,
 * NULL = that default). Encapsulated syntaxes: see shim_dataset_encode. */
bool shim_dataset_write(const struct shim_dataset *dataset, const char *transfer_syntax_uid, struct bytes *out,
                        struct err *err) PULMO_MUST_USE;
const char *shim_dataset_transfer_syntax(const struct shim_dataset *dataset); /* of the parsed file; borrowed */

bool shim_put_string(struct shim_dataset *dataset, uint32_t tag, const char *value, struct err *err) PULMO_MUST_USE;
bool shim_put_u16(struct shim_dataset *dataset, uint32_t tag, const uint16_t *values, size_t count,
                  struct err *err) PULMO_MUST_USE;
/* UL; AT too, each value (group << 16) | element. */
bool shim_put_u32(struct shim_dataset *dataset, uint32_t tag, const uint32_t *values, size_t count,
                  struct err *err) PULMO_MUST_USE;
bool shim_put_f32(struct shim_dataset *dataset, uint32_t tag, const float *values, size_t count,
                  struct err *err) PULMO_MUST_USE;
bool shim_put_f64(struct shim_dataset *dataset, uint32_t tag, const double *values, size_t count,
                  struct err *err) PULMO_MUST_USE;
bool shim_put_bytes(struct shim_dataset *dataset, uint32_t tag, const void *data, size_t size,
                    struct err *err) PULMO_MUST_USE;
/* Appends an item to a sequence (made when absent); the item is borrowed. An empty sequence: item = NULL. */
bool shim_put_item(struct shim_dataset *dataset, uint32_t sequence_tag, struct shim_dataset **item,
                   struct err *err) PULMO_MUST_USE;
/* Copies one attribute (with sequences) from another data set, as UTF-8; absent = nothing is done, true. Specific
 * Character Set itself is never copied. */
bool shim_copy(struct shim_dataset *to, const struct shim_dataset *from, uint32_t tag, struct err *err) PULMO_MUST_USE;
bool shim_remove(struct shim_dataset *dataset, uint32_t tag);

bool shim_has(const struct shim_dataset *dataset, uint32_t tag);
/* The VR as stored, two letters and NUL; false = absent. */
bool shim_vr(const struct shim_dataset *dataset, uint32_t tag, char vr[3]);
/* All values, backslash-separated, UTF-8, trimmed; false = absent or empty (out = ""). Truncates to out_size. */
bool shim_get_string(const struct shim_dataset *dataset, uint32_t tag, char *out, size_t out_size);
/* Value number index, or all of them (-1), as UTF-8 and untrimmed; cut to out_size. False = absent, empty, no text. */
bool shim_get_text(const struct shim_dataset *dataset, uint32_t tag, long index, char *out, size_t out_size);
/* False where the value is absent or not a finite number (of any VR of numbers, DS and IS). */
bool shim_get_f64(const struct shim_dataset *dataset, uint32_t tag, size_t index, double *out);
bool shim_get_i64(const struct shim_dataset *dataset, uint32_t tag, size_t index, int64_t *out);
size_t shim_value_count(const struct shim_dataset *dataset, uint32_t tag);
/* Raw bytes of OB/OW/UN as stored, native byte order for OW; borrowed until the data set changes. */
bool shim_get_bytes(const struct shim_dataset *dataset, uint32_t tag, const uint8_t **data, size_t *size);
size_t shim_item_count(const struct shim_dataset *dataset, uint32_t sequence_tag);
struct shim_dataset *shim_item(const struct shim_dataset *dataset, uint32_t sequence_tag, size_t index); /* borrowed */

/* Who has drawn conclusions from what the questions above were answered ends with this: `done`, unless some answer was
 * not to be had for lack of memory and an attribute seemed absent. Then false with ERR_MEMORY, whatever *err said. */
bool shim_concluded(const struct shim_dataset *dataset, bool done, struct err *err) PULMO_MUST_USE;

/* What dicom/dataset.c builds on: inflates raw deflate; reads a data set of a syntax up to a tag (deflated ones
 * inflated before); appends a data set without meta information. */
bool shim_inflate(const void *data, size_t size, size_t size_max, struct bytes *out, struct err *err) PULMO_MUST_USE;
struct shim_dataset *shim_dataset_read(const void *data, size_t size, const char *transfer_syntax_uid,
                                       uint32_t stop_tag, struct err *err);
bool shim_dataset_write_body(const struct shim_dataset *dataset, const char *transfer_syntax_uid, struct bytes *out,
                             struct err *err) PULMO_MUST_USE;

/* ---- pixel data -------------------------------------------------------------------------------------- */

/* dicom/pixels.c: decodes one frame of a monochrome image to int32 stored values, sign-extended from Bits Stored, in
 * every syntax (JPEG 2000 and HTJ2K by OpenJPEG, RLE by dicom/rle.c, JPEG and JPEG-LS by DCMTK). count must be rows *
 * columns. */
bool shim_frame_decode(const struct shim_dataset *dataset, size_t frame, int32_t *out, size_t count,
                       struct err *err) PULMO_MUST_USE;
/* dicom/pixels.c: the compressed bytes of one frame, its fragments joined. */
bool shim_frame_fragments(const struct shim_dataset *dataset, size_t frame, struct bytes *out,
                          struct err *err) PULMO_MUST_USE;
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

/* ---- network: the DICOM upper layer; dicom/association.h builds on it --------------------------------- */

struct shim_tls {                            /* NULL where plain TCP is meant */
    const char *key_file, *certificate_file; /* PEM */
    const char *ca_file;                     /* NULL = peers need no certificate */
    bool require_peer_certificate;
};
struct shim_network; /* any thread */
struct shim_dul;     /* an association; one thread at a time */

/* listener: the listening socket of a server, borrowed; -1 = a client's network. timeout_s: of a silent peer. */
struct shim_network *shim_network_new(const struct shim_tls *tls, int listener, int timeout_s, struct err *err);
void shim_network_free(struct shim_network *network); /* after its associations */

/* TLS handshake and A-ASSOCIATE-RQ on an accepted socket, which it takes (and closes on failure). ERR_NETWORK: silent
 * or closed; ERR_INPUT: does not speak DICOM. */
struct shim_request {
    char calling_aet[DICOM_AET_SIZE], called_aet[DICOM_AET_SIZE];
    bool is_dicom;     /* asked for the DICOM application context, PS3.7 A.2.1 */
    bool said_nothing; /* of a failure: closed without a byte, as those do who only look whether the port is open */
};
struct shim_dul *shim_dul_receive(struct shim_network *network, int socket, uint32_t pdu_bytes,
                                  struct shim_request *out, struct err *err);
/* Accepts the presentation contexts of C-ECHO, of Storage Commitment reports, and of every SOP class in sop_class_uids
 * with the first syntax in transfer_syntax_uids that was proposed. */
bool shim_dul_accept(struct shim_dul *dul, const char *const *sop_class_uids, size_t sop_classes,
                     const char *const *transfer_syntax_uids, size_t transfer_syntaxes, struct err *err) PULMO_MUST_USE;
void shim_dul_reject(struct shim_dul *dul, int result, int source, int reason); /* PS3.8 table 9-21 */

/* At most 127 proposals, each a SOP class in one transfer syntax; their context ids are 1, 3, 5 ... */
struct shim_proposal {
    const char *sop_class_uid, *transfer_syntax_uid;
};
struct shim_call {
    const char *address; /* host:port, at most 63 characters */
    const char *called_aet, *calling_aet;
    uint32_t pdu_bytes;
};
struct shim_dul *shim_dul_connect(struct shim_network *network, const struct shim_call *call,
                                  const struct shim_proposal *proposals, size_t count, struct err *err);

/* Presentation data values, PS3.8 9.3.5. */
enum shim_pdv_kind { SHIM_PDV_COMMAND, SHIM_PDV_DATASET, SHIM_PDV_RELEASE, SHIM_PDV_ABORT };
struct shim_pdv {
    enum shim_pdv_kind kind;
    uint8_t context_id;
    bool last;
    const uint8_t *data; /* borrowed until the next read */
    size_t size;
};
/* ERR_NETWORK: closed or silent for timeout_s; ERR_INPUT: not the DICOM protocol. */
bool shim_dul_read(struct shim_dul *dul, int timeout_s, struct shim_pdv *out, struct err *err) PULMO_MUST_USE;
/* Writes a whole command or data set, cut to the peer's PDU size. */
bool shim_dul_write(struct shim_dul *dul, uint8_t context_id, enum shim_pdv_kind kind, const struct bytes *data,
                    struct err *err) PULMO_MUST_USE;
/* SOP class and transfer syntax of an accepted context; false = it was not accepted. */
bool shim_dul_context(const struct shim_dul *dul, uint8_t context_id, char sop_class_uid[DICOM_UID_SIZE],
                      char transfer_syntax_uid[DICOM_UID_SIZE]);
/* A client asks for release and awaits the answer; a server answers the request that was read. */
enum shim_side { SHIM_SIDE_CLIENT, SHIM_SIDE_SERVER };
bool shim_dul_release(struct shim_dul *dul, enum shim_side side, struct err *err) PULMO_MUST_USE;
void shim_dul_free(struct shim_dul *dul, bool abort); /* abort: tells the peer, when it was not released */

#ifdef __cplusplus
}
#endif
#endif
