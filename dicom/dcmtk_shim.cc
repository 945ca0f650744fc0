/* The only C++ of the product: what DCMTK does for it, behind dcmtk_shim.h. Nothing here decides anything that C could
 * decide above it. Every entry is wrapped by guarded(): no exception and no type of DCMTK leaves. */
#include "dicom/dcmtk_shim.h"

#include "dicom/guard.h"
#include "dicom/socket.h"

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcistrmb.h>
#include <dcmtk/dcmdata/dcostrmb.h>
#include <dcmtk/dcmdata/dcpixseq.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dcrleerg.h>
#include <dcmtk/dcmdata/dcspchrs.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmjpeg/djdecode.h>
#include <dcmtk/dcmjpeg/djencode.h>
#include <dcmtk/dcmjpls/djdecode.h>
#include <dcmtk/dcmjpls/djencode.h>
#include <dcmtk/dcmnet/assoc.h>
#include <dcmtk/dcmnet/cond.h>
#include <dcmtk/dcmnet/dcmlayer.h>
#include <dcmtk/dcmnet/dcmtrans.h>
#include <dcmtk/dcmtls/tlslayer.h>
#include <dcmtk/dcmtls/tlstrans.h>
#include <dcmtk/oflog/oflog.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <openssl/ssl.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr size_t TEXT_BYTES_MAX = 64 * 1024; /* of an attribute shown as text */

template <class Body> bool guarded(struct err *err, Body body) noexcept {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return err_set(err, ERR_MEMORY, "out of memory in the DICOM toolkit");
    } catch (...) {
        return err_set(err, ERR_INTERNAL, "unexpected exception in the DICOM toolkit");
    }
}

/* As above for what is asked of a handle: the fallback stands for every fault. */
template <class Value, class Body> Value value_or(Value fallback, Body body) noexcept {
    try {
        return body();
    } catch (...) {
        return fallback;
    }
}

/* Conditions are fixed sentences of DCMTK: no patient data. */
bool failed(struct err *err, enum err_kind kind, const char *what, const OFCondition &condition) {
    return err_set(err, kind, "%s: %s", what, condition.text());
}

void set_up_once() {
    OFLog::configure(OFLogger::OFF_LOG_LEVEL); /* DCMTK logs values of attributes */
    dcmDisableGethostbyaddr.set(OFTrue);
    DJDecoderRegistration::registerCodecs(EDC_never);
    DJEncoderRegistration::registerCodecs();
    DJLSDecoderRegistration::registerCodecs();
    DJLSEncoderRegistration::registerCodecs();
    DcmRLEEncoderRegistration::registerCodecs();
}

bool set_up(struct err *err) {
    static std::once_flag once;
    std::call_once(once, set_up_once);
    return dcmDataDict.isDictionaryLoaded() ||
           err_set(err, ERR_CONFIG, "DCMTK's data dictionary is absent (package libdcmtk17, or DCMDICTPATH)");
}

DcmTagKey key_of(uint32_t tag) {
    return DcmTagKey(Uint16(tag >> 16), Uint16(tag & 0xFFFF));
}

} // namespace

/* ---- data sets --------------------------------------------------------------------------------------- */

struct shim_dataset {
    std::unique_ptr<DcmDataset> root; /* of roots only */
    DcmItem *item = nullptr;
    std::string transfer_syntax;
    std::map<DcmItem *, std::unique_ptr<shim_dataset>> items; /* handles given out, owned by their parent's handle */
};

namespace {

/* DCMTK reads through non-const members; a handle belongs to one thread at a time. */
DcmElement *find(const struct shim_dataset *dataset, uint32_t tag) {
    DcmElement *element = nullptr;
    return dataset->item->findAndGetElement(key_of(tag), element).good() ? element : nullptr;
}

struct shim_dataset *handle_of(const struct shim_dataset *parent, DcmItem *item) {
    auto &slot = const_cast<struct shim_dataset *>(parent)->items[item];
    if (!slot) {
        slot = std::make_unique<shim_dataset>();
        slot->item = item;
    }
    return slot.get();
}

struct shim_dataset *root_of(std::unique_ptr<DcmDataset> root, const char *syntax) {
    auto handle = std::make_unique<shim_dataset>();
    handle->item = root.get();
    handle->root = std::move(root);
    handle->transfer_syntax = syntax;
    return handle.release();
}

std::string character_set_of(DcmItem *item) {
    for (DcmObject *object = item; object != nullptr; object = object->getParent()) {
        OFString value;
        auto *holder = dynamic_cast<DcmItem *>(object);
        if (holder != nullptr && holder->findAndGetOFStringArray(DCM_SpecificCharacterSet, value).good())
            return value.c_str();
    }
    return "";
}

bool is_foreign(char c) { /* not ASCII, or the begin of an escape sequence */
    return static_cast<unsigned char>(c) >= 0x80 || c == 0x1B;
}

/* What cannot be converted is shown as question marks: a report must not carry invalid UTF-8. */
OFString to_utf8(const struct shim_dataset *dataset, DcmElement *element, const OFString &text) {
    OFString out;
    if (std::none_of(text.begin(), text.end(), is_foreign))
        return text;
    const std::string source = character_set_of(dataset->item);
    DcmSpecificCharacterSet converter;
    if (converter.selectCharacterSet(source.c_str()).good() &&
        converter.convertString(text, out, element->ident() == EVR_PN ? "\\^=" : "\\").good())
        return out;
    for (const char c : text)
        out += is_foreign(c) ? '?' : c;
    return out;
}

} // namespace

