/* The end of a process: SIGTERM or SIGINT sets a flag that every loop sees. */
#ifndef PULMO_APP_STOP_H
#define PULMO_APP_STOP_H

#include <signal.h>

extern volatile sig_atomic_t stop_requested;
/* From now on both signals set the flag, and SIGPIPE is ignored. */
void stop_on_signals(void);

#endif
