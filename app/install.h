/* Where the parts installed beside the program lie: a build tree or an installation prefix. */
#ifndef PULMO_APP_INSTALL_H
#define PULMO_APP_INSTALL_H

#include "pulmo.h"

/* `configured` when it is not empty, otherwise the part as found relative to the program: in_tree below the repository
 * (build/pulmo) or installed below <prefix>/share/pulmo. ERR_CONFIG when there is none. */
bool install_find(const char *configured, const char *in_tree, const char *installed, char out[4096],
                  struct err *err) PULMO_MUST_USE;
/* `configured` when it is not empty, otherwise the name beside the program or below <prefix>/lib/pulmo, whether or not
 * it is there. */
bool install_beside(const char *configured, const char *name, char out[4096], struct err *err) PULMO_MUST_USE;

#endif
