#include "pulmo.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

bool err_set(struct err *err, enum err_kind kind, const char *format, ...) {
    if (!err)
        return false;
    err->kind = kind;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
    return false;
}

bool err_within(struct err *err, const char *format, ...) {
    if (!err)
        return false;
    char context[sizeof err->text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof context, format, arguments);
    va_end(arguments);
    char inner[sizeof err->text];
    memcpy(inner, err->text, sizeof inner);
    size_t used = strlen(context);
    memcpy(err->text, context, used + 1);
    if (used + 3 < sizeof err->text)
        snprintf(err->text + used, sizeof err->text - used, ": %s", inner);
    return false;
}

const char *err_kind_name(enum err_kind kind) {
    static const char *const names[] = {"none",     "input", "unsupported", "limit", "denied", "not found", "conflict",
                                        "no space", "i/o",   "network",     "busy",  "memory", "config",    "internal"};
    return (size_t)kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

void *pulmo_alloc(size_t count, size_t size, struct err *err) {
    size_t total = 0;
    if (__builtin_mul_overflow(count, size, &total) || total > PULMO_ALLOC_MAX) {
        err_set(err, ERR_LIMIT, "%zu items of %zu bytes are more than this process may hold", count, size);
        return NULL;
    }
    void *memory = calloc(total ? total : 1, 1);
    if (!memory)
        err_set(err, ERR_MEMORY, "out of memory for %zu bytes", total);
    return memory;
}

void pulmo_free_at(void *pointer_to_pointer) {
    void *pointer = NULL;
    memcpy(&pointer, pointer_to_pointer, sizeof pointer);
    free(pointer);
}

void bytes_free(struct bytes *bytes) {
    free(bytes->data);
    *bytes = (struct bytes){0};
}

bool bytes_append(struct bytes *bytes, const void *data, size_t size, size_t size_max, struct err *err) {
    if (size > size_max || bytes->size > size_max - size)
        return err_set(err, ERR_LIMIT, "more than %zu bytes", size_max);
    /* Capacity is the next power of two, so that appending costs amortised constant time: to ask for the same size
     * again is free. Asked for each time, because the bytes may have come from elsewhere (a file) with no room to
     * spare. */
    size_t needed = bytes->size + size, capacity = 64;
    while (capacity < needed)
        capacity *= 2;
    uint8_t *grown = realloc(bytes->data, capacity);
    if (!grown)
        return err_set(err, ERR_MEMORY, "out of memory for %zu bytes", capacity);
    bytes->data = grown;
    if (size)
        memcpy(bytes->data + bytes->size, data, size);
    bytes->size = needed;
    return true;
}

static enum err_kind kind_of_errno(int number) {
    switch (number) {
    case ENOENT: return ERR_NOT_FOUND;
    case ENOSPC:
    case EDQUOT: return ERR_NO_SPACE;
    case EACCES:
    case EPERM: return ERR_DENIED;
    default: return ERR_IO;
    }
}

static void close_at(int *descriptor) {
    if (*descriptor >= 0)
        close(*descriptor);
}

bool bytes_read_file(const char *path, size_t size_max, struct bytes *out, struct err *err) {
    PULMO_SCOPED(close_at) int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (descriptor < 0 || fstat(descriptor, &status) != 0)
        return err_set(err, kind_of_errno(errno), "cannot read %s: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return err_set(err, ERR_INPUT, "%s is not a regular file", path);
    if ((uint64_t)status.st_size > size_max)
        return err_set(err, ERR_LIMIT, "%s has %lld bytes, more than %zu", path, (long long)status.st_size, size_max);
    struct bytes bytes = {.data = pulmo_alloc((size_t)status.st_size, 1, err), .size = 0};
    if (!bytes.data)
        return false;
    while (bytes.size < (size_t)status.st_size) {
        ssize_t got = read(descriptor, bytes.data + bytes.size, (size_t)status.st_size - bytes.size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            bytes_free(&bytes);
            return err_set(err, ERR_IO, "cannot read %s: %s", path, got < 0 ? strerror(errno) : "it became shorter");
        }
        bytes.size += (size_t)got;
    }
    *out = bytes;
    return true;
}

void model_files_free(struct model_files *files) {
    for (size_t index = 0; index < files->count; index++)
        bytes_free(&files->items[index].content);
    files->count = 0;
}

bool model_files_add(struct model_files *files, const char *name, struct bytes *content, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes moved = *content;
    *content = (struct bytes){0};
    if (strchr(name, '/') || name[0] == '.' || !*name || strlen(name) >= sizeof files->items->name)
        return err_set(err, ERR_INPUT, "file %.100s is not a plain name", name);
    if (files->count == MODEL_FILES_MAX)
        return err_set(err, ERR_LIMIT, "more than %d files of one model", MODEL_FILES_MAX);
    struct model_file *file = &files->items[files->count++];
    snprintf(file->name, sizeof file->name, "%s", name);
    file->content = moved;
    moved = (struct bytes){0};
    return true;
}

bool bytes_write_all(int descriptor, const uint8_t *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(descriptor, data + done, size - done);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return false;
        done += (size_t)wrote;
    }
    return true;
}

static bool sync_folder_of(const char *path) {
    char folder[4096];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == folder)
        slash[1] = '\0';
    else if (slash)
        *slash = '\0';
    PULMO_SCOPED(close_at) int descriptor = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return descriptor >= 0 && fsync(descriptor) == 0;
}