struct shim_dataset *shim_dataset_new(struct err *err) {
    struct shim_dataset *out = nullptr;
    guarded(err, [&] {
        if (!set_up(err))
            return false;
        out = root_of(std::make_unique<DcmDataset>(), UID_LittleEndianExplicitTransferSyntax);
        return out->item->putAndInsertString(DCM_SpecificCharacterSet, "ISO_IR 192").good();
    });
    return out;
}

void shim_dataset_free(struct shim_dataset *dataset) {
    value_or(0, [&] { return delete dataset, 0; });
}

bool shim_inflate(const void *data, size_t size, size_t size_max, struct bytes *out, struct err *err) {
    return guarded(err, [&] {
        DcmInputBufferStream stream;
        std::vector<uint8_t> block(64 * 1024);
        stream.setBuffer(data, offile_off_t(size));
        stream.setEos();
        stream.installCompressionFilter(ESC_zlib);
        while (stream.good() && !stream.eos()) {
            const auto got = size_t(stream.read(block.data(), offile_off_t(block.size())));
            if (got == 0)
                break;
            if (!bytes_append(out, block.data(), got, size_max, err))
                return err_within(err, "deflated data set");
        }
        return (stream.good() && stream.eos()) || err_set(err, ERR_INPUT, "deflated data set is damaged");
    });
}

/* DCMTK knows no HTJ2K (1.2.840.10008.1.2.4.201 to 203): any encapsulated syntax has the same layout. */
static E_TransferSyntax layout_of(const char *uid) {
    const E_TransferSyntax known = DcmXfer(uid).getXfer();
    if (known == EXS_DeflatedLittleEndianExplicit)
        return EXS_LittleEndianExplicit; /* inflated before */
    return known == EXS_Unknown ? EXS_JPEG2000LosslessOnly : known;
}

struct shim_dataset *shim_dataset_read(const void *data, size_t size, const char *transfer_syntax_uid,
                                       uint32_t stop_tag, struct err *err) {
    struct shim_dataset *out = nullptr;
    guarded(err, [&] {
        if (!set_up(err))
            return false;
        DcmInputBufferStream stream;
        stream.setBuffer(data, offile_off_t(size));
        stream.setEos();
        auto dataset = std::make_unique<DcmDataset>();
        dataset->transferInit();
        const OFCondition condition = dataset->readUntilTag(stream, layout_of(transfer_syntax_uid), EGL_noChange,
                                                            DCM_MaxReadLength, key_of(stop_tag));
        dataset->transferEnd();
        if (condition.bad())
            return failed(err, ERR_INPUT, "data set cannot be parsed", condition);
        out = root_of(std::move(dataset), transfer_syntax_uid);
        return true;
    });
    return out;
}

bool shim_dataset_write_body(const struct shim_dataset *dataset, const char *transfer_syntax_uid, struct bytes *out,
                             struct err *err) {
    return guarded(err, [&] {
        const E_TransferSyntax syntax = DcmXfer(transfer_syntax_uid).getXfer();
        if (!dataset->root || syntax == EXS_Unknown)
            return err_set(err, ERR_UNSUPPORTED, "cannot write transfer syntax %s", transfer_syntax_uid);
        OFCondition condition = dataset->root->chooseRepresentation(syntax, nullptr);
        if (condition.bad())
            return failed(err, ERR_UNSUPPORTED, "pixel data cannot be written in this transfer syntax", condition);
        std::vector<uint8_t> block(64 * 1024);
        DcmOutputBufferStream stream(block.data(), offile_off_t(block.size()));
        dataset->root->transferInit();
        do {
            void *filled = nullptr;
            offile_off_t count = 0;
            condition =
                dataset->root->write(stream, syntax, EET_ExplicitLength, nullptr, EGL_withoutGL, EPD_withoutPadding);
            stream.flush(); /* of the deflate filter, where there is one */
            stream.flushBuffer(filled, count);
            if (!bytes_append(out, filled, size_t(count), PULMO_ALLOC_MAX, err))
                return false;
        } while (condition == EC_StreamNotifyClient || (condition.good() && !stream.isFlushed()));
        dataset->root->transferEnd();
        return condition.good() || failed(err, ERR_INPUT, "data set cannot be written", condition);
    });
}

