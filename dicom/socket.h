/* Listening TCP sockets, IPv4 and IPv6, for the DICOM listener. Private to dicom/. */
#ifndef PULMO_DICOM_SOCKET_H
#define PULMO_DICOM_SOCKET_H

#include "pulmo.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A listening socket, or -1. address NULL or "" = all, IPv6 and IPv4 on one socket where the system has both. */
int socket_listen(const char *address, uint16_t port, struct err *err);
uint16_t socket_port(int listener);
/* Waits for a connection and takes it: *out = -1 when none came. Sets TCP_NODELAY and close-on-exec; peer is the
 * numeric address, IPv4 also where it came mapped into IPv6. */
bool socket_accept(int listener, int wait_ms, int *out, char peer[64], struct err *err) PULMO_MUST_USE;
void socket_set_nodelay(int socket);

#ifdef __cplusplus
}
#endif
#endif
