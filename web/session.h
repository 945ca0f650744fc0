/* Sessions: the cookie, and the routes that begin and end it. */
#ifndef PULMO_WEB_SESSION_H
#define PULMO_WEB_SESSION_H

#include "web/request.h"

/* Fills user and token from the cookie; an absent or ended session leaves them empty and is success. */
bool session_read(struct request *request, struct err *err) PULMO_MUST_USE;
/* Checks the password of whoever is logged in; answers 403 or 429 itself and returns false with err->kind ERR_NONE. */
bool session_confirm(struct request *request, const char *password, struct err *err) PULMO_MUST_USE;

request_handler session_login, session_logout, session_me;

#endif
