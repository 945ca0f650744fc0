/* Reverse proxies in front of the web server: behind one sit many browsers, so it is not limited as one machine is, and
 * what it says of its client is believed. */
#ifndef PULMO_WEB_PROXIES_H
#define PULMO_WEB_PROXIES_H

#include "pulmo.h"

#include <netinet/in.h>

#define PROXIES_ADDRESS_SIZE INET6_ADDRSTRLEN

struct proxies;
/* text: addresses, comma-separated; NULL or empty = none. ERR_CONFIG names one that is none. */
struct proxies *proxies_new(const char *text, struct err *err);
void proxies_free(struct proxies *proxies);

/* address: IPv4 as mapped. */
bool proxies_have(const struct proxies *proxies, const struct in6_addr *address);
/* The client of a request that came from `peer` with this X-Forwarded-For (NULL = none): the last address of it when
 * peer is a proxy, since earlier ones are whatever the client wrote; else peer. */
void proxies_client(const struct proxies *proxies, const char *peer, const char *forwarded_for,
                    char out[PROXIES_ADDRESS_SIZE]);

#endif
