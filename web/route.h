/* Which address is answered by what, for whom: one table. */
#ifndef PULMO_WEB_ROUTE_H
#define PULMO_WEB_ROUTE_H

#include "web/request.h"

#define ROUTE_BODY_BYTES_MAX ((size_t)64 << 10) /* no route takes more */

/* For evhttp_set_gencb; context: struct web_context. Always answers. */
void route_request(struct evhttp_request *http, void *context);

#endif
