#include "app/progress.h"

#include "pulmo.h"

#include <stdio.h>
#include <unistd.h>

#define DRAW_MS 100
#define WIDTH 40

void progress_draw(struct progress_bar *bar, int64_t done, int64_t total) {
    int64_t now_ms = pulmo_monotonic_ms();
    if (isatty(STDERR_FILENO) != 1 || (bar->drawn_ms && now_ms - bar->drawn_ms < DRAW_MS && done < total))
        return;
    int filled = total > 0 && done < total ? (int)((double)done / (double)total * WIDTH) : WIDTH;
    fprintf(stderr, "\r[%.*s%*s] %lld of %lld MiB", filled, "########################################", WIDTH - filled,
            "", (long long)(done >> 20), (long long)(total >> 20));
    bar->drawn_ms = now_ms;
}

void progress_end(struct progress_bar *bar) {
    if (bar->drawn_ms)
        fputc('\n', stderr);
    bar->drawn_ms = 0;
}
