/* TLS of the web server: context, and a self-signed certificate where there is none yet. */
#ifndef PULMO_WEB_TLS_H
#define PULMO_WEB_TLS_H

#include "pulmo.h"

#include <openssl/ssl.h>

/* A server context: TLS 1.2 or later, forward secrecy, authenticated ciphers (RFC 9325). Owned: SSL_CTX_free.
 *
 * Without certificate_file, makes a self-signed one of an EC P-256 key (kept when key_file is there already, so that a
 * crash between the two writes mends itself); the key is readable by its owner alone.
 * errors   ERR_CONFIG  certificate without key, unreadable PEM, key of another certificate */
SSL_CTX *tls_context_new(const char *certificate_file, const char *key_file, struct err *err);

#endif
