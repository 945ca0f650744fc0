/* A flood of like events as the first of them, and then a number a minute.
 *
 * Whoever keeps a record of what a peer does must not let the peer decide how long it gets. Of each peer and kind the
 * first TALLY_FIRST events of a minute are told one by one, the others are counted; while that goes on, the next
 * minutes are counted from their start. Peers are limited, too: what has no place of its own is counted with "other
 * peers". So nothing but numbers grows, and every event is in one of them. */
#ifndef PULMO_TALLY_H
#define PULMO_TALLY_H

#include "pulmo.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TALLY_FIRST 10
#define TALLY_WINDOW_MS 60000
#define TALLY_TOLD_MAX 240 /* in a window, of all peers */
#define TALLY_PEERS_MAX 256
#define TALLY_KINDS_MAX 8
#define TALLY_PEER_SIZE 64

struct tally; /* any thread */
struct tally_sum {
    int kind;
    char peer[TALLY_PEER_SIZE]; /* "" = those that have no place of their own */
    int64_t count;              /* events that were not told */
    int64_t span_ms;            /* within that time */
};

struct tally *tally_new(struct err *err);
void tally_free(struct tally *tally);
/* kind from 0 to TALLY_KINDS_MAX - 1; now_ms monotonic. True: this one is to be told; false: it is counted. */
bool tally_note(struct tally *tally, int kind, const char *peer, int64_t now_ms);
/* A number whose minute is over (all: whatever there is, at the end); false: none. Asked until there is none. */
bool tally_take(struct tally *tally, int64_t now_ms, bool all, struct tally_sum *out);
/* It could not be written: it is part of the next number of its kind and peer. */
void tally_put_back(struct tally *tally, const struct tally_sum *sum);

#ifdef __cplusplus
}
#endif
#endif