const char *shim_dataset_transfer_syntax(const struct shim_dataset *dataset) {
    return dataset->transfer_syntax.c_str();
}

/* Runs one putAndInsert...() and names the attribute when it refuses. */
template <class Put> static bool put(uint32_t tag, struct err *err, Put body) {
    return guarded(err, [&] {
        const OFCondition condition = body(DcmTag(key_of(tag)));
        return condition.good() || err_set(err, ERR_INTERNAL, "attribute (%04X,%04X) cannot be set: %s", tag >> 16,
                                           tag & 0xFFFF, condition.text());
    });
}

bool shim_put_string(struct shim_dataset *dataset, uint32_t tag, const char *value, struct err *err) {
    return put(tag, err, [&](const DcmTag &t) { return dataset->item->putAndInsertString(t, value); });
}

bool shim_put_u16(struct shim_dataset *dataset, uint32_t tag, const uint16_t *values, size_t count, struct err *err) {
    return put(tag, err, [&](const DcmTag &t) { return dataset->item->putAndInsertUint16Array(t, values, count); });
}

bool shim_put_u32(struct shim_dataset *dataset, uint32_t tag, const uint32_t *values, size_t count, struct err *err) {
    return put(tag, err, [&](const DcmTag &t) {
        if (t.getEVR() != EVR_AT)
            return dataset->item->putAndInsertUint32Array(t, values, count);
        std::vector<Uint16> pairs;
        for (size_t i = 0; i < 2 * count; i++)
            pairs.push_back(Uint16(values[i / 2] >> (i % 2 == 0 ? 16 : 0)));
        return dataset->item->putAndInsertUint16Array(t, pairs.data(), count);
    });
}

bool shim_put_f32(struct shim_dataset *dataset, uint32_t tag, const float *values, size_t count, struct err *err) {
    return put(tag, err, [&](const DcmTag &t) { return dataset->item->putAndInsertFloat32Array(t, values, count); });
}

bool shim_put_f64(struct shim_dataset *dataset, uint32_t tag, const double *values, size_t count, struct err *err) {
    return put(tag, err, [&](const DcmTag &t) { return dataset->item->putAndInsertFloat64Array(t, values, count); });
}

/* Pixel Data of more than 8 bits is OW, PS3.5 A.1 and A.2. */
bool shim_put_bytes(struct shim_dataset *dataset, uint32_t tag, const void *data, size_t size, struct err *err) {
    return put(tag, err, [&](const DcmTag &t) {
        int64_t bits = 0;
        const bool wide = t == DCM_PixelData && shim_get_i64(dataset, 0x00280100, 0, &bits) && bits > 8;
        if ((wide || t.getEVR() == EVR_OW) && size % 2 == 0) {
            std::vector<Uint16> words(size / 2);
            memcpy(words.data(), data, size);
            return dataset->item->putAndInsertUint16Array(t, words.data(), words.size());
        }
        return dataset->item->putAndInsertUint8Array(t, static_cast<const Uint8 *>(data), size);
    });
}

bool shim_put_item(struct shim_dataset *dataset, uint32_t sequence_tag, struct shim_dataset **item, struct err *err) {
    return put(sequence_tag, err, [&](const DcmTag &t) {
        if (item == nullptr)
            return dataset->item->insertEmptyElement(t);
        DcmItem *added = nullptr;
        const OFCondition condition = dataset->item->findOrCreateSequenceItem(t, added, -2 /* append */);
        if (condition.good())
            *item = handle_of(dataset, added);
        return condition;
    });
}

/* The copy is in UTF-8, as is all that this product writes; the character set itself is therefore not copied. */
bool shim_copy(struct shim_dataset *to, const struct shim_dataset *from, uint32_t tag, struct err *err) {
    return put(tag, err, [&](const DcmTag &t) -> OFCondition {
        const DcmElement *element = find(from, tag);
        if (element == nullptr || t == DCM_SpecificCharacterSet)
            return EC_Normal;
        std::unique_ptr<DcmElement> copy(OFstatic_cast(DcmElement *, element->clone()));
        const std::string source = character_set_of(from->item);
        if (!source.empty() && source != "ISO_IR 192") {
            DcmSpecificCharacterSet converter;
            OFCondition condition = converter.selectCharacterSet(source.c_str());
            condition = condition.good() ? copy->convertCharacterSet(converter) : condition;
            if (condition.bad())
                return condition;
        }
        const OFCondition condition = to->item->insert(copy.get(), OFTrue);
        if (condition.good())
            copy.release();
        return condition;
    });
}

