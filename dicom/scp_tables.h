/* What reception takes, and how it says no (PS3.4 B.2.3, PS3.7 C). Private to dicom/. */
#ifndef PULMO_DICOM_SCP_TABLES_H
#define PULMO_DICOM_SCP_TABLES_H

#include <stdbool.h>

enum { STATUS_SUCCESS = 0x0000, STATUS_CLASS_NOT_SUPPORTED = 0x0122, STATUS_NOT_AUTHORISED = 0x0124 };
enum { STATUS_NO_SUCH_OPERATION = 0x0211, STATUS_OUT_OF_RESOURCES = 0xA700, STATUS_NOT_MATCHING = 0xA900 };
enum { STATUS_CANNOT_UNDERSTAND = 0xC000 };

bool scp_takes_class(const char *sop_class_uid);
bool scp_takes_syntax(const char *transfer_syntax_uid);

#endif
