#include "app/progress.h"

#include "pulmo.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
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

#define CLOCK_MS 1000

/* One line, drawn again each second: work that takes long, and whose share nobody knows. */
static void *clock_loop(void *context) {
    struct progress_clock *clock = context;
    int64_t start_ms = pulmo_monotonic_ms();
    pthread_mutex_lock(&clock->lock);
    while (!clock->ended) {
        struct timespec due;
        fprintf(stderr, "\r%s, %lld s ", clock->what, (long long)((pulmo_monotonic_ms() - start_ms) / 1000));
        clock_gettime(CLOCK_REALTIME, &due);
        due.tv_sec += CLOCK_MS / 1000;
        pthread_cond_timedwait(&clock->end, &clock->lock, &due);
    }
    pthread_mutex_unlock(&clock->lock);
    fprintf(stderr, "\r%*s\r", (int)strlen(clock->what) + 12, "");
    return NULL;
}

void progress_clock_start(struct progress_clock *clock, const char *what) {
    *clock = (struct progress_clock){.what = what};
    if (isatty(STDERR_FILENO) != 1)
        return;
    pthread_mutex_init(&clock->lock, NULL);
    pthread_cond_init(&clock->end, NULL);
    clock->running = pthread_create(&clock->thread, NULL, clock_loop, clock) == 0; /* without a clock it works, too */
}

void progress_clock_stop(struct progress_clock *clock) {
    if (!clock->running)
        return;
    pthread_mutex_lock(&clock->lock);
    clock->ended = true;
    pthread_cond_signal(&clock->end);
    pthread_mutex_unlock(&clock->lock);
    pthread_join(clock->thread, NULL);
    pthread_cond_destroy(&clock->end);
    pthread_mutex_destroy(&clock->lock);
    clock->running = false;
}
