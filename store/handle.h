/* What a store handle holds; seen in store/ only. */
#ifndef PULMO_STORE_HANDLE_H
#define PULMO_STORE_HANDLE_H

#include "store/sql.h"
#include "store/store.h"

#define STORE_STATEMENTS_MAX 224
#define STORE_DESTINATIONS_MAX 16
#define STORE_DESTINATION_SIZE 64
#define STORE_CONFIRMING_SIZE (STORE_DESTINATIONS_MAX * (STORE_DESTINATION_SIZE * 6 + 3) + 3)
#define STORE_LEASE_SIZE 40
#define STORE_HOLDER_SIZE 17

struct store {
    sqlite3 *database;
    struct store_config config; /* folder owned */
    store_pixel_digest *pixel_digest;
    struct store_statement {
        const char *sql; /* a literal: its address is the key */
        sqlite3_stmt *statement;
    } statements[STORE_STATEMENTS_MAX];
    size_t statement_count;
    char destinations[STORE_DESTINATIONS_MAX][STORE_DESTINATION_SIZE];
    size_t destination_count;
    char confirming[STORE_CONFIRMING_SIZE]; /* JSON array of destinations that are asked to confirm */
    /* Journal rows beyond this id were written by this process; -1 = none. */
    int64_t journal_own_after;
    bool joined;                    /* transactions join the one that store/group.c has open */
    char holder[STORE_HOLDER_SIZE]; /* name in holders/ */
    int holder_file;                /* its lock; -1 until the first lease */
    int64_t busy_until_ms;          /* monotonic: the patience of the present wait for the lock */
    int64_t busy_in_vain_ms;        /* end of the last wait that was in vain; 0 = none */
    int watch;                      /* inotify on the write-ahead log; -1 until store_wait is called */
};

/* The lock that those hold who make, migrate or recover a store; closed = given back. -1 with err set. */
int store_open_lock(const char *folder, struct err *err);
void store_busy_handler_set(struct store *store);

/* count random bytes as hexadecimal text, from the kernel. */
bool store_random_hex(size_t count, char *out, struct err *err) PULMO_MUST_USE;

/* Exponential back-off: first_ms doubled attempt - 1 times, at most max_ms. */
int64_t store_backoff_ms(uint32_t attempt, int64_t first_ms, int64_t max_ms);
#define STORE_BACKOFF_FIRST_MS 5000
/* After a refusal by the peer: one whose database restarts refuses for minutes what it takes afterwards. */
#define STORE_BACKOFF_REFUSED_MS (5 * 60 * 1000)
#define STORE_BACKOFF_JOB_MAX_MS (10 * 60 * 1000)
#define STORE_BACKOFF_OUTBOX_MAX_MS (60 * 60 * 1000)
#define STORE_BACKOFF_CONFIRM_MAX_MS (24 * 60 * 60 * 1000)
/* Times that lie further ahead than any lease or wait can reach come from a clock that was set back, and count as over.
 * The margin: callers read the clock before they wait for the database, so a later caller may hold an earlier time. */
#define STORE_CLOCK_MARGIN_MS (60 * 1000)

#endif
