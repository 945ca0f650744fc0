/* What the C++ files share; nothing for C. */
#ifndef PULMO_DICOM_DCMTK_INSIDE_H
#define PULMO_DICOM_DCMTK_INSIDE_H

#include "pulmo.h"

#ifdef __cplusplus
#include <cerrno>
#include <new>

class OFCondition;

namespace inside {

/* Tells whether this thread got no memory since it was made. DCMTK does not: it names what came of it ("Invalid
 * stream"), or carries on with half a value. What operator new refused is counted by its handler; malloc leaves ENOMEM,
 * which says nothing once all went well. */
class MemoryWatch {
  public:
    MemoryWatch() noexcept : before(refusals) {
        errno = 0;
    }
    bool is_short(bool done) const noexcept {
        return refusals != before || (!done && errno == ENOMEM);
    }
    static void on_refusal(); /* the new-handler */

  private:
    static thread_local unsigned refusals;
    const unsigned before;
};

/* Lack of memory is ERR_MEMORY whatever the body made of it, also where it saw nothing of it: then it has failed. */
template <class Body> bool guarded(struct err *err, Body body) noexcept {
    const MemoryWatch memory;
    bool done = false;
    try {
        done = body();
    } catch (const std::bad_alloc &) {
        return err_set(err, ERR_MEMORY, "out of memory in the DICOM toolkit");
    } catch (...) {
        err_set(err, ERR_INTERNAL, "unexpected exception in the DICOM toolkit");
    }
    return memory.is_short(done) ? err_set(err, ERR_MEMORY, "out of memory in the DICOM toolkit") : done;
}

/* Conditions are fixed sentences of DCMTK: no patient data. Lack of memory becomes ERR_MEMORY, whatever kind says. */
bool failed(struct err *err, enum err_kind kind, const char *what, const OFCondition &condition);
/* Once: codecs, and no log of DCMTK. */
bool set_up(struct err *err);

} // namespace inside
#endif
#endif
