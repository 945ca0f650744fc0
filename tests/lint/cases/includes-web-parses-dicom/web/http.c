#include "dicom/dicom.h"
#include "store/store.h"

int web_http(void) {
    return 0;
}