bool shim_remove(struct shim_dataset *dataset, uint32_t tag) {
    return guarded(nullptr, [&] { return dataset->item->findAndDeleteElement(key_of(tag)).good(); });
}

bool shim_vr(const struct shim_dataset *dataset, uint32_t tag, char vr[3]) {
    return guarded(nullptr, [&] {
        DcmElement *element = find(dataset, tag);
        return element != nullptr && snprintf(vr, 3, "%s", DcmVR(element->getVR()).getValidVRName()) == 2;
    });
}

static bool is_text(DcmElement *element) {
    const char *vr = DcmVR(element->getVR()).getValidVRName();
    return strstr("OB OD OF OL OV OW SQ UN", vr) == nullptr && element->getLength() <= TEXT_BYTES_MAX;
}

bool shim_get_text(const struct shim_dataset *dataset, uint32_t tag, long index, char *out, size_t out_size) {
    return guarded(nullptr, [&] {
        DcmElement *element = find(dataset, tag);
        OFString raw;
        if (element == nullptr || !is_text(element))
            return false;
        if ((index < 0 ? element->getOFStringArray(raw) : element->getOFString(raw, unsigned(index))).bad())
            return false;
        const OFString text = to_utf8(dataset, element, raw);
        snprintf(out, out_size, "%s", text.c_str());
        return !text.empty();
    });
}

size_t shim_value_count(const struct shim_dataset *dataset, uint32_t tag) {
    return value_or<size_t>(0, [&] { return find(dataset, tag) ? size_t(find(dataset, tag)->getVM()) : 0; });
}

bool shim_get_bytes(const struct shim_dataset *dataset, uint32_t tag, const uint8_t **data, size_t *size) {
    return guarded(nullptr, [&] {
        DcmElement *element = find(dataset, tag);
        Uint8 *bytes = nullptr;
        Uint16 *words = nullptr;
        if (element == nullptr || element->getLength() == 0)
            return false;
        if (element->getUint8Array(bytes).bad() && element->getUint16Array(words).good())
            bytes = reinterpret_cast<Uint8 *>(words);
        if (bytes == nullptr)
            return false;
        *data = bytes;
        *size = element->getLength();
        return true;
    });
}

static DcmSequenceOfItems *sequence_of(const struct shim_dataset *dataset, uint32_t tag) {
    DcmElement *element = find(dataset, tag);
    return element != nullptr && element->ident() == EVR_SQ ? OFstatic_cast(DcmSequenceOfItems *, element) : nullptr;
}

size_t shim_item_count(const struct shim_dataset *dataset, uint32_t tag) {
    return value_or<size_t>(0,
                            [&] { return sequence_of(dataset, tag) ? size_t(sequence_of(dataset, tag)->card()) : 0; });
}

struct shim_dataset *shim_item(const struct shim_dataset *dataset, uint32_t sequence_tag, size_t index) {
    return value_or<struct shim_dataset *>(
        nullptr, [&]() -> struct shim_dataset * {
            DcmSequenceOfItems *sequence = sequence_of(dataset, sequence_tag);
            DcmItem *item = sequence != nullptr && index < sequence->card() ? sequence->getItem(index) : nullptr;
            return item != nullptr ? handle_of(dataset, item) : nullptr;
        });
}

/* ---- pixel data -------------------------------------------------------------------------------------- */

static DcmPixelData *pixel_data_of(const struct shim_dataset *dataset) {
    return dynamic_cast<DcmPixelData *>(find(dataset, 0x7FE00010));
}

static DcmPixelSequence *fragments_of(const struct shim_dataset *dataset) {
    DcmPixelData *pixels = pixel_data_of(dataset);
    DcmPixelSequence *sequence = nullptr;
    E_TransferSyntax key = EXS_Unknown;
    const DcmRepresentationParameter *parameter = nullptr;
    if (pixels != nullptr)
        pixels->getOriginalRepresentationKey(key, parameter);
    return pixels != nullptr && pixels->getEncapsulatedRepresentation(key, parameter, sequence).good() ? sequence
                                                                                                       : nullptr;
}

size_t shim_fragment_count(const struct shim_dataset *dataset) {
    return value_or<size_t>(0, [&] { return fragments_of(dataset) ? size_t(fragments_of(dataset)->card()) : 0; });
}

