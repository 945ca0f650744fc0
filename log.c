#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void write_line(enum log_level level, const char *folder, const char *event, const char *text) {
    static const char *const levels[] = {"info", "warning", "error"};
    int64_t now_ms = pulmo_now_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    char stamp[32], line[1024];
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
    int size = snprintf(line, sizeof line, "%s.%03dZ %s %s %s%s%s", stamp, (int)(now_ms % 1000), levels[level], folder,
                        event, *text ? " " : "", text);
    if (size < 0)
        return;
    size_t length = (size_t)size < sizeof line - 1 ? (size_t)size : sizeof line - 2;
    for (size_t index = 0; index < length; index++)
        if ((unsigned char)line[index] < ' ')
            line[index] = ' '; /* a peer's text must not forge a second line */
    line[length] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, length + 1);
    (void)ignored;
}

void log_event(enum log_level level, const char *folder, const char *event, const char *format, ...) {
    char text[800];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    write_line(level, folder, event, text);
}

void log_err(enum log_level level, const char *folder, const char *event, const struct err *err) {
    log_event(level, folder, event, "kind=\"%s\" reason=\"%s\"", err_kind_name(err->kind), err->text);
}
