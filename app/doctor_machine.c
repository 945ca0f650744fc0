#include "app/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <unistd.h>

#define SYNC_SLOW_MS 100
#define CLOCK_BACK_MS (60 * 1000)
#define CLOCK_AHEAD_MS ((int64_t)400 * 24 * 3600 * 1000)

/* What every acknowledgement costs: a file written, synced and renamed. */
void doctor_folder(struct doctor *doctor) {
    const char *folder = doctor->config.data_folder;
    char path[CONFIG_TEXT_SIZE + 32];
    struct stat status;
    struct err err = {0};
    if (stat(folder, &status) != 0) {
        doctor_say(doctor, errno == ENOENT ? DOCTOR_WARNING : DOCTOR_FAILED, "%s: %s; pulmo serve makes it when it may",
                   folder, strerror(errno));
        return;
    }
    snprintf(path, sizeof path, "%s/doctor.%d", folder, (int)getpid());
    int64_t begin_ms = pulmo_monotonic_ms();
    bool written = bytes_write_file(path, "doctor", 6, true, &err);
    int64_t took_ms = pulmo_monotonic_ms() - begin_ms;
    unlink(path);
    if (!written)
        doctor_say(doctor, DOCTOR_FAILED, "%s; nothing can be received: give the service's user this folder", err.text);
    else if (took_ms > SYNC_SLOW_MS)
        doctor_say(doctor, DOCTOR_WARNING, "%s is writable, but a synced file took %lld ms; reception will be slow",
                   folder, (long long)took_ms);
    else
        doctor_say(doctor, DOCTOR_OK, "%s is writable; a synced file took %lld ms", folder, (long long)took_ms);
}

void doctor_space(struct doctor *doctor) {
    struct statvfs status;
    const char *folder = doctor->config.data_folder;
    if (statvfs(folder, &status) != 0) {
        doctor_say(doctor, DOCTOR_SKIPPED, "cannot ask for the free space of %s: %s", folder, strerror(errno));
        return;
    }
    uint64_t free_mb = ((uint64_t)status.f_bavail * status.f_frsize) >> 20;
    uint64_t reserve_mb = (uint64_t)doctor->config.disk_reserve_mb;
    int64_t used_percent = status.f_blocks ? 100 - (int64_t)(100 * status.f_bavail / status.f_blocks) : 0;
    if (free_mb < reserve_mb)
        doctor_say(doctor, DOCTOR_FAILED,
                   "%llu MiB free, %llu are kept in reserve: instances are refused (0xA700); make room",
                   (unsigned long long)free_mb, (unsigned long long)reserve_mb);
    else if (used_percent > doctor->config.disk_high_percent)
        doctor_say(doctor, DOCTOR_WARNING,
                   "%lld %% full, above disk_high_percent = %lld: what the PACS has confirmed is purged now",
                   (long long)used_percent, (long long)doctor->config.disk_high_percent);
    else if (free_mb < 2 * reserve_mb)
        doctor_say(doctor, DOCTOR_WARNING, "%llu MiB free; below %llu instances are refused: make room soon",
                   (unsigned long long)free_mb, (unsigned long long)reserve_mb);
    else
        doctor_say(doctor, DOCTOR_OK, "%llu MiB free, reserve %llu MiB", (unsigned long long)free_mb,
                   (unsigned long long)reserve_mb);
}

/* Against the time that the store last saw; time zones and leap seconds do not matter here. */
void doctor_clock(struct doctor *doctor) {
    int64_t now_ms = pulmo_now_ms(), last_ms = doctor->store_read ? doctor->store.last_audit_ms : 0;
    struct timex kernel = {.modes = 0};
    if (last_ms && now_ms < last_ms - CLOCK_BACK_MS)
        doctor_say(doctor, DOCTOR_FAILED,
                   "the clock is %lld s behind the last audit row: it was set back; set it right (NTP)",
                   (long long)((last_ms - now_ms) / 1000));
    else if (last_ms && now_ms > last_ms + CLOCK_AHEAD_MS)
        doctor_say(doctor, DOCTOR_WARNING, "the last audit row is more than a year old: is the clock right?");
    else if (adjtimex(&kernel) == TIME_ERROR)
        doctor_say(doctor, DOCTOR_WARNING, "the kernel says that its clock is not synchronised; set up NTP");
    else
        doctor_say(doctor, DOCTOR_OK, "synchronised, and not before the last audit row");
}
