/* volume_spheres VOLUME: for each line "x y z diameter" (LPS mm) of the standard input, the diameter in mm of the
 * sphere with the volume of the mask that the engine grows there; for train/masks.py.
 *
 * A VOLUME holds its size in x, y and z as three int32, then int16 HU of voxels of 1 mm; LPS mm are its voxels. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "volume/volume.h"

#define SIDE_MAX 1024

static struct volume *volume_read(const char *path, struct err *err) {
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    int32_t size[3];
    struct grid grid = {.spacing_mm = {1, 1, 1}};
    if (!bytes_read_file(path, (size_t)1 << 31, &file, err))
        return NULL;
    size_t voxels = 1;
    memcpy(size, file.size < sizeof size ? (const uint8_t[sizeof size]){0} : file.data, sizeof size);
    for (int axis = 0; axis < 3; axis++) {
        if (size[axis] < 1 || size[axis] > SIDE_MAX)
            return err_set(err, ERR_INPUT, "%s has a side of %d", path, size[axis]), NULL;
        grid.size_ijk[axis] = size[axis];
        grid.ijk_to_lps_mm[axis][axis] = 1;
        voxels *= (size_t)size[axis];
    }
    if (file.size != sizeof size + 2 * voxels)
        return err_set(err, ERR_INPUT, "%s has another size than it says", path), NULL;
    struct volume *volume = volume_new(&grid, err);
    if (volume)
        memcpy(volume->hu, file.data + sizeof size, 2 * voxels);
    return volume;
}

int main(int count, char **arguments) {
    struct err err = {0};
    if (count != 2)
        return fprintf(stderr, "usage: volume_spheres VOLUME\n"), 2;
    PULMO_SCOPED(volume_free_at) struct volume *volume = volume_read(arguments[1], &err);
    struct finding finding = {0};
    while (volume && scanf("%lf %lf %lf %lf", &finding.center_lps_mm[0], &finding.center_lps_mm[1],
                           &finding.center_lps_mm[2], &finding.diameter_mm) == 4) {
        struct mask *mask = volume_segment_nodule(volume, &finding, &err);
        if (!mask)
            break;
        mask_free(mask);
        printf("%.4f\n", cbrt(6 * finding.volume_mm3 / M_PI));
    }
    if (err.kind)
        fprintf(stderr, "volume_spheres: %s\n", err.text);
    return err.kind ? 1 : 0;
}
