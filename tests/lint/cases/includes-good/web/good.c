#include "pulmo.h"
#include "store/store.h"
#include "web/web.h"

#include <event2/http.h>
