#include "app/wake.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

volatile sig_atomic_t stop_requested;

static void on_signal(int number) {
    (void)number;
    stop_requested = 1;
}

void stop_on_signals(void) {
    /* Without SA_RESTART, so that a wait ends at once. */
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL); /* a peer that hangs up is an error of that peer's socket alone */
}

bool wake_open(const char *folder, struct wake *out, struct err *err) {
    int descriptor = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (descriptor < 0 || inotify_add_watch(descriptor, folder, IN_MODIFY) < 0) {
        int number = errno;
        if (descriptor >= 0)
            close(descriptor);
        return err_set(err, ERR_IO, "cannot watch %s: %s", folder, strerror(number));
    }
    out->descriptor = descriptor;
    return true;
}

static void drain(int descriptor) {
    char buffer[4096];
    while (read(descriptor, buffer, sizeof buffer) > 0)
        ;
}

void wake_wait(struct wake *wake, int timeout_ms) {
    struct pollfd polled = {.fd = wake->descriptor, .events = POLLIN};
    if (stop_requested || poll(&polled, 1, timeout_ms) <= 0)
        return;
    drain(wake->descriptor);
    /* A study arrives as hundreds of commits: look once for the burst, not once for each. */
    poll(NULL, 0, 50);
    drain(wake->descriptor);
}

void wake_close(struct wake *wake) {
    close(wake->descriptor);
}
