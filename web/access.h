/* Who saw which study: one audit row (PS3.15 A.5.3.3, Instances Accessed) a user and study in a while, not one an
 * image. */
#ifndef PULMO_WEB_ACCESS_H
#define PULMO_WEB_ACCESS_H

#include "web/request.h"

struct access_notes *access_notes_new(struct err *err);
void access_notes_free(struct access_notes *notes);

/* Call before anything of the study is sent; when the row cannot be written, nothing may be. */
bool access_note(struct request *request, const char *study_uid, struct err *err) PULMO_MUST_USE;
/* A refusal that somebody who is logged in met (Security Alert). */
bool access_refused(struct request *request, const char *why, struct err *err) PULMO_MUST_USE;

#endif
