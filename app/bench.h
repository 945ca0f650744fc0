/* The parts of `pulmo bench NAME`, one file each, and what they share: receivers to measure, and what the disk can do.
 */
#ifndef PULMO_APP_BENCH_H
#define PULMO_APP_BENCH_H

#include "app/command.h"

#include <sys/types.h>

/* As commands of the tool; argv[0] = the part's name. */
extern const struct command bench_attention, bench_devices, bench_dropout, bench_engine, bench_ingest, bench_plan,
    bench_precision, bench_study;

enum bench_receiver { BENCH_PULMO, BENCH_ORTHANC, BENCH_STORESCP, BENCH_RECEIVERS };

/* A receiver that listens; its process and its folder end with bench_server_stop. */
struct bench_server {
    enum bench_receiver receiver;
    const char *name, *ae_title;
    pid_t process; /* 0 = none: not installed */
    uint16_t port;
};
/* Starts a receiver with a folder of its own in `folder` and waits until it answers C-ECHO. True with process 0 when it
 * is not installed. */
bool bench_server_start(enum bench_receiver receiver, const char *folder, struct bench_server *out,
                        struct err *err) PULMO_MUST_USE;
void bench_server_stop(struct bench_server *server);

/* Starts a program with TCP_NODELAY as DCMTK reads it; its output goes to log (NULL = nowhere). ERR_NOT_FOUND when it
 * is not installed. */
struct bench_run {
    const char *const *arguments; /* ends with NULL; the program first, by path or by name */
    const char *log;
    bool nodelay;
};
bool bench_spawn(const struct bench_run *run, pid_t *out, struct err *err) PULMO_MUST_USE;
/* The exit status, or -1 when a signal ended it. */
int bench_wait(pid_t process);

/* Instances of size bytes a second that one thread can make durable: as a file that is synced, renamed, and its folder
 * synced; and as a piece of a preallocated file that was written before, synced. */
struct bench_floor {
    double files_s, segment_s;
};
bool bench_floor_measure(const char *folder, size_t size, struct bench_floor *out, struct err *err) PULMO_MUST_USE;

/* Waits, for at most some seconds, until the disk has nothing left to write: what one receiver left to it is not the
 * load of the next. */
void bench_disk_rest(const char *folder);

double bench_wall_s(void);
double bench_processor_s(void); /* of all threads of this process */
#define BENCH_ROUNDS_MAX 64
/* count: 1 .. BENCH_ROUNDS_MAX. */
double bench_median(const double *values, size_t count);

/* A chest on disk, of so many slices: their pitch is what covers the lungs, so that each is one that a scanner could
 * have made. Ends, files and all, with bench_phantom_free, also after a failure. */
struct bench_phantom_config {
    const char *folder; /* where its folder is made */
    int64_t slices, nodules;
};
struct bench_phantom {
    char folder[2048];
    struct file_list files;
    double pitch_mm;
};
bool bench_phantom_make(const struct bench_phantom_config *config, struct bench_phantom *out,
                        struct err *err) PULMO_MUST_USE;
void bench_phantom_free(struct bench_phantom *phantom);
void bench_folder_remove(const char *folder);

#endif
