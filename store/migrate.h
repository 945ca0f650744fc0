/* Versions of the database: SQL embedded from schema.sql (version 1) and migrations/ (2 upward). */
#ifndef PULMO_STORE_MIGRATE_H
#define PULMO_STORE_MIGRATE_H

#include "pulmo.h"

struct store;

struct migrate_list {
    const char *const *versions; /* SQL that leads from version index to index + 1 */
    int count;
};
extern const struct migrate_list migrate_embedded; /* generated: schema.sql, then migrations/ in order */

/* Brings the database forward, each version in one transaction with its number, after a copy of the old one was kept
 * beside it (pulmo.db.v<N>). ERR_CONFIG when it is newer than this program. Called under the store's open lock. */
bool migrate_run(struct store *store, const struct migrate_list *list, struct err *err) PULMO_MUST_USE;

#endif