bool shim_fragment(const struct shim_dataset *dataset, size_t index, const uint8_t **data, size_t *size) {
    return guarded(nullptr, [&] {
        DcmPixelSequence *sequence = fragments_of(dataset);
        DcmPixelItem *item = nullptr;
        Uint8 *bytes = nullptr;
        if (sequence == nullptr || sequence->getItem(item, index).bad() || item->getUint8Array(bytes).bad() ||
            bytes == nullptr)
            return false;
        *data = bytes;
        *size = item->getLength();
        return true;
    });
}

bool shim_frame_decompress(const struct shim_dataset *dataset, size_t frame, size_t fragment, void *out, size_t size,
                           struct err *err) {
    return guarded(err, [&] {
        DcmPixelData *pixels = pixel_data_of(dataset);
        OFString color_model;
        Uint32 start = Uint32(fragment);
        const OFCondition condition =
            pixels != nullptr
                ? pixels->getUncompressedFrame(dataset->item, Uint32(frame), start, out, Uint32(size), color_model)
                : EC_TagNotFound;
        return condition.good() || failed(err, ERR_INPUT, "Pixel Data cannot be decoded", condition);
    });
}

bool shim_dataset_encode(struct shim_dataset *dataset, const char *transfer_syntax_uid, struct err *err) {
    return guarded(err, [&] {
        const E_TransferSyntax syntax = DcmXfer(transfer_syntax_uid).getXfer();
        if (!dataset->root || syntax == EXS_Unknown)
            return err_set(err, ERR_UNSUPPORTED, "cannot encode to transfer syntax %s", transfer_syntax_uid);
        const OFCondition condition = dataset->root->chooseRepresentation(syntax, nullptr);
        if (condition.bad())
            return failed(err, ERR_UNSUPPORTED, "Pixel Data cannot be encoded", condition);
        dataset->transfer_syntax = transfer_syntax_uid;
        return true;
    });
}

bool shim_put_frames(struct shim_dataset *dataset, const char *transfer_syntax_uid, const struct bytes *frames,
                     size_t count, struct err *err) {
    return put(0x7FE00010, err, [&](const DcmTag &t) -> OFCondition {
        auto sequence = std::make_unique<DcmPixelSequence>(DcmTag(t, EVR_OB));
        auto pixels = std::make_unique<DcmPixelData>(DcmTag(t, EVR_OB));
        DcmOffsetList offsets;
        OFCondition condition = sequence->insert(new DcmPixelItem(DcmTag(DCM_PixelItemTag, EVR_OB)));
        for (size_t i = 0; i < count && condition.good(); i++)
            condition = sequence->storeCompressedFrame(offsets, frames[i].data, Uint32(frames[i].size), 0);
        if (condition.good()) {
            pixels->putOriginalRepresentation(DcmXfer(transfer_syntax_uid).getXfer(), nullptr, sequence.release());
            condition = dataset->item->insert(pixels.get(), OFTrue);
        }
        if (condition.good()) {
            pixels.release();
            dataset->transfer_syntax = transfer_syntax_uid;
        }
        return condition;
    });
}

/* ---- network ----------------------------------------------------------------------------------------- */

