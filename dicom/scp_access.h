/* Who may send: AE titles and addresses on allow-lists. Private to dicom/. */
#ifndef PULMO_DICOM_SCP_ACCESS_H
#define PULMO_DICOM_SCP_ACCESS_H

#include "dicom/dicom.h"

struct access; /* constant after access_new; any thread */

/* ERR_CONFIG names the entry that is no AE title, address or network. */
struct access *access_new(const struct dicom_scp_config *config, struct err *err);
void access_free(struct access *access);

bool access_called_ok(const struct access *access, const char *aet);
bool access_calling_ok(const struct access *access, const char *aet);
bool access_address_ok(const struct access *access, const char *address); /* numeric */
/* VR AE (PS3.5 6.2): 1 to 16 printable characters, no backslash, not only spaces. */
bool access_is_aet(const char *aet);

#endif
