/* A condition whose timed waits go by the monotonic clock, so that a clock that is set moves none of them. */
#ifndef PULMO_STORE_WAKE_H
#define PULMO_STORE_WAKE_H

#include <pthread.h>
#include <time.h>

#include "pulmo.h"

static inline void wake_init(pthread_cond_t *wake) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* The lock is held. Returns when signalled, after wait_ms, or without a reason. */
static inline void wake_wait(pthread_cond_t *wake, pthread_mutex_t *lock, int64_t wait_ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (until.tv_nsec / 1000000 + wait_ms) / 1000;
    until.tv_nsec = (until.tv_nsec / 1000000 + wait_ms) % 1000 * 1000000;
    (void)pthread_cond_timedwait(wake, lock, &until);
}

#endif
