/* The C++ of the product: what DCMTK does for it with data sets, behind dcmtk_shim.h; dcmtk_network.cc has the network.
 * Nothing here decides anything that C could decide above it. Every entry is wrapped by guarded(), value_or() or
 * asked(): no exception and no type of DCMTK leaves. */
#include "dicom/dcmtk_shim.h"
#include "dicom/dcmtk_inside.h"

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
#include <dcmtk/dcmnet/dul.h>
#include <dcmtk/oflog/oflog.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

using namespace inside;

namespace {

constexpr size_t TEXT_BYTES_MAX = 64 * 1024; /* of an attribute shown as text */

const std::new_handler former_handler = std::set_new_handler(MemoryWatch::on_refusal); /* before main */

/* As guarded, for what is asked of a handle: the fallback stands for every fault. */
template <class Value, class Body> Value value_or(Value fallback, Body body) noexcept {
    try {
        return body();
    } catch (...) {
        return fallback;
    }
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

DcmTagKey key_of(uint32_t tag) {
    return DcmTagKey(Uint16(tag >> 16), Uint16(tag & 0xFFFF));
}

} // namespace

thread_local unsigned MemoryWatch::refusals = 0;

void MemoryWatch::on_refusal() {
    refusals++;
    if (former_handler == nullptr)
        throw std::bad_alloc(); /* as without a handler */
    former_handler();
}

bool inside::failed(struct err *err, enum err_kind kind, const char *what, const OFCondition &condition) {
    return err_set(err, condition == EC_MemoryExhausted ? ERR_MEMORY : kind, "%s: %s", what, condition.text());
}

bool inside::set_up(struct err *err) {
    static std::once_flag once;
    std::call_once(once, set_up_once);
    return dcmDataDict.isDictionaryLoaded() ||
           err_set(err, ERR_CONFIG, "DCMTK's data dictionary is absent (package libdcmtk17, or DCMDICTPATH)");
}

/* ---- data sets --------------------------------------------------------------------------------------- */

struct shim_dataset {
    std::unique_ptr<DcmDataset> root; /* of roots only */
    DcmItem *item = nullptr;
    std::string transfer_syntax;
    std::map<DcmItem *, std::unique_ptr<shim_dataset>> items; /* handles given out, owned by their parent's handle */
    struct shim_dataset *whole = nullptr;                     /* of an item: the root's handle */
    bool is_starved = false; /* of a root: something asked could not be told for lack of memory */
};

namespace {

void starve(const struct shim_dataset *dataset) noexcept {
    if (dataset == nullptr)
        return;
    struct shim_dataset *handle = const_cast<struct shim_dataset *>(dataset);
    (handle->whole != nullptr ? handle->whole : handle)->is_starved = true;
}

/* As value_or, and lack of memory is remembered: what could not be read must not pass for what is absent. */
template <class Value, class Body> Value asked(const struct shim_dataset *dataset, Value fallback, Body body) noexcept {
    const MemoryWatch memory;
    Value value = fallback;
    bool is_short = false;
    try {
        value = body();
    } catch (const std::bad_alloc &) {
        is_short = true;
    } catch (...) {
    }
    if (!is_short && !memory.is_short(value != fallback))
        return value;
    starve(dataset);
    return fallback;
}

/* The same for faults that DCMTK returns. */
bool good(const OFCondition &condition) {
    if (condition == EC_MemoryExhausted)
        throw std::bad_alloc();
    return condition.good();
}

/* DCMTK reads through non-const members; a handle belongs to one thread at a time. An item that could not be had for
 * lack of memory is NULL to its caller, and has no attributes. */
DcmElement *find(const struct shim_dataset *dataset, uint32_t tag) {
    DcmElement *element = nullptr;
    const bool found = dataset != nullptr && good(dataset->item->findAndGetElement(key_of(tag), element));
    return found ? element : nullptr;
}

struct shim_dataset *handle_of(const struct shim_dataset *parent, DcmItem *item) {
    auto &slot = const_cast<struct shim_dataset *>(parent)->items[item];
    if (!slot) {
        slot = std::make_unique<shim_dataset>();
        slot->item = item;
        slot->whole = parent->whole != nullptr ? parent->whole : const_cast<struct shim_dataset *>(parent);
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

struct shim_dataset *whole_or_none(bool done, struct shim_dataset *made) {
    if (!done)
        shim_dataset_free(made);
    return done ? made : nullptr;
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
    errno = 0; /* iconv_open's: DCMTK returns a condition of its own then */
    if (good(converter.selectCharacterSet(source.c_str())) &&
        good(converter.convertString(text, out, element->ident() == EVR_PN ? "\\^=" : "\\")))
        return out;
    if (errno == ENOMEM)
        throw std::bad_alloc();
    for (const char c : text)
        out += is_foreign(c) ? '?' : c;
    return out;
}

} // namespace

bool shim_ready(struct err *err) {
    return guarded(err, [&] { return set_up(err); });
}

struct shim_dataset *shim_dataset_new(struct err *err) {
    struct shim_dataset *out = nullptr;
    const bool done = guarded(err, [&] {
        if (!set_up(err))
            return false;
        out = root_of(std::make_unique<DcmDataset>(), UID_LittleEndianExplicitTransferSyntax);
        const OFCondition condition = out->item->putAndInsertString(DCM_SpecificCharacterSet, "ISO_IR 192");
        return condition.good() || failed(err, ERR_INTERNAL, "a data set cannot be made", condition);
    });
    return whole_or_none(done, out);
}

void shim_dataset_free(struct shim_dataset *dataset) {
    value_or(0, [&] { return delete dataset, 0; });
}

bool shim_concluded(const struct shim_dataset *dataset, bool done, struct err *err) {
    if (!(dataset->whole != nullptr ? dataset->whole : dataset)->is_starved)
        return done;
    return err_set(err, ERR_MEMORY, "out of memory while a data set was read");
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
    const bool done = guarded(err, [&] {
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
    return whole_or_none(done, out);
}

bool shim_dataset_write_body(const struct shim_dataset *dataset, const char *transfer_syntax_uid, struct bytes *out,
                             struct err *err) {
    return guarded(err, [&] {
        const E_TransferSyntax syntax = DcmXfer(transfer_syntax_uid).getXfer();
        if (!dataset->root || syntax == EXS_Unknown)
            return err_set(err, ERR_UNSUPPORTED, "cannot write transfer syntax %s", transfer_syntax_uid);
        if (!shim_concluded(dataset, true, err))
            return false;
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

/* Runs one putAndInsert...() and names the attribute when it refuses. Without an item there was no memory to have it.
 */
template <class Put> static bool put(const struct shim_dataset *to, uint32_t tag, struct err *err, Put body) {
    return guarded(err, [&] {
        if (to == nullptr)
            throw std::bad_alloc();
        const OFCondition condition = body(DcmTag(key_of(tag)));
        return good(condition) || err_set(err, ERR_INTERNAL, "attribute (%04X,%04X) cannot be set: %s", tag >> 16,
                                          tag & 0xFFFF, condition.text());
    });
}

bool shim_put_string(struct shim_dataset *dataset, uint32_t tag, const char *value, struct err *err) {
    return put(dataset, tag, err, [&](const DcmTag &t) { return dataset->item->putAndInsertString(t, value); });
}

bool shim_put_u16(struct shim_dataset *dataset, uint32_t tag, const uint16_t *values, size_t count, struct err *err) {
    return put(dataset, tag, err,
               [&](const DcmTag &t) { return dataset->item->putAndInsertUint16Array(t, values, count); });
}

bool shim_put_u32(struct shim_dataset *dataset, uint32_t tag, const uint32_t *values, size_t count, struct err *err) {
    return put(dataset, tag, err, [&](const DcmTag &t) {
        if (t.getEVR() != EVR_AT)
            return dataset->item->putAndInsertUint32Array(t, values, count);
        std::vector<Uint16> pairs;
        for (size_t i = 0; i < 2 * count; i++)
            pairs.push_back(Uint16(values[i / 2] >> (i % 2 == 0 ? 16 : 0)));
        return dataset->item->putAndInsertUint16Array(t, pairs.data(), count);
    });
}

bool shim_put_f32(struct shim_dataset *dataset, uint32_t tag, const float *values, size_t count, struct err *err) {
    return put(dataset, tag, err,
               [&](const DcmTag &t) { return dataset->item->putAndInsertFloat32Array(t, values, count); });
}

bool shim_put_f64(struct shim_dataset *dataset, uint32_t tag, const double *values, size_t count, struct err *err) {
    return put(dataset, tag, err,
               [&](const DcmTag &t) { return dataset->item->putAndInsertFloat64Array(t, values, count); });
}

/* Pixel Data of more than 8 bits is OW, PS3.5 A.1 and A.2. */
bool shim_put_bytes(struct shim_dataset *dataset, uint32_t tag, const void *data, size_t size, struct err *err) {
    return put(dataset, tag, err, [&](const DcmTag &t) {
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
    return put(dataset, sequence_tag, err, [&](const DcmTag &t) {
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
    return put(to, tag, err, [&](const DcmTag &t) -> OFCondition {
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
    return asked(dataset, false, [&] {
        DcmElement *element = find(dataset, tag);
        return element != nullptr && snprintf(vr, 3, "%s", DcmVR(element->getVR()).getValidVRName()) == 2;
    });
}

static bool is_text(DcmElement *element) {
    const char *vr = DcmVR(element->getVR()).getValidVRName();
    return strstr("OB OD OF OL OV OW SQ UN", vr) == nullptr && element->getLength() <= TEXT_BYTES_MAX;
}

bool shim_get_text(const struct shim_dataset *dataset, uint32_t tag, long index, char *out, size_t out_size) {
    return asked(dataset, false, [&] {
        DcmElement *element = find(dataset, tag);
        OFString raw;
        if (element == nullptr || !is_text(element))
            return false;
        if (!good(index < 0 ? element->getOFStringArray(raw) : element->getOFString(raw, unsigned(index))))
            return false;
        const OFString text = to_utf8(dataset, element, raw);
        snprintf(out, out_size, "%s", text.c_str());
        return !text.empty();
    });
}

size_t shim_value_count(const struct shim_dataset *dataset, uint32_t tag) {
    return asked<size_t>(dataset, 0, [&] { return find(dataset, tag) ? size_t(find(dataset, tag)->getVM()) : 0; });
}

bool shim_get_bytes(const struct shim_dataset *dataset, uint32_t tag, const uint8_t **data, size_t *size) {
    return asked(dataset, false, [&] {
        DcmElement *element = find(dataset, tag);
        Uint8 *bytes = nullptr;
        Uint16 *words = nullptr;
        if (element == nullptr || element->getLength() == 0)
            return false;
        if (!good(element->getUint8Array(bytes)) && good(element->getUint16Array(words)))
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
    return asked<size_t>(dataset, 0,
                         [&] { return sequence_of(dataset, tag) ? size_t(sequence_of(dataset, tag)->card()) : 0; });
}

struct shim_dataset *shim_item(const struct shim_dataset *dataset, uint32_t sequence_tag, size_t index) {
    return asked<struct shim_dataset *>(
        dataset, nullptr, [&]() -> struct shim_dataset * {
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
    return asked<size_t>(dataset, 0, [&] { return fragments_of(dataset) ? size_t(fragments_of(dataset)->card()) : 0; });
}

bool shim_fragment(const struct shim_dataset *dataset, size_t index, const uint8_t **data, size_t *size) {
    return asked(dataset, false, [&] {
        DcmPixelSequence *sequence = fragments_of(dataset);
        DcmPixelItem *item = nullptr;
        Uint8 *bytes = nullptr;
        if (sequence == nullptr || !good(sequence->getItem(item, index)) || !good(item->getUint8Array(bytes)) ||
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
    return put(dataset, 0x7FE00010, err, [&](const DcmTag &t) -> OFCondition {
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