bool bytes_write_file(const char *path, const void *data, size_t size, bool durable, struct err *err) {
    char temporary[4096];
    int length = snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    if (length < 0 || (size_t)length >= sizeof temporary)
        return err_set(err, ERR_LIMIT, "path too long: %s", path);
    PULMO_SCOPED(close_at) int descriptor = mkostemp(temporary, O_CLOEXEC);
    if (descriptor < 0)
        return err_set(err, kind_of_errno(errno), "cannot create a file beside %s: %s", path, strerror(errno));
    bool written = bytes_write_all(descriptor, data, size) && fchmod(descriptor, 0640) == 0 &&
                   (!durable || fsync(descriptor) == 0) && rename(temporary, path) == 0;
    if (!written) {
        int number = errno;
        unlink(temporary);
        return err_set(err, kind_of_errno(number), "cannot write %s: %s", path, strerror(number));
    }
    if (durable && !sync_folder_of(path))
        return err_set(err, kind_of_errno(errno), "cannot sync the folder of %s: %s", path, strerror(errno));
    return true;
}

static int64_t clock_ms(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t pulmo_now_ms(void) {
    return clock_ms(CLOCK_REALTIME);
}

int64_t pulmo_monotonic_ms(void) {
    return clock_ms(CLOCK_MONOTONIC);
}

size_t grid_voxels(const struct grid *grid) {
    return (size_t)grid->size_ijk[0] * (size_t)grid->size_ijk[1] * (size_t)grid->size_ijk[2];
}

void grid_to_lps(const struct grid *grid, const double ijk[3], double lps_mm[3]) {
    const double(*a)[4] = grid->ijk_to_lps_mm;
    double out[3];
    for (int row = 0; row < 3; row++)
        out[row] = a[row][0] * ijk[0] + a[row][1] * ijk[1] + a[row][2] * ijk[2] + a[row][3];
    memcpy(lps_mm, out, sizeof out);
}

bool grid_to_ijk(const struct grid *grid, const double lps_mm[3], double ijk[3]) {
    const double(*a)[4] = grid->ijk_to_lps_mm;
    double c[3][3]; /* cofactors: the inverse is their transpose over the determinant */
    for (int row = 0; row < 3; row++)
        for (int column = 0; column < 3; column++) {
            int r1 = (row + 1) % 3, r2 = (row + 2) % 3, c1 = (column + 1) % 3, c2 = (column + 2) % 3;
            c[row][column] = a[r1][c1] * a[r2][c2] - a[r1][c2] * a[r2][c1];
        }
    double determinant = a[0][0] * c[0][0] + a[0][1] * c[0][1] + a[0][2] * c[0][2];
    if (!(fabs(determinant) > 1e-12))
        return false;
    double d[3] = {lps_mm[0] - a[0][3], lps_mm[1] - a[1][3], lps_mm[2] - a[2][3]};
    for (int axis = 0; axis < 3; axis++)
        ijk[axis] = (c[0][axis] * d[0] + c[1][axis] * d[1] + c[2][axis] * d[2]) / determinant;
    return true;
}

static bool grid_check(const struct grid *grid, struct err *err) {
    for (int axis = 0; axis < 3; axis++)
        if (grid->size_ijk[axis] < 1 || grid->size_ijk[axis] > 65535)
            return err_set(err, ERR_INPUT, "a grid of %d x %d x %d voxels is not possible", (int)grid->size_ijk[0],
                           (int)grid->size_ijk[1], (int)grid->size_ijk[2]);
    return true;
}

struct volume *volume_new(const struct grid *grid, struct err *err) {
    if (!grid_check(grid, err))
        return NULL;
    struct volume *volume = pulmo_alloc(1, sizeof *volume, err);
    if (!volume)
        return NULL;
    volume->grid = *grid;
    volume->hu = pulmo_alloc(grid_voxels(grid), sizeof *volume->hu, err);
    if (!volume->hu) {
        free(volume);
        return NULL;
    }
    return volume;
}

void volume_free(struct volume *volume) {
    if (volume)
        free(volume->hu);
    free(volume);
}

void volume_free_at(struct volume **volume) {
    volume_free(*volume);
}

struct mask *mask_new(const struct grid *grid, struct err *err) {
    if (!grid_check(grid, err))
        return NULL;
    struct mask *mask = pulmo_alloc(1, sizeof *mask, err);
    if (!mask)
        return NULL;
    mask->grid = *grid;
    mask->voxel = pulmo_alloc(grid_voxels(grid), 1, err);
    if (!mask->voxel) {
        free(mask);
        return NULL;
    }
    return mask;
}

void mask_free(struct mask *mask) {
    if (mask)
        free(mask->voxel);
    free(mask);
}

void mask_free_at(struct mask **mask) {
    mask_free(*mask);
}

const char *texture_name(enum texture texture) {
    static const char *const names[] = {"unknown", "solid", "part-solid", "ground-glass"};
    return (size_t)texture < 4 ? names[texture] : names[0];
}

const char *lobe_name(enum lobe lobe) {
    static const char *const names[] = {"unknown", "RUL", "RML", "RLL", "LUL", "LLL"};
    return (size_t)lobe < 6 ? names[lobe] : names[0];
}

void findings_free(struct findings *findings) {
    free(findings->items);
    *findings = (struct findings){0};
}

const char *refusal_name(enum refusal_code code) {
    static const char *const names[REFUSAL_CODE_COUNT] = {
        [REFUSAL_NOT_CT] = "NOT_CT",
        [REFUSAL_LOCALIZER] = "LOCALIZER",
        [REFUSAL_NOT_AXIAL] = "NOT_AXIAL",
        [REFUSAL_MIXED_GEOMETRY] = "MIXED_GEOMETRY",
        [REFUSAL_MISSING_SLICES] = "MISSING_SLICES",
        [REFUSAL_DUPLICATE_POSITIONS] = "DUPLICATE_POSITIONS",
        [REFUSAL_TOO_THICK] = "TOO_THICK",
        [REFUSAL_TOO_FEW_SLICES] = "TOO_FEW_SLICES",
        [REFUSAL_NOT_A_CHEST] = "NOT_A_CHEST",
        [REFUSAL_LUNGS_CUT] = "LUNGS_CUT",
        [REFUSAL_OUT_OF_DISTRIBUTION] = "OUT_OF_DISTRIBUTION",
        [REFUSAL_UNREADABLE] = "UNREADABLE",
    };
    return (size_t)code < REFUSAL_CODE_COUNT ? names[code] : "UNKNOWN";
}

void refusals_add(struct refusals *refusals, enum refusal_code code, const char *format, ...) {
    if (refusals->count == REFUSALS_MAX)
        return;
    struct refusal *refusal = &refusals->items[refusals->count++];
    refusal->code = code;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(refusal->text, sizeof refusal->text, format, arguments);
    va_end(arguments);
}
