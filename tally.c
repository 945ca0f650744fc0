#include "tally.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    bool used, flooded; /* flooded: the window before was over its share, nothing is told */
    int kind;
    char peer[TALLY_PEER_SIZE];
    int64_t since_ms, told, count;
};
struct tally {
    pthread_mutex_t lock;
    struct entry entries[TALLY_PEERS_MAX + TALLY_KINDS_MAX]; /* the last: other peers, by kind */
    int64_t told_since_ms, told;                             /* of all */
};

struct tally *tally_new(struct err *err) {
    struct tally *tally = pulmo_alloc(1, sizeof *tally, err);
    if (!tally)
        return NULL;
    pthread_mutex_init(&tally->lock, NULL);
    for (int kind = 0; kind < TALLY_KINDS_MAX; kind++)
        tally->entries[TALLY_PEERS_MAX + kind] = (struct entry){.used = true, .flooded = true, .kind = kind};
    return tally;
}

void tally_free(struct tally *tally) {
    if (!tally)
        return;
    pthread_mutex_destroy(&tally->lock);
    free(tally);
}

static bool is_over(const struct entry *entry, int64_t now_ms) {
    return now_ms - entry->since_ms >= TALLY_WINDOW_MS;
}

static struct entry *find(struct tally *tally, int kind, const char *peer) {
    for (size_t index = 0; index < TALLY_PEERS_MAX; index++) {
        struct entry *entry = &tally->entries[index];
        if (entry->used && entry->kind == kind && strncmp(entry->peer, peer, TALLY_PEER_SIZE - 1) == 0)
            return entry;
    }
    return NULL;
}

/* The entry with nothing left to say becomes another's; where there is none, all that come now share one. */
static struct entry *place(struct tally *tally, int kind, const char *peer, int64_t now_ms) {
    for (size_t index = 0; index < TALLY_PEERS_MAX; index++) {
        struct entry *entry = &tally->entries[index];
        if (entry->used && (entry->count || !is_over(entry, now_ms)))
            continue;
        *entry = (struct entry){.used = true, .kind = kind, .since_ms = now_ms};
        snprintf(entry->peer, sizeof entry->peer, "%s", peer);
        return entry;
    }
    return &tally->entries[TALLY_PEERS_MAX + kind];
}

static bool may_tell(struct tally *tally, const struct entry *entry, int64_t now_ms) {
    if (now_ms - tally->told_since_ms >= TALLY_WINDOW_MS) {
        tally->told_since_ms = now_ms;
        tally->told = 0;
    }
    return !entry->flooded && entry->told < TALLY_FIRST && tally->told < TALLY_TOLD_MAX;
}

static bool note(struct tally *tally, int kind, const char *peer, int64_t now_ms) {
    struct entry *entry = find(tally, kind, peer);
    if (!entry)
        entry = place(tally, kind, peer, now_ms);
    bool is_shared = entry >= tally->entries + TALLY_PEERS_MAX;
    if (is_over(entry, now_ms) && !entry->count) {
        entry->since_ms = now_ms;
        entry->told = 0;
        entry->flooded = is_shared;
    }
    if (!may_tell(tally, entry, now_ms)) {
        entry->count++;
        return false;
    }
    entry->told++;
    tally->told++;
    return true;
}

bool tally_note(struct tally *tally, int kind, const char *peer, int64_t now_ms) {
    assert(kind >= 0 && kind < TALLY_KINDS_MAX);
    pthread_mutex_lock(&tally->lock);
    bool told = note(tally, kind, peer, now_ms);
    pthread_mutex_unlock(&tally->lock);
    return told;
}

/* The entry stays for another window, so that what could not be written finds its place again. */
static void take(struct entry *entry, int64_t now_ms, struct tally_sum *out) {
    *out = (struct tally_sum){.kind = entry->kind, .count = entry->count, .span_ms = now_ms - entry->since_ms};
    memcpy(out->peer, entry->peer, sizeof out->peer);
    entry->flooded = entry->flooded ? entry->count > TALLY_FIRST || !*entry->peer : true;
    entry->count = 0;
    entry->told = 0;
    entry->since_ms = now_ms;
}

bool tally_take(struct tally *tally, int64_t now_ms, bool all, struct tally_sum *out) {
    bool found = false;
    pthread_mutex_lock(&tally->lock);
    for (size_t index = 0; !found && index < TALLY_PEERS_MAX + TALLY_KINDS_MAX; index++) {
        struct entry *entry = &tally->entries[index];
        found = entry->used && entry->count && (all || is_over(entry, now_ms));
        if (found)
            take(entry, now_ms, out);
    }
    pthread_mutex_unlock(&tally->lock);
    return found;
}

void tally_put_back(struct tally *tally, const struct tally_sum *sum) {
    pthread_mutex_lock(&tally->lock);
    struct entry *entry = find(tally, sum->kind, sum->peer);
    if (!entry)
        entry = &tally->entries[TALLY_PEERS_MAX + sum->kind];
    entry->count += sum->count;
    pthread_mutex_unlock(&tally->lock);
}
