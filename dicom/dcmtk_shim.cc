/* The only C++ of the product: what DCMTK does for it, behind dcmtk_shim.h. Nothing here decides anything that C could
 * decide above it. Every entry is wrapped by guarded(): no exception and no type of DCMTK leaves. */
#include "dicom/dcmtk_shim.h"

#include "dicom/part10.h"
#include "dicom/structure.h"

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dcistrmb.h>
#include <dcmtk/dcmdata/dcostrmb.h>
#include <dcmtk/dcmdata/dcpixseq.h>
#include <dcmtk/dcmdata/dcpxitem.h>
#include <dcmtk/dcmdata/dcrledrg.h>
#include <dcmtk/dcmdata/dcrleerg.h>
#include <dcmtk/dcmdata/dcspchrs.h>
#include <dcmtk/dcmdata/dctk.h>
#include <dcmtk/dcmjpeg/djdecode.h>
#include <dcmtk/dcmjpeg/djencode.h>
#include <dcmtk/dcmjpeg/djrplol.h>
#include <dcmtk/dcmjpls/djdecode.h>
#include <dcmtk/dcmjpls/djencode.h>
#include <dcmtk/dcmjpls/djrparam.h>
#include <dcmtk/dcmnet/assoc.h>
#include <dcmtk/dcmnet/dimse.h>
#include <dcmtk/dcmtls/tlslayer.h>
#include <dcmtk/oflog/oflog.h>

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

namespace {

constexpr size_t INFLATED_BYTES_MAX = size_t(1) << 30; /* a deflate bomb ends here */
constexpr size_t TEXT_BYTES_MAX = 64 * 1024;           /* of an attribute shown as text */

template <class Body> bool guarded(struct err *err, Body body) noexcept {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return err_set(err, ERR_MEMORY, "out of memory in the DICOM toolkit");
    } catch (...) {
        return err_set(err, ERR_INTERNAL, "unexpected exception in the DICOM toolkit");
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
    DcmRLEDecoderRegistration::registerCodecs();
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
        if (holder != nullptr && holder->findAndGetOFStringArray(DCM_SpecificCharacterSet, value).good()) {
            return value.c_str();
        }
    }
    return "";
}

bool is_utf8_already(const std::string &character_set) {
    return character_set.empty() || character_set == "ISO_IR 6" || character_set == "ISO_IR 192";
}

bool is_ascii(const OFString &text) {
    for (const char c : text) {
        if (static_cast<unsigned char>(c) >= 0x80 || c == 0x1B) {
            return false;
        }
    }
    return true;
}

/* What cannot be converted is shown as question marks: a report must not carry invalid UTF-8. */
OFString to_utf8(const struct shim_dataset *dataset, DcmElement *element, const OFString &text) {
    OFString out;
    if (is_ascii(text)) {
        return text;
    }
    const std::string source = character_set_of(dataset->item);
    DcmSpecificCharacterSet converter;
    const char *delimiters = element->ident() == EVR_PN ? "\\^=" : "\\";
    if (converter.selectCharacterSet(source.c_str()).good() && converter.convertString(text, out, delimiters).good()) {
        return out;
    }
    for (const char c : text) {
        out += static_cast<unsigned char>(c) >= 0x80 || c == 0x1B ? '?' : c;
    }
    return out;
}

bool inflate(const uint8_t *data, size_t size, std::vector<uint8_t> &out, struct err *err) {
    DcmInputBufferStream stream;
    stream.setBuffer(data, offile_off_t(size));
    stream.setEos();
    stream.installCompressionFilter(ESC_zlib);
    std::vector<uint8_t> block(64 * 1024);
    while (stream.good() && !stream.eos()) {
        const auto got = size_t(stream.read(block.data(), offile_off_t(block.size())));
        if (got == 0 || out.size() + got > INFLATED_BYTES_MAX) {
            break;
        }
        out.insert(out.end(), block.begin(), block.begin() + long(got));
    }
    if (out.size() + block.size() > INFLATED_BYTES_MAX) {
        return err_set(err, ERR_LIMIT, "deflated data set inflates to more than %zu bytes", INFLATED_BYTES_MAX);
    }
    return (stream.good() && stream.eos()) || err_set(err, ERR_INPUT, "deflated data set is damaged");
}

/* DCMTK knows no HTJ2K (1.2.840.10008.1.2.4.201 to 203): any encapsulated syntax has the same layout. */
E_TransferSyntax layout_of(const struct part10_encoding &encoding, const char *uid) {
    const E_TransferSyntax known = DcmXfer(uid).getXfer();
    if (encoding.deflated) {
        return EXS_LittleEndianExplicit;
    }
    return known == EXS_Unknown ? EXS_JPEG2000LosslessOnly : known;
}

