#include "app/descriptors.h"

#include "log.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

void descriptors_raise(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    /* As it was is enough for the limits that are configured by default; beyond it connections wait. */
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        log_event(LOG_WARNING, "serve", "descriptors not raised", "wanted=%llu reason=\"%s\"",
                  (unsigned long long)limit.rlim_max, strerror(errno));
}