namespace {

/* DCMTK takes a connection that was accepted elsewhere from a global variable, so one thread at a time may hand one
 * over. It asks the transport layer for a connection object as soon as it has read the variable and before it reads
 * from the peer: there the door closes again, and a silent peer holds up nobody. */
std::mutex door;
thread_local bool holds_door = false;
thread_local struct err *request_fault = nullptr; /* of the request that this thread receives */

void open_door(int socket) {
    door.lock();
    holds_door = true;
    dcmExternalSocketHandle.set(socket);
}

bool close_door() {
    const bool held = holds_door;
    if (held) {
        dcmExternalSocketHandle.set(-1);
        holds_door = false;
        door.unlock();
    }
    return held;
}

/* A connection of a server: the first request is checked before DCMTK sees it, dicom/guard.h. */
template <class Base> class Guarded : public Base {
  public:
    using Base::Base;
    ~Guarded() override {
        guard_free(&guard);
    }
    ssize_t read(void *buffer, size_t size) override {
        return guard_read(&guard, buffer, size, read_base, this);
    }
    OFBool networkDataAvailable(int timeout) override {
        return guard_has_bytes(&guard) || Base::networkDataAvailable(timeout);
    }

  private:
    static ssize_t read_base(void *self, void *buffer, size_t size) {
        return static_cast<Guarded *>(self)->Base::read(buffer, size);
    }
    struct guard guard = {GUARD_COLLECTING, nullptr, 0, 0, request_fault};
};

template <class Base> class Layer : public Base {
  public:
    using Base::Base;
    DcmTransportConnection *createConnection(DcmNativeSocketType socket, OFBool secure) override {
        const bool is_server = close_door();
        socket_set_nodelay(socket);
        if (!is_server)
            return Base::createConnection(socket, secure);
        if constexpr (std::is_same<Base, DcmTLSTransportLayer>::value) {
            SSL *ssl = SSL_new(this->getNativeHandle());
            if (ssl != nullptr && SSL_set_fd(ssl, socket) == 1)
                return new Guarded<DcmTLSConnection>(socket, ssl);
            SSL_free(ssl);
            return nullptr;
        }
        return new Guarded<DcmTCPConnection>(socket);
    }
};

bool load_keys(DcmTLSTransportLayer &layer, const struct shim_tls *tls, struct err *err) {
    if (tls->certificate_file != nullptr && tls->key_file != nullptr) {
        if (layer.setPrivateKeyFile(tls->key_file, DCF_Filetype_PEM).bad())
            return err_set(err, ERR_CONFIG, "TLS key %s cannot be read", tls->key_file);
        if (layer.setCertificateFile(tls->certificate_file, DCF_Filetype_PEM).bad() ||
            !layer.checkPrivateKeyMatchesCertificate())
            return err_set(err, ERR_CONFIG, "TLS certificate %s is unreadable or not the key's", tls->certificate_file);
    }
    return tls->ca_file == nullptr || layer.addTrustedCertificateFile(tls->ca_file, DCF_Filetype_PEM).good() ||
           err_set(err, ERR_CONFIG, "TLS CA file %s cannot be read", tls->ca_file);
}

/* Non-Downgrading BCP 195 TLS Secure Transport Connection Profile, PS3.15 B.10: TLS 1.2 and better. */
std::unique_ptr<DcmTransportLayer> layer_of(const struct shim_tls *tls, T_ASC_NetworkRole role, struct err *err) {
    if (tls == nullptr)
        return std::make_unique<Layer<DcmTransportLayer>>();
    auto layer = std::make_unique<Layer<DcmTLSTransportLayer>>(role, nullptr, OFFalse);
    if (layer->setTLSProfile(TSP_Profile_BCP195_ND).bad() || layer->activateCipherSuites().bad()) {
        err_set(err, ERR_CONFIG, "TLS profile BCP 195 ND is not available");
        return nullptr;
    }
    if (!load_keys(*layer, tls, err))
        return nullptr;
    layer->setCertificateVerification(tls->require_peer_certificate ? DCV_requireCertificate
                                      : tls->ca_file != nullptr     ? DCV_checkCertificate
                                                                    : DCV_ignoreCertificate);
    return layer;
}

/* An association of DCMTK behind the C handle, which has no members of its own. */
T_ASC_Association *own(const struct shim_dul *dul) {
    return reinterpret_cast<T_ASC_Association *>(const_cast<struct shim_dul *>(dul));
}

bool network_failed(struct err *err, const char *what, const OFCondition &condition) {
    const bool is_network = condition == DUL_NETWORKCLOSED || condition == DUL_READTIMEOUT ||
                            condition == DUL_PEERABORTEDASSOCIATION || condition.code() == DULC_TCPIOERROR ||
                            condition.code() == DULC_TCPINITERROR;
    return failed(err, is_network ? ERR_NETWORK : ERR_INPUT, what, condition);
}

} // namespace

struct shim_network {
    T_ASC_Network *dcmtk = nullptr;
    std::unique_ptr<DcmTransportLayer> layer;
    bool secure = false;
    int timeout_s = 0;
};

struct shim_network *shim_network_new(const struct shim_tls *tls, int listener, int timeout_s, struct err *err) {
    struct shim_network *network = nullptr;
    const bool done = guarded(err, [&] {
        const T_ASC_NetworkRole role = listener >= 0 ? NET_ACCEPTOR : NET_REQUESTOR;
        if (!set_up(err))
            return false;
        network = new shim_network;
        network->secure = tls != nullptr;
        network->timeout_s = timeout_s;
        network->layer = layer_of(tls, role, err);
        if (!network->layer)
            return false;
        dcmSocketReceiveTimeout.set(timeout_s);
        dcmSocketSendTimeout.set(timeout_s);
        dcmConnectionTimeout.set(timeout_s);
        open_door(listener); /* with a socket in the door, DCMTK opens none of its own */
        OFCondition condition = ASC_initializeNetwork(role, 0, timeout_s, &network->dcmtk);
        close_door();
        condition = condition.good() ? ASC_setTransportLayer(network->dcmtk, network->layer.get(), 0) : condition;
        return condition.good() || failed(err, ERR_INTERNAL, "DICOM network cannot be set up", condition);
    });
    if (!done) {
        shim_network_free(network);
        network = nullptr;
    }
    return network;
}

