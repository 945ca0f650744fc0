/* A bar on the terminal for long work; nothing in a pipe. */
#ifndef PULMO_APP_PROGRESS_H
#define PULMO_APP_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct progress_bar {
    int64_t drawn_ms; /* monotonic; 0 = never */
};
/* Draws at most ten times a second, and when done. */
void progress_draw(struct progress_bar *bar, int64_t done, int64_t total);
/* Ends the line, when one was drawn, so that what follows begins on its own. */
void progress_end(struct progress_bar *bar);

/* A line that counts the seconds of work whose share nobody knows; gone when it ends; nothing in a pipe. */
struct progress_clock {
    const char *what; /* a literal */
    bool running, ended;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t end;
};
void progress_clock_start(struct progress_clock *clock, const char *what);
void progress_clock_stop(struct progress_clock *clock);

#endif
