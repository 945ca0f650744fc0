/* The viewer's files, read once at start: only what was there then is served, by its exact name. */
#ifndef PULMO_WEB_STATIC_FILES_H
#define PULMO_WEB_STATIC_FILES_H

#include "web/request.h"

/* Every regular file of the folder with a media type known here; NAME.gz beside NAME is its compressed form.
 * ERR_CONFIG when index.html is missing. */
struct static_files *static_files_new(const char *folder, struct err *err);
void static_files_free(struct static_files *files);

/* GET of a path outside of the API; "/" is index.html. ERR_NOT_FOUND. */
bool static_files_reply(struct request *request, struct err *err);

#endif