void shim_network_free(struct shim_network *network) {
    guarded(nullptr, [&] {
        if (network != nullptr)
            ASC_dropNetwork(&network->dcmtk);
        delete network;
        return true;
    });
}

struct shim_dul *shim_dul_receive(struct shim_network *network, int socket, uint32_t pdu_bytes,
                                  struct shim_request *out, struct err *err) {
    T_ASC_Association *association = nullptr;
    const bool done = guarded(err, [&] {
        char name[DUL_LEN_NAME + 1] = "";
        struct err fault = {};
        request_fault = &fault;
        open_door(socket);
        const OFCondition condition = ASC_receiveAssociation(network->dcmtk, &association, long(pdu_bytes), nullptr,
                                                             nullptr, network->secure, DUL_NOBLOCK, network->timeout_s);
        if (close_door())
            close(socket); /* DCMTK did not take it */
        request_fault = nullptr;
        if (fault.kind != ERR_NONE)
            return err_set(err, fault.kind, "%s", fault.text);
        if (condition.bad())
            return network_failed(err, "no association", condition);
        ASC_getApplicationContextName(association->params, name, sizeof name);
        if ((out->said_nothing = name[0] == '\0')) /* DCMTK calls a closed connection a success */
            return err_set(err, ERR_NETWORK, "no association: closed without a request");
        ASC_getAPTitles(association->params, out->calling_aet, sizeof out->calling_aet, out->called_aet,
                        sizeof out->called_aet, nullptr, 0);
        out->is_dicom = strcmp(name, UID_StandardApplicationContext) == 0;
        return true;
    });
    if (!done) {
        shim_dul_free(reinterpret_cast<struct shim_dul *>(association), false);
        return nullptr;
    }
    return reinterpret_cast<struct shim_dul *>(association);
}

bool shim_dul_accept(struct shim_dul *dul, const char *const *sop_class_uids, size_t sop_classes,
                     const char *const *transfer_syntax_uids, size_t transfer_syntaxes, struct err *err) {
    return guarded(err, [&] {
        std::vector<const char *> classes(sop_class_uids, sop_class_uids + sop_classes);
        std::vector<const char *> syntaxes(transfer_syntax_uids, transfer_syntax_uids + transfer_syntaxes);
        const char *verification[] = {UID_VerificationSOPClass};
        const char *plain[] = {UID_LittleEndianExplicitTransferSyntax, UID_LittleEndianImplicitTransferSyntax};
        T_ASC_Parameters *parameters = own(dul)->params;
        OFCondition condition = ASC_acceptContextsWithPreferredTransferSyntaxes(parameters, verification, 1, plain, 2);
        if (condition.good())
            condition = ASC_acceptContextsWithPreferredTransferSyntaxes(parameters, classes.data(), int(sop_classes),
                                                                        syntaxes.data(), int(transfer_syntaxes));
        /* Who reports on a commitment opens an association as SCP: PS3.4 J.3.3, PS3.7 D.3.3.4. Some do not negotiate
         * that. */
        for (int i = 0; condition.good() && i < ASC_countPresentationContexts(parameters); i++) {
            T_ASC_PresentationContext context;
            condition = ASC_getPresentationContext(parameters, i, &context);
            if (condition.good() && strcmp(context.abstractSyntax, UID_StorageCommitmentPushModelSOPClass) == 0)
                condition = ASC_acceptPresentationContext(parameters, context.presentationContextID, plain[1],
                                                          ASC_SC_ROLE_SCP, OFTrue);
        }
        condition = condition.good() ? ASC_acknowledgeAssociation(own(dul)) : condition;
        return condition.good() || network_failed(err, "association cannot be acknowledged", condition);
    });
}

void shim_dul_reject(struct shim_dul *dul, int result, int source, int reason) {
    guarded(nullptr, [&] {
        const T_ASC_RejectParameters why = {T_ASC_RejectParametersResult(result), T_ASC_RejectParametersSource(source),
                                            T_ASC_RejectParametersReason(source << 8 | reason)};
        return ASC_rejectAssociation(own(dul), &why).good();
    });
}