struct shim_dataset *parse(const void *part10, size_t size, const DcmTagKey &stop, struct err *err) {
    struct part10 meta;
    if (!set_up(err) || !part10_split(part10, size, &meta, err)) {
        return nullptr;
    }
    const auto encoding = part10_encoding_of(meta.transfer_syntax_uid);
    const uint8_t *data = static_cast<const uint8_t *>(part10) + meta.dataset_offset;
    size_t left = size - meta.dataset_offset;
    std::vector<uint8_t> inflated;
    if (encoding.deflated) {
        if (!inflate(data, left, inflated, err)) {
            return nullptr;
        }
        data = inflated.data();
        left = inflated.size();
    }
    const auto check = stop == DCM_UndefinedTagKey ? structure_check : structure_check_header;
    if (!check(data, left, encoding, err)) {
        return nullptr;
    }
    DcmInputBufferStream stream;
    stream.setBuffer(data, offile_off_t(left));
    stream.setEos();
    auto dataset = std::make_unique<DcmDataset>();
    dataset->transferInit();
    const OFCondition condition = dataset->readUntilTag(stream, layout_of(encoding, meta.transfer_syntax_uid),
                                                        EGL_noChange, DCM_MaxReadLength, stop);
    dataset->transferEnd();
    if (condition.bad()) {
        failed(err, ERR_INPUT, "data set cannot be parsed", condition);
        return nullptr;
    }
    return root_of(std::move(dataset), meta.transfer_syntax_uid);
}

} // namespace

struct shim_dataset *shim_dataset_new(struct err *err) {
    struct shim_dataset *out = nullptr;
    guarded(err, [&] {
        if (!set_up(err)) {
            return false;
        }
        out = root_of(std::make_unique<DcmDataset>(), UID_LittleEndianExplicitTransferSyntax);
        return out->item->putAndInsertString(DCM_SpecificCharacterSet, "ISO_IR 192").good();
    });
    return out;
}

void shim_dataset_free(struct shim_dataset *dataset) {
    guarded(nullptr, [&] {
        delete dataset;
        return true;
    });
}

void shim_dataset_free_at(struct shim_dataset **dataset) {
    shim_dataset_free(*dataset);
}

struct shim_dataset *shim_dataset_parse(const void *part10, size_t size, struct err *err) {
    struct shim_dataset *out = nullptr;
    guarded(err, [&] { return (out = parse(part10, size, DCM_UndefinedTagKey, err)) != nullptr; });
    return out;
}

struct shim_dataset *shim_dataset_parse_header(const void *part10, size_t size, struct err *err) {
    struct shim_dataset *out = nullptr;
    guarded(err, [&] { return (out = parse(part10, size, DCM_PixelData, err)) != nullptr; });
    return out;
}

static bool write_body(DcmDataset *dataset, E_TransferSyntax syntax, struct bytes *out, struct err *err) {
    std::vector<uint8_t> block(64 * 1024);
    DcmOutputBufferStream stream(block.data(), offile_off_t(block.size()));
    OFCondition condition = EC_StreamNotifyClient;
    dataset->transferInit();
    while (condition == EC_StreamNotifyClient) {
        condition = dataset->write(stream, syntax, EET_ExplicitLength, nullptr, EGL_withoutGL, EPD_withoutPadding);
        void *filled = nullptr;
        offile_off_t count = 0;
        stream.flushBuffer(filled, count);
        if (!bytes_append(out, filled, size_t(count), PULMO_ALLOC_MAX, err)) {
            return false;
        }
    }
    dataset->transferEnd();
    return condition.good() || failed(err, ERR_INPUT, "data set cannot be written", condition);
}

