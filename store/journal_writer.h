/* The writing side of the journal, seen in store/journal.c, journal_put.c and journal_replay.c only. */
#ifndef PULMO_STORE_JOURNAL_WRITER_H
#define PULMO_STORE_JOURNAL_WRITER_H

#include <pthread.h>

#include "store/group.h"
#include "store/instance.h"
#include "store/journal.h"
#include "store/segment.h"
#include "store/sync.h"

/* 1 GiB: the studies of a quarter of an hour at the pace of a busy scanner. */
#define SEGMENT_BYTES ((uint64_t)32 << 20)
#define SEGMENTS_MAX 32

/* used: full, or given up while reception rests; may hold contents that rows name. */
enum segment_state { SEGMENT_ABSENT, SEGMENT_FREE, SEGMENT_ACTIVE, SEGMENT_USED };
struct segment {
    enum segment_state state;
    int descriptor;
    uint64_t used;
    unsigned writers; /* puts between their place and the commit of their rows */
};

struct journal_put;
struct store_journal {
    struct group group;      /* on a handle of its own */
    struct sync_queue syncs; /* of the segments */
    struct store *store;     /* of store_journal_keep */
    int writer_lock;         /* -1 while another process has it */
    char key[DIGEST_HEX_SIZE];
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    struct segment segments[SEGMENTS_MAX];
    bool broken;                      /* a sync failed: this process takes the direct way from now on */
    bool moving;                      /* the last step of a checkpoint was not the last; of store_journal_keep alone */
    int64_t last_put_ms;              /* monotonic */
    int64_t number_next;              /* of the next record */
    struct journal_put *first, *last; /* puts whose rows are not committed, by number */
    size_t later_count;               /* those that are acknowledged */
    int64_t number_noted;             /* what the row says; of store_journal_keep alone */
};

struct place {
    int segment; /* -1 = none */
    int descriptor;
    uint64_t position; /* of the record */
    uint64_t content;
};

/* One put, by the thread that asks for it; acknowledged, by that of the group. */
struct journal_put {
    struct store_journal *journal;
    struct instance instance; /* its own; the content only as long as somebody waits for it */
    struct instance_put put;
    struct place place;
    int64_t number; /* of its record; 0 = none */
    bool again;
    struct group_ticket ticket;
    struct journal_put *before, *after;
};

/* Lowest number first: the fewer segments are in use, the warmer they are. -1 = none. The lock is held. */
int journal_segment_in(const struct store_journal *journal, enum segment_state state);
/* What is new to the rows, or to be decided again, is decided, written as a file where it has no place, and committed;
 * any handle, no transaction open. put->instance with its content. */
bool journal_put_settle(struct store *store, struct journal_put *put, struct err *err) PULMO_MUST_USE;
void journal_put_forget(struct group_ticket *ticket);

/* Before anything is written: commits what a former process acknowledged and had no time to commit. *last = the highest
 * number of any record. */
bool journal_replay(struct store_journal *journal, int64_t after, int64_t *last, struct err *err) PULMO_MUST_USE;

#endif
