/* One measured study of `pulmo bench study`, and plots of many. */
#ifndef PULMO_APP_BENCH_STUDY_H
#define PULMO_APP_BENCH_STUDY_H

#include "pulmo.h"

#define BENCH_STAGES 7 /* as in timings_ms of `analyze --json`; the last is their total */
#define BENCH_TOTAL (BENCH_STAGES - 1)

struct bench_study_row {
    int64_t slices, nodules;
    double pitch_mm, wall_s[BENCH_STAGES], processor_s[BENCH_STAGES];
    double peak_mib, busy_share;
    int tiles, tiles_run, candidates, reported;
    char precision[8];                 /* "fp32", "mixed", "fp16" */
    double again_s, again_processor_s; /* computed again in fp32, a part of the passes' stage */
};
/* rows[0] is the study that the others differ from in one thing. Writes to folder, which is made when it is missing:
 * study-slices-seconds.svg, study-slices-memory.svg (rows with as many nodules), study-candidates-seconds.svg and
 * study-candidates-memory.svg (rows with as many slices). */
bool bench_study_plot(const struct bench_study_row *rows, size_t count, const char *folder,
                      struct err *err) PULMO_MUST_USE;

#endif