struct shim_dul *shim_dul_connect(struct shim_network *network, const struct shim_call *call,
                                  const struct shim_proposal *proposals, size_t count, struct err *err) {
    T_ASC_Association *association = nullptr;
    T_ASC_Parameters *parameters = nullptr; /* the association's, as soon as there is one */
    const bool done = guarded(err, [&] {
        OFCondition condition = ASC_createAssociationParameters(&parameters, long(call->pdu_bytes));
        if (condition.bad())
            return failed(err, ERR_MEMORY, "association", condition);
        ASC_setAPTitles(parameters, call->calling_aet, call->called_aet, nullptr);
        ASC_setPresentationAddresses(parameters, "localhost", call->address);
        ASC_setTransportLayerType(parameters, network->secure);
        for (size_t i = 0; i < count && condition.good(); i++) {
            const char *syntaxes[] = {proposals[i].transfer_syntax_uid};
            condition = ASC_addPresentationContext(parameters, T_ASC_PresentationContextID(2 * i + 1),
                                                   proposals[i].sop_class_uid, syntaxes, 1);
        }
        if (condition.good())
            condition = ASC_requestAssociation(network->dcmtk, parameters, &association, nullptr, nullptr, DUL_NOBLOCK,
                                               network->timeout_s);
        if (condition == DUL_ASSOCIATIONREJECTED)
            return err_set(err, ERR_DENIED, "%s rejects the association (source %d, reason %d)", call->called_aet,
                           parameters->DULparams.resultSource, parameters->DULparams.diagnostic);
        return condition.good() || failed(err, ERR_NETWORK, "no association", condition);
    });
    if (!done) {
        if (association == nullptr && parameters != nullptr)
            ASC_destroyAssociationParameters(&parameters);
        shim_dul_free(reinterpret_cast<struct shim_dul *>(association), false);
        return nullptr;
    }
    return reinterpret_cast<struct shim_dul *>(association);
}

bool shim_dul_read(struct shim_dul *dul, int timeout_s, struct shim_pdv *out, struct err *err) {
    return guarded(err, [&] {
        DUL_ASSOCIATIONKEY **key = &own(dul)->DULassociation;
        DUL_PDV pdv = {};
        OFCondition condition = DUL_NextPDV(key, &pdv);
        if (condition.bad()) {
            condition = DUL_ReadPDVs(key, nullptr, DUL_NOBLOCK, timeout_s);
            if (condition == DUL_PEERREQUESTEDRELEASE || condition == DUL_PEERABORTEDASSOCIATION) {
                *out = {condition == DUL_PEERREQUESTEDRELEASE ? SHIM_PDV_RELEASE : SHIM_PDV_ABORT, 0, true, nullptr, 0};
                return true;
            }
            if (condition == DUL_PDATAPDUARRIVED || condition.good())
                condition = DUL_NextPDV(key, &pdv);
        }
        if (condition.bad())
            return network_failed(err, "reading", condition);
        *out = {pdv.pdvType == DUL_COMMANDPDV ? SHIM_PDV_COMMAND : SHIM_PDV_DATASET, pdv.presentationContextID,
                bool(pdv.lastPDV), static_cast<const uint8_t *>(pdv.data), size_t(pdv.fragmentLength)};
        return true;
    });
}

bool shim_dul_write(struct shim_dul *dul, uint8_t context_id, enum shim_pdv_kind kind, const struct bytes *data,
                    struct err *err) {
    return guarded(err, [&] {
        DUL_PDV pdv = {data->size, context_id, kind == SHIM_PDV_COMMAND ? DUL_COMMANDPDV : DUL_DATASETPDV, OFTrue,
                       data->data};
        DUL_PDVLIST list = {};
        list.count = 1;
        list.pdv = &pdv;
        const OFCondition condition = DUL_WritePDVs(&own(dul)->DULassociation, &list);
        return condition.good() || failed(err, ERR_NETWORK, "sending", condition);
    });
}

bool shim_dul_context(const struct shim_dul *dul, uint8_t context_id, char sop_class_uid[DICOM_UID_SIZE],
                      char transfer_syntax_uid[DICOM_UID_SIZE]) {
    return guarded(nullptr, [&] {
        T_ASC_PresentationContext context;
        if (ASC_findAcceptedPresentationContext(own(dul)->params, context_id, &context).bad())
            return false;
        snprintf(sop_class_uid, DICOM_UID_SIZE, "%s", context.abstractSyntax);
        snprintf(transfer_syntax_uid, DICOM_UID_SIZE, "%s", context.acceptedTransferSyntax);
        return true;
    });
}

bool shim_dul_release(struct shim_dul *dul, enum shim_side side, struct err *err) {
    return guarded(err, [&] {
        const OFCondition condition =
            side == SHIM_SIDE_SERVER ? ASC_acknowledgeRelease(own(dul)) : ASC_releaseAssociation(own(dul));
        return condition.good() || failed(err, ERR_NETWORK, "release", condition);
    });
}

void shim_dul_free(struct shim_dul *dul, bool abort) {
    guarded(nullptr, [&] {
        T_ASC_Association *association = own(dul);
        if (abort)
            ASC_abortAssociation(association);
        ASC_dropAssociation(association);
        return ASC_destroyAssociation(&association).good();
    });
}