bool shim_dataset_write(const struct shim_dataset *dataset, const char *transfer_syntax_uid, struct bytes *out,
                        struct err *err) {
    struct bytes written = {nullptr, 0};
    const bool done = guarded(err, [&] {
        struct part10 meta = {};
        const char *uid = transfer_syntax_uid != nullptr ? transfer_syntax_uid : UID_LittleEndianExplicitTransferSyntax;
        const E_TransferSyntax syntax = DcmXfer(uid).getXfer();
        snprintf(meta.transfer_syntax_uid, sizeof meta.transfer_syntax_uid, "%s", uid);
        shim_get_string(dataset, 0x00080016, meta.sop_class_uid, sizeof meta.sop_class_uid);
        shim_get_string(dataset, 0x00080018, meta.sop_instance_uid, sizeof meta.sop_instance_uid);
        if (!dataset->root || syntax == EXS_Unknown) {
            return err_set(err, ERR_UNSUPPORTED, "cannot write transfer syntax %s", uid);
        }
        const OFCondition condition = dataset->root->chooseRepresentation(syntax, nullptr);
        if (condition.bad()) {
            return failed(err, ERR_UNSUPPORTED, "pixel data cannot be written in this transfer syntax", condition);
        }
        return part10_write_meta(&meta, "", &written, err) && write_body(dataset->root.get(), syntax, &written, err);
    });
    if (!done) {
        bytes_free(&written);
        return false;
    }
    *out = written;
    return true;
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
        if (t.getEVR() != EVR_AT) {
            return dataset->item->putAndInsertUint32Array(t, values, count);
        }
        std::vector<Uint16> pairs;
        for (size_t i = 0; i < count; i++) {
            pairs.push_back(Uint16(values[i] >> 16));
            pairs.push_back(Uint16(values[i] & 0xFFFF));
        }
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
        if (item == nullptr) {
            return dataset->item->insertEmptyElement(t);
        }
        DcmItem *added = nullptr;
        const OFCondition condition = dataset->item->findOrCreateSequenceItem(t, added, -2 /* append */);
        if (condition.good()) {
            *item = handle_of(dataset, added);
        }
        return condition;
    });
}

/* The copy is in UTF-8, as is all that this product writes; the character set itself is therefore not copied. */
bool shim_copy(struct shim_dataset *to, const struct shim_dataset *from, uint32_t tag, struct err *err) {
    return put(tag, err, [&](const DcmTag &t) -> OFCondition {
        const DcmElement *element = find(from, tag);
        if (element == nullptr || t == DCM_SpecificCharacterSet) {
            return EC_Normal;
        }
        std::unique_ptr<DcmElement> copy(OFstatic_cast(DcmElement *, element->clone()));
        const std::string source = character_set_of(from->item);
        if (!is_utf8_already(source)) {
            DcmSpecificCharacterSet converter;
            OFCondition condition = converter.selectCharacterSet(source.c_str());
            condition = condition.good() ? copy->convertCharacterSet(converter) : condition;
            if (condition.bad()) {
                return condition;
            }
        }
        const OFCondition condition = to->item->insert(copy.get(), OFTrue);
        if (condition.good()) {
            copy.release();
        }
        return condition;
    });
}

bool shim_remove(struct shim_dataset *dataset, uint32_t tag) {
    return guarded(nullptr, [&] { return dataset->item->findAndDeleteElement(key_of(tag)).good(); });
}

bool shim_has(const struct shim_dataset *dataset, uint32_t tag) {
    return guarded(nullptr, [&] { return find(dataset, tag) != nullptr; });
}

bool shim_vr(const struct shim_dataset *dataset, uint32_t tag, char vr[3]) {
    return guarded(nullptr, [&] {
        DcmElement *element = find(dataset, tag);
        if (element == nullptr) {
            return false;
        }
        snprintf(vr, 3, "%s", DcmVR(element->getVR()).getValidVRName());
        return true;
    });
}

static bool is_text(const DcmElement *element) {
    switch (element->getVR()) {
    case EVR_SQ:
    case EVR_OB:
    case EVR_OW:
    case EVR_OF:
    case EVR_OD:
    case EVR_OL:
    case EVR_OV:
    case EVR_UN:
    case EVR_ox:
    case EVR_px:
    case EVR_PixelData:
    case EVR_pixelSQ:
    case EVR_UNKNOWN: return false;
    default: return true;
    }
}

bool shim_get_string(const struct shim_dataset *dataset, uint32_t tag, char *out, size_t out_size) {
    out[0] = '\0';
    return guarded(nullptr, [&] {
        DcmElement *element = find(dataset, tag);
        OFString raw;
        if (element == nullptr || !is_text(element) || element->getLength() > TEXT_BYTES_MAX ||
            element->getOFStringArray(raw).bad()) {
            return false;
        }
        const OFString text = to_utf8(dataset, element, raw);
        const size_t first = text.find_first_not_of(' '), last = text.find_last_not_of(' ');
        if (first == OFString_npos) {
            return false;
        }
        size_t size = last - first + 1 < out_size ? last - first + 1 : out_size - 1;
        while (size > 0 && size < last - first + 1 && (text[first + size] & 0xC0) == 0x80) {
            size--; /* never half a character */
        }
        memcpy(out, text.data() + first, size);
        out[size] = '\0';
        return size > 0;
    });
}

