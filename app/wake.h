/* The one wake-up between processes: a commit of the store, seen by inotify on its folder.
 *
 * A waiter also wakes after a while by itself, because some work becomes due by time alone (quiet studies, back-off).
 */
#ifndef PULMO_APP_WAKE_H
#define PULMO_APP_WAKE_H

#include "pulmo.h"

#include <signal.h>

struct wake {
    int descriptor;
};
bool wake_open(const char *folder, struct wake *out, struct err *err) PULMO_MUST_USE;
/* Returns after a commit, a signal, or timeout_ms. Commits that follow each other within 50 ms wake once. */
void wake_wait(struct wake *wake, int timeout_ms);
void wake_close(struct wake *wake);

/* Set by SIGTERM or SIGINT, after stop_on_signals(): loops end when they see it. */
extern volatile sig_atomic_t stop_requested;
void stop_on_signals(void);

#endif
