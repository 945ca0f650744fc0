/* A database that is damaged, locked by others, or was written to a disk that failed.
 *
 * damaged   It is moved aside with its log, never written over, and the store stays shut until the operator has
 * restored a backup. A process that meets the damage leaves the mark RECOVER_SUSPECT_NAME; the supervisor then stops
 * all and has it judged (store_recover), as at each start. log       A sync that failed once must not be believed
 * afterwards: the kernel has dropped what it could not write, and still shows it. What a recovery would read of the log
 * is therefore written again and synced first. */
#ifndef PULMO_STORE_RECOVER_H
#define PULMO_STORE_RECOVER_H

#include "store/handle.h"

#define RECOVER_SUSPECT_NAME "pulmo.db.suspect"

/* ERR_IO where a database was moved aside, or is gone although there are contents, and none was restored. With
 * open.lock held, before a database is made. */
bool recover_permit(const char *folder, struct err *err) PULMO_MUST_USE;
/* The result code of a database call: leaves the mark when it says that the database is damaged. */
void recover_note(const struct store *store, int code);
bool recover_is_suspect(const char *folder);

/* Says in health who keeps the database locked. */
struct store_health;
void recover_check_lock(struct store *store, struct store_health *health);

#endif
