/* What powerfs writes down and power_replay reads: one record an operation, in the order in which they took effect.
 * A record is its head and size bytes: the data of a write, or a path below the mount (two, each with its NUL). */
#ifndef POWER_LOG_H
#define POWER_LOG_H

#include <stdint.h>

enum power_kind {
    POWER_FILE = 1,    /* path of a new file; node = its number */
    POWER_FOLDER,      /* path of a new folder */
    POWER_LINK,        /* another path of node */
    POWER_UNLINK,      /* path */
    POWER_RMDIR,       /* path */
    POWER_RENAME,      /* old path, new path */
    POWER_WRITE,       /* node, offset, data */
    POWER_TRUNCATE,    /* node; offset = the new size */
    POWER_SYNC,        /* node: its data and size are on the disk */
    POWER_SYNC_FAILED, /* node: what was not on the disk never will be, although it can still be read */
    POWER_SYNC_FOLDER, /* path: its names are on the disk */
    POWER_SYNC_ALL,    /* everything is */
};

struct power_record {
    uint32_t kind, size;
    uint64_t node, offset;
};

/* Orders to powerfs, in a file that it maps; 32-bit numbers in the order of the machine. A fault hits operations of a
 * class in `classes` whose path contains `path`, from the one after `skip` on, `times` times (0 = without end). */
enum power_class {
    POWER_CLASS_READ = 1,
    POWER_CLASS_SPACE = 2,  /* needs room: write, create, mkdir, allocate */
    POWER_CLASS_SYNC = 4,   /* file and folder syncs */
    POWER_CLASS_CHANGE = 8, /* any modification, removal too */
};
struct power_control {
    uint32_t error, classes, skip, times; /* error 0 = none */
    uint32_t seen, hit;                   /* counted by powerfs since it was started */
    uint32_t reserved[2];
    char path[96];
};

#endif
