/* Readers for tests of volume/ alone: NIfTI (.nii.gz, int16 or uint8, diagonal or any affine) and uncompressed CT
 * slices in Explicit VR Little Endian. They know just what the shared data hold; the product reads DICOM in dicom/. */
#ifndef TESTS_VOLUME_CASES_H
#define TESTS_VOLUME_CASES_H

#include "pulmo.h"

#include <dirent.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static inline const char *cases_path(char out[512], const char *relative) {
    const char *shared = getenv("PULMO_SHARED");
    snprintf(out, 512, "%s/%s", shared ? shared : "../shared", relative);
    return out;
}

static inline bool cases_present(void) {
    char path[512];
    bool present = access(cases_path(path, "data/hosts/hosts.csv"), R_OK) == 0;
    if (!present)
        printf("[  SKIPPED ] no shared data at %s\n", path);
    return present;
}

static inline double cases_number(const void *at, char type) {
    union {
        int16_t s;
        float f;
    } value = {0};
    memcpy(&value, at, type == 's' ? sizeof value.s : sizeof value.f);
    return type == 's' ? value.s : value.f;
}

/* A .gz file's content through gzip, which every Debian has. */
static inline bool cases_gunzip(const char *path, struct bytes *out) {
    int ends[2];
    if (pipe(ends) != 0)
        return false;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    char program[] = "gzip", option[] = "-dc", *file = strdup(path);
    char *const arguments[] = {program, option, file, NULL};
    pid_t child = 0;
    int failed = posix_spawnp(&child, program, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    free(file);
    close(ends[1]);
    static uint8_t piece[1 << 16];
    ssize_t got = 0;
    while (!failed && (got = read(ends[0], piece, sizeof piece)) > 0)
        if (!bytes_append(out, piece, (size_t)got, (size_t)1 << 30, NULL))
            break;
    close(ends[0]);
    int status = 1;
    return !failed && waitpid(child, &status, 0) == child && status == 0 && got == 0;
}

/* The sform, or without it the quaternion of the qform; both RAS mm, ours is LPS mm. */
static inline void cases_nifti_affine(const uint8_t *header, double affine[3][4]) {
    double q[4] = {0}, pixdim[4];
    for (int n = 0; n < 4; n++)
        pixdim[n] = cases_number(header + 76 + 4 * n, 'f');
    for (int n = 1; n < 4; n++)
        q[n] = cases_number(header + 252 + 4 * n, 'f');
    q[0] = sqrt(fmax(0, 1 - q[1] * q[1] - q[2] * q[2] - q[3] * q[3]));
    double a = q[0], b = q[1], c = q[2], d = q[3];
    const double turn[3][3] = {{a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)},
                               {2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)},
                               {2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c}};
    bool sform = cases_number(header + 254, 's') > 0;
    for (int row = 0; row < 3; row++)
        for (int column = 0; column < 4; column++) {
            double hand = column == 2 && pixdim[0] < 0 ? -1 : 1;
            double value =
                column == 3 ? cases_number(header + 268 + 4 * row, 'f') : turn[row][column] * pixdim[column + 1] * hand;
            if (sform)
                value = cases_number(header + 280 + 16 * row + 4 * column, 'f');
            affine[row][column] = row < 2 ? -value : value;
        }
}

/* NIfTI-1: https://nifti.nimh.nih.gov/nifti-1. */
static inline struct volume *cases_nifti(const char *path) {
    PULMO_SCOPED(bytes_free) struct bytes bytes = {0};
    if (!cases_gunzip(path, &bytes) || bytes.size < 352)
        return NULL;
    struct grid grid = {0};
    for (int axis = 0; axis < 3; axis++)
        grid.size_ijk[axis] = (int32_t)cases_number(bytes.data + 42 + 2 * axis, 's');
    cases_nifti_affine(bytes.data, grid.ijk_to_lps_mm);
    for (int axis = 0; axis < 3; axis++)
        grid.spacing_mm[axis] = sqrt(pow(grid.ijk_to_lps_mm[0][axis], 2) + pow(grid.ijk_to_lps_mm[1][axis], 2) +
                                     pow(grid.ijk_to_lps_mm[2][axis], 2));
    int type = (int)cases_number(bytes.data + 70, 's');
    size_t offset = (size_t)cases_number(bytes.data + 108, 'f'), voxels = grid_voxels(&grid);
    size_t size = type == 4 ? 2 : type == 2 ? 1 : 0;
    struct volume *volume = size && bytes.size >= offset + size * voxels ? volume_new(&grid, NULL) : NULL;
    for (size_t n = 0; volume && n < voxels; n++)
        volume->hu[n] = size == 2 ? (int16_t)cases_number(bytes.data + offset + 2 * n, 's') : bytes.data[offset + n];
    return volume;
}

struct cases_slice {
    int rows, columns, representation;
    double position[3], spacing[2], slope, intercept;
    uint8_t *pixels; /* owned, rows * columns of 16 bits */
};

