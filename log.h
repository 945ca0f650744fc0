/* One line an event on standard error: time level folder event key=value... Only loops log. Never patient data: no
 * names, no patient identifiers. UIDs are allowed. */
#ifndef PULMO_LOG_H
#define PULMO_LOG_H

#include "pulmo.h"

enum log_level { LOG_INFO = 0, LOG_WARNING, LOG_ERROR };

/* log_event(LOG_INFO, "scp", "started", "port=%u", port). One write a line; any thread. */
void log_event(enum log_level level, const char *folder, const char *event, const char *format, ...) PULMO_PRINTF(4, 5);
/* The same for a failed step. */
void log_err(enum log_level level, const char *folder, const char *event, const struct err *err);

#endif
