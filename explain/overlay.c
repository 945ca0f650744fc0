/* Pictures of a map and of the CT. */
#include "explain/heat.h"
#include "explain/png.h"

#include <math.h>
#include <stdlib.h>

#define ALPHA_MAX 190.0F /* the anatomy stays visible under the hottest spot */
#define STEPS PNG_COLOURS

/* matplotlib's "inferno" (van der Walt and Smith, CC0) at ninths of its range, linear between them, without its pale
 * end: the hottest colour lies on a nodule, which a lung window shows white. */
#define PARTS 7
static const uint8_t inferno[PARTS + 1][3] = {{0x00, 0x00, 0x04}, {0x1b, 0x0c, 0x41}, {0x4a, 0x0c, 0x6b},
                                              {0x78, 0x1c, 0x6d}, {0xa5, 0x2c, 0x60}, {0xcf, 0x44, 0x46},
                                              {0xed, 0x69, 0x25}, {0xfb, 0x9b, 0x06}};

/* Colour and alpha of each of STEPS degrees of heat. Cold is transparent; alpha grows in proportion to heat. */
static void palette_make(uint8_t palette[STEPS][4]) {
    for (int step = 0; step < STEPS; step++) {
        float heat = (float)step / (STEPS - 1), at = heat * PARTS;
        int low = at < PARTS - 1 ? (int)at : PARTS - 1;
        float part = at - (float)low;
        for (int channel = 0; channel < 3; channel++)
            palette[step][channel] =
                (uint8_t)lrintf((1 - part) * (float)inferno[low][channel] + part * (float)inferno[low + 1][channel]);
        palette[step][3] = heat < EXPLAIN_COLD ? 0 : (uint8_t)lrintf(ALPHA_MAX * heat);
        for (int channel = 0; palette[step][3] == 0 && channel < 3; channel++)
            palette[step][channel] = 0; /* one value for all that is transparent: it compresses to nothing */
    }
}

bool explain_overlay_png(const struct explain_map *map, int32_t k, struct bytes *out, struct err *err) {
    const struct grid *grid = explain_map_grid(map);
    size_t pixels = (size_t)grid->size_ijk[0] * (size_t)grid->size_ijk[1];
    PULMO_SCOPED(pulmo_free_at) uint8_t *step = pulmo_alloc(pixels, 1, err);
    PULMO_SCOPED(pulmo_free_at) float *heat = pulmo_alloc(pixels, sizeof *heat, err);
    if (!step || !heat)
        return false;
    if (!explain_map_fill(map, k, heat))
        return err_set(err, ERR_INPUT, "slice %d of a map of %d slices", (int)k, (int)grid->size_ijk[2]);
    uint8_t palette[STEPS][4];
    palette_make(palette);
    for (size_t n = 0; n < pixels; n++)
        step[n] = (uint8_t)lrintf(heat[n] * (STEPS - 1));
    const struct picture picture = {grid->size_ijk[0], grid->size_ijk[1], step, (const uint8_t(*)[4])palette};
    return explain_png_encode(&picture, out, err);
}

/* The linear window of PS3.3 C.11.2.1.2.1. */
static uint8_t grey_of(double hu, double center_hu, double width_hu) {
    double value = ((hu - (center_hu - 0.5)) / (width_hu - 1) + 0.5) * 255;
    return (uint8_t)lrint(fmin(fmax(value, 0), 255));
}

bool explain_slice_png(const struct volume *source, int32_t k, double window_center_hu, double window_width_hu,
                       struct bytes *out, struct err *err) {
    const int32_t *size = source->grid.size_ijk;
    if (k < 0 || k >= size[2])
        return err_set(err, ERR_INPUT, "slice %d of a volume of %d slices", (int)k, (int)size[2]);
    if (!(window_width_hu > 1) || !isfinite(window_width_hu) || !isfinite(window_center_hu))
        return err_set(err, ERR_INPUT, "a window of %g HU around %g", window_width_hu, window_center_hu);
    size_t pixels = (size_t)size[0] * (size_t)size[1];
    PULMO_SCOPED(pulmo_free_at) uint8_t *grey = pulmo_alloc(pixels, 1, err);
    if (!grey)
        return false;
    const int16_t *hu = source->hu + pixels * (size_t)k;
    for (size_t n = 0; n < pixels; n++)
        grey[n] = grey_of(hu[n], window_center_hu, window_width_hu);
    const struct picture picture = {size[0], size[1], grey, NULL};
    return explain_png_encode(&picture, out, err);
}
