/* Failed logins by address: a password check costs a tenth of a second and 64 MiB on the server's one thread, and the
 * store's lock-out counts by name, of which a guesser has many. */
#ifndef PULMO_WEB_THROTTLE_H
#define PULMO_WEB_THROTTLE_H

#include "pulmo.h"

#define THROTTLE_FAILURES_MAX 20
#define THROTTLE_WINDOW_MS (60 * 1000)

struct throttle;
struct throttle *throttle_new(struct err *err);
void throttle_free(struct throttle *throttle);

/* ERR_BUSY after THROTTLE_FAILURES_MAX failures of this address within THROTTLE_WINDOW_MS. now_ms: monotonic. */
bool throttle_check(const struct throttle *throttle, const char *address, int64_t now_ms,
                    struct err *err) PULMO_MUST_USE;
void throttle_failed(struct throttle *throttle, const char *address, int64_t now_ms);

#endif
