/* The reception journal, seen in store/ only; its public part is in store.h.
 *
 * A durable file of its own costs an instance two commits of the file system (the file, its folder). Reception instead
 * writes records (store/record.h), each a content with what its rows will say, one after the other into segments
 * (store/segment.h), and syncs those of several associations at once (store/sync.h). The promise: what is new to
 * the database is acknowledged when its record is durable. The rows of instance, study, audit and journal follow within
 * milliseconds, many in one commit (store/group.h); a row of the table `journal` says where the content lies. After a
 * crash the next reception reads the records whose rows may be missing and adds those that are (journal_replay.c),
 * before it takes anything. `journal_state` says up to which number no record needs that.
 *
 * What is not new (its UID has rows) is judged by them first, and acknowledged after its own rows. So is everything as
 * long as rows of what was acknowledged cannot be committed: reception does not run ahead of a database that fails.
 *
 * A checkpoint moves contents on into blobs/: files, synced, then the journal rows are deleted in a commit of their
 * own. So at every instant each content that a row names lies whole in blobs/ or where a journal row says, or both.
 * A segment is written again only when no row names it and no record in it waits for its rows. A record that a crash
 * left torn was never acknowledged: it is audited, and written over. */
#ifndef PULMO_STORE_JOURNAL_H
#define PULMO_STORE_JOURNAL_H

#include "digest.h"
#include "store/store.h"

/* A content's place, as its row says. */
struct journal_place {
    int64_t id, size, segment, position;
    char sha256[DIGEST_HEX_SIZE];
};

/* As blob_read, for a content that may still lie in the journal. */
bool journal_read(struct store *store, const char *sha256, int64_t size, struct bytes *out,
                  struct err *err) PULMO_MUST_USE;
/* *durable = the content is in blobs/ in this size, or in the journal. */
bool journal_holds(struct store *store, const char *sha256, int64_t size, bool *durable,
                   struct err *err) PULMO_MUST_USE;
/* *waiting = some version of an instance of the study lies in the journal. */
bool journal_holds_study(struct store *store, const char *study_uid, bool *waiting, struct err *err) PULMO_MUST_USE;
/* As store_journal_checkpoint, for the contents of one study. */
bool journal_checkpoint_study(struct store *store, const char *study_uid, struct err *err) PULMO_MUST_USE;
/* A part of it, the oldest contents: what one pair of syncs moves. *moved = their number; 0 = the journal is empty. */
bool journal_checkpoint_some(struct store *store, size_t *moved, struct err *err) PULMO_MUST_USE;

#endif
