/* Versions of the database: SQL embedded from schema.sql (version 1) and migrations/ (2 upward). */
#ifndef PULMO_STORE_MIGRATE_H
#define PULMO_STORE_MIGRATE_H

#include "pulmo.h"

struct store;

extern const char *const migrate_versions[];
extern const int migrate_version_count;

/* Brings the database forward, each version in one transaction with its number, after a copy of the old one was kept
 * beside it (pulmo.db.v<N>). ERR_CONFIG when it is newer than this program. Called under the store's open lock. */
bool migrate_run(struct store *store, struct err *err) PULMO_MUST_USE;

#endif
