/* Stands between a new connection and the toolkit until the A-ASSOCIATE-RQ is there and well-formed. Private to dicom/.
 *
 * DCMTK 3.6.7 leaks a little for each malformed request, so that a peer could eat the memory of a server that runs for
 * years; it also would read a request of a megabyte. Here the request is collected and checked in plain C first. */
#ifndef PULMO_DICOM_GUARD_H
#define PULMO_DICOM_GUARD_H

#include "pulmo.h"

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* PS3.8 9.3.2 and annex D.3: lengths that fit into each other, contexts with one abstract and at least one transfer
 * syntax, odd identifiers. pdu: with its head of 6 bytes. */
bool guard_check_request(const uint8_t *pdu, size_t size, struct err *err) PULMO_MUST_USE;

enum guard_state { GUARD_COLLECTING = 0, GUARD_SERVING, GUARD_PASSING, GUARD_BROKEN };
struct guard { /* zero-initialised; one thread */
    enum guard_state state;
    uint8_t *pdu; /* owned */
    size_t size, served;
    struct err *err; /* borrowed while collecting; set when the request is none. Untouched: the peer said nothing */
};
/* Reads from the connection as read(2) does: first the checked request, then whatever comes. 0 = the request was
 * malformed, or the connection ended. */
typedef ssize_t guard_source(void *context, void *buffer, size_t size);
ssize_t guard_read(struct guard *guard, void *buffer, size_t size, guard_source *source, void *context);
bool guard_has_bytes(const struct guard *guard); /* more without asking the connection */
void guard_free(struct guard *guard);

#ifdef __cplusplus
}
#endif
#endif
