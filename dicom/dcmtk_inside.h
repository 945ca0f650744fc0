/* What the C++ files share; nothing for C. */
#ifndef PULMO_DICOM_DCMTK_INSIDE_H
#define PULMO_DICOM_DCMTK_INSIDE_H

#include "pulmo.h"

#ifdef __cplusplus
#include <new>

class OFCondition;

namespace inside {

template <class Body> bool guarded(struct err *err, Body body) noexcept {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return err_set(err, ERR_MEMORY, "out of memory in the DICOM toolkit");
    } catch (...) {
        return err_set(err, ERR_INTERNAL, "unexpected exception in the DICOM toolkit");
    }
}

/* Conditions are fixed sentences of DCMTK: no patient data. Lack of memory becomes ERR_MEMORY, whatever kind says. */
bool failed(struct err *err, enum err_kind kind, const char *what, const OFCondition &condition);
/* Once: codecs, and no log of DCMTK. */
bool set_up(struct err *err);

} // namespace inside
#endif
#endif
