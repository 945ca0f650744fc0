/* Where results go, and under which name a destination of former days is known today. */
#ifndef PULMO_STORE_DESTINATION_H
#define PULMO_STORE_DESTINATION_H

#include "store/store.h"

/* Makes `destination_now(name)` known to the connection's SQL: what store_destination_now says. Rows keep the name that
 * was the right one when they were written, so whoever compares two of them compares what this makes of both. */
bool destination_function_add(struct store *store, struct err *err) PULMO_MUST_USE;

#endif