bool shim_get_value(const struct shim_dataset *dataset, uint32_t tag, size_t index, char *out, size_t out_size) {
    return guarded(nullptr, [&] {
        DcmElement *element = find(dataset, tag);
        OFString value;
        if (element == nullptr || !is_text(element) || element->getLength() > TEXT_BYTES_MAX ||
            element->getOFString(value, index).bad() || value.empty() || value.size() >= out_size) {
            return false;
        }
        memcpy(out, value.c_str(), value.size() + 1);
        return true;
    });
}

size_t shim_value_count(const struct shim_dataset *dataset, uint32_t tag) {
    size_t count = 0;
    guarded(nullptr, [&] {
        DcmElement *element = find(dataset, tag);
        count = element != nullptr ? size_t(element->getVM()) : 0;
        return true;
    });
    return count;
}

bool shim_get_bytes(const struct shim_dataset *dataset, uint32_t tag, const uint8_t **data, size_t *size) {
    return guarded(nullptr, [&] {
        DcmElement *element = find(dataset, tag);
        Uint8 *bytes = nullptr;
        Uint16 *words = nullptr;
        if (element == nullptr || element->getLength() == 0) {
            return false;
        }
        if (element->getUint8Array(bytes).bad() && element->getUint16Array(words).good()) {
            bytes = reinterpret_cast<Uint8 *>(words);
        }
        if (bytes == nullptr) {
            return false;
        }
        *data = bytes;
        *size = element->getLength();
        return true;
    });
}

static DcmSequenceOfItems *sequence_of(const struct shim_dataset *dataset, uint32_t tag) {
    DcmElement *element = find(dataset, tag);
    return element != nullptr && element->ident() == EVR_SQ ? OFstatic_cast(DcmSequenceOfItems *, element) : nullptr;
}

size_t shim_item_count(const struct shim_dataset *dataset, uint32_t sequence_tag) {
    size_t count = 0;
    guarded(nullptr, [&] {
        DcmSequenceOfItems *sequence = sequence_of(dataset, sequence_tag);
        count = sequence != nullptr ? size_t(sequence->card()) : 0;
        return true;
    });
    return count;
}

struct shim_dataset *shim_item(const struct shim_dataset *dataset, uint32_t sequence_tag, size_t index) {
    struct shim_dataset *out = nullptr;
    guarded(nullptr, [&] {
        DcmSequenceOfItems *sequence = sequence_of(dataset, sequence_tag);
        DcmItem *item = sequence != nullptr && index < sequence->card() ? sequence->getItem(index) : nullptr;
        out = item != nullptr ? handle_of(dataset, item) : nullptr;
        return true;
    });
    return out;
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
    if (pixels != nullptr) {
        pixels->getOriginalRepresentationKey(key, parameter);
    }
    return pixels != nullptr && pixels->getEncapsulatedRepresentation(key, parameter, sequence).good() ? sequence
                                                                                                       : nullptr;
}

size_t shim_fragment_count(const struct shim_dataset *dataset) {
    size_t count = 0;
    guarded(nullptr, [&] {
        DcmPixelSequence *sequence = fragments_of(dataset);
        count = sequence != nullptr ? size_t(sequence->card()) : 0;
        return true;
    });
    return count;
}

bool shim_fragment(const struct shim_dataset *dataset, size_t index, const uint8_t **data, size_t *size) {
    return guarded(nullptr, [&] {
        DcmPixelSequence *sequence = fragments_of(dataset);
        DcmPixelItem *item = nullptr;
        Uint8 *bytes = nullptr;
        if (sequence == nullptr || sequence->getItem(item, index).bad() || item->getUint8Array(bytes).bad() ||
            bytes == nullptr) {
            return false;
        }
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
        if (!dataset->root || syntax == EXS_Unknown) {
            return err_set(err, ERR_UNSUPPORTED, "cannot encode to transfer syntax %s", transfer_syntax_uid);
        }
        const OFCondition condition = dataset->root->chooseRepresentation(syntax, nullptr);
        if (condition.bad()) {
            return failed(err, ERR_UNSUPPORTED, "Pixel Data cannot be encoded", condition);
        }
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
        for (size_t i = 0; i < count && condition.good(); i++) {
            condition = sequence->storeCompressedFrame(offsets, frames[i].data, Uint32(frames[i].size), 0);
        }
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