static inline uint32_t cases_u32(const uint8_t *at, int size) {
    uint32_t value = 0;
    for (int n = size - 1; n >= 0; n--)
        value = value << 8 | at[n];
    return value;
}

static inline void cases_element(struct cases_slice *slice, uint32_t tag, const uint8_t *value, uint32_t size) {
    char text[128] = {0};
    memcpy(text, value, size < sizeof text - 1 ? size : sizeof text - 1);
    switch (tag) {
    case 0x00280010: slice->rows = (int)cases_u32(value, 2); break;
    case 0x00280011: slice->columns = (int)cases_u32(value, 2); break;
    case 0x00280103: slice->representation = (int)cases_u32(value, 2); break;
    case 0x00281052: slice->intercept = strtod(text, NULL); break;
    case 0x00281053: slice->slope = strtod(text, NULL); break;
    case 0x00280030: sscanf(text, "%lf\\%lf", &slice->spacing[1], &slice->spacing[0]); break;
    case 0x00200032:
        sscanf(text, "%lf\\%lf\\%lf", &slice->position[0], &slice->position[1], &slice->position[2]);
        break;
    case 0x7FE00010:
        slice->pixels = malloc(size);
        memcpy(slice->pixels, value, size);
        break;
    default: break;
    }
}

/* Data set level only: what a sequence holds is passed over. */
static inline bool cases_dicom_slice(const char *path, struct cases_slice *slice) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    if (!bytes_read_file(path, 1 << 24, &file, NULL))
        return false;
    *slice = (struct cases_slice){.slope = 1};
    int depth = 0;
    for (size_t at = 132; at + 12 <= file.size;) {
        const uint8_t *e = file.data + at;
        uint32_t tag = cases_u32(e, 2) << 16 | cases_u32(e + 2, 2);
        bool item = tag >> 16 == 0xFFFE,
             wide = !item && strstr("OB OW OF SQ UT UN UC UR", (char[]){(char)e[4], (char)e[5], 0});
        uint32_t size = item ? cases_u32(e + 4, 4) : wide ? cases_u32(e + 8, 4) : cases_u32(e + 6, 2);
        at += wide ? 12 : 8;
        if (item || size == UINT32_MAX) {
            depth += size == UINT32_MAX ? 1 : tag == 0xFFFEE00D || tag == 0xFFFEE0DD ? -1 : 0;
            continue;
        }
        if (at + size > file.size)
            return false;
        if (depth == 0)
            cases_element(slice, tag, file.data + at, size);
        at += size;
    }
    return slice->pixels != NULL;
}

static inline int cases_by_z(const void *a, const void *b) {
    double x = ((const struct cases_slice *)a)->position[2], y = ((const struct cases_slice *)b)->position[2];
    return (x > y) - (x < y);
}

static inline struct volume *cases_assemble(const struct cases_slice *slices, int count) {
    const struct cases_slice *first = slices;
    double step = (slices[count - 1].position[2] - first->position[2]) / (count - 1);
    struct grid grid = {.size_ijk = {first->columns, first->rows, count},
                        .spacing_mm = {first->spacing[0], first->spacing[1], step}};
    for (int axis = 0; axis < 3; axis++) {
        grid.ijk_to_lps_mm[axis][axis] = grid.spacing_mm[axis];
        grid.ijk_to_lps_mm[axis][3] = first->position[axis];
    }
    struct volume *volume = volume_new(&grid, NULL);
    size_t plane = (size_t)first->columns * (size_t)first->rows;
    for (size_t n = 0; volume && n < plane * (size_t)count; n++) {
        const struct cases_slice *slice = &slices[n / plane];
        uint32_t stored = cases_u32(slice->pixels + 2 * (n % plane), 2);
        double value = slice->representation ? (int16_t)stored : (double)stored;
        volume->hu[n] = (int16_t)fmin(fmax(round(value * slice->slope + slice->intercept), -1024), INT16_MAX);
    }
    return volume;
}

#define CASES_SLICES_MAX 256
static inline struct volume *cases_dicom(const char *folder) {
    static struct cases_slice slices[CASES_SLICES_MAX];
    int count = 0;
    DIR *listing = opendir(folder);
    for (struct dirent *entry; listing && (entry = readdir(listing)) && count < CASES_SLICES_MAX;) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        const char *ending = strrchr(entry->d_name, '.');
        if (ending && strcmp(ending, ".dcm") == 0 && cases_dicom_slice(path, &slices[count]))
            count++;
    }
    if (listing)
        closedir(listing);
    qsort(slices, (size_t)count, sizeof *slices, cases_by_z);
    struct volume *volume = count > 1 ? cases_assemble(slices, count) : NULL;
    for (int n = 0; n < count; n++)
        free(slices[n].pixels);
    return volume;
}

#endif
