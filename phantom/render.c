#include "phantom/render.h"

#include "phantom/draw.h"

#include <stdlib.h>
#include <string.h>

#define STEP 4 /* pixels between the nodes where the smooth fields are evaluated */
#define NODES (RENDER_SIDE / STEP + 1)
#define PLANE ((size_t)RENDER_SIDE * RENDER_SIDE)
#define PLANE_PITCH_MM 2.0F /* between the planes where they are: smooth along z too */
#define SUB_SLICES_MAX 6
#define SUB_SLICE_MM 0.9F /* a slice is the mean of planes this far apart: partial volume along z */

#define HEART_TOP_MM 132.0F
#define HU_AIR (-1000.0F)
#define HU_FAT (-102.0F)
#define HU_SKIN 15.0F
#define HU_MUSCLE 52.0F
#define HU_CORTEX 780.0F
#define HU_MARROW 210.0F
#define HU_CARTILAGE 88.0F
#define HU_BLOOD 42.0F
#define HU_ORGAN 58.0F
#define HU_NODULE 34.0F
#define HU_WALL 10.0F

struct renderer {
    const struct scene *scene;
    float planes[2][NODES * NODES][FIELD_COUNT]; /* fields at two neighbouring planes of the lattice in z */
    int64_t plane_index[2];
    float fields[NODES * NODES][FIELD_COUNT]; /* and between them */
    float texture[2][NODES * NODES];          /* coarse mottle of parenchyma, of soft tissue */
    float row[NODES][FIELD_COUNT];            /* fields along one pixel row */
    float sum[PLANE], vessel[PLANE], wall[PLANE], lumen[PLANE], nodule[PLANE];
    float scratch[3 * PLANE];
};

struct renderer *renderer_new(const struct scene *scene, struct err *err) {
    struct renderer *renderer = pulmo_alloc(1, sizeof *renderer, err);
    if (renderer) {
        renderer->scene = scene;
        renderer->plane_index[0] = renderer->plane_index[1] = INT64_MIN;
    }
    return renderer;
}

void renderer_free_at(struct renderer **renderer) {
    free(*renderer);
    *renderer = NULL;
}

/* Fraction of a pixel on the inner side of a surface. */
static inline float cover(float distance, float inverse_pixel) {
    return clamp01(0.5F - distance * inverse_pixel);
}

static float node_mm(const struct scene *scene, int node) {
    return scene_x(scene, (float)(node * STEP));
}

/* The fields of one lattice plane, from the cache of two where it was the neighbour of the last slice. */
static const float (*plane_of(struct renderer *renderer, int64_t index))[FIELD_COUNT] {
    size_t slot = (size_t)(index & 1);
    float(*plane)[FIELD_COUNT] = renderer->planes[slot];
    if (renderer->plane_index[slot] == index)
        return (const float(*)[FIELD_COUNT])plane;
    for (int row = 0; row < NODES; row++)
        for (int column = 0; column < NODES; column++) {
            struct vec p = {node_mm(renderer->scene, column), node_mm(renderer->scene, row),
                            (float)index * PLANE_PITCH_MM};
            anatomy_fields(renderer->scene->anatomy, p, plane[row * NODES + column]);
        }
    renderer->plane_index[slot] = index;
    return (const float(*)[FIELD_COUNT])plane;
}

static void evaluate_fields(struct renderer *renderer, float z_mm) {
    float level = z_mm / PLANE_PITCH_MM, below = floorf(level), t = level - below;
    const float(*low)[FIELD_COUNT] = plane_of(renderer, (int64_t)below);
    const float(*high)[FIELD_COUNT] = plane_of(renderer, (int64_t)below + 1);
    for (size_t node = 0; node < NODES * NODES; node++)
        for (int field = 0; field < FIELD_COUNT; field++)
            renderer->fields[node][field] = mix(low[node][field], high[node][field], t);
}

/* Mottle that changes gradually from slice to slice: sums of hashed values two lattice planes apart. */
static void evaluate_texture(struct renderer *renderer, float z_mm) {
    float level = z_mm / 3.5F, below = floorf(level), t = level - below;
    struct draw low = draw_new(renderer->scene->seed, DRAW_TEXTURE, (uint32_t)(int32_t)below);
    struct draw high = draw_new(renderer->scene->seed, DRAW_TEXTURE, (uint32_t)(int32_t)(below + 1));
    for (size_t n = 0; n < NODES * NODES; n++) {
        uint32_t a[4], b[4];
        draw_four(&low, a);
        draw_four(&high, b);
        for (int kind = 0; kind < 2; kind++)
            renderer->texture[kind][n] = mix(random_uniform(a[kind]), random_uniform(b[kind]), t) * 2 - 1;
    }
}

/* The couch: two thin carbon skins, foam between. */
static float table_hu(float x, float y) {
    float top = y - (121 - x * x / 1700), bottom = y - 148;
    if (top < 0 || bottom > 1.4F)
        return HU_AIR;
    return top < 1.4F || bottom > 0 ? -480 : -955;
}

/* The oblique fissure of each lung and the horizontal one of the right: double layers of pleura, thinner than a pixel.
 */
static float fissure_hu(struct vec p) {
    float side = p.x / 90, bend = 9 * side * side;
    float oblique = p.y - (60 - 0.79F * (200 - p.z) + bend);
    float nearest = fabsf(oblique) * 0.785F;
    if (p.x < 0 && oblique < 0)
        nearest = smaller(nearest, fabsf(p.z - 136 - bend));
    return nearest < 2 ? 95 * expf(-nearest * nearest / 0.5F) : 0;
}

/* Healthy parenchyma of a supine patient: denser where blood pools. */
static float parenchyma_hu(struct vec p, float texture) {
    return -872 + 0.42F * p.y + 13 * texture + fissure_hu(p);
}

static float soft_tissue_hu(const float *f, float inverse_pixel, float texture) {
    float hu = mix(HU_FAT, HU_SKIN, cover(-f[FIELD_BODY] - 1.6F, inverse_pixel));
    float muscle = HU_MUSCLE + 9 * texture;
    /* Fat in the plane between the muscles of the thorax and those that lie on it. */
    float plane = clamp01(1 - fabsf(f[FIELD_CAVITY] - 12.5F) * 0.8F) * (0.55F + 0.45F * texture);
    hu = mix(hu, mix(muscle, HU_FAT, 0.8F * clamp01(plane)), cover(f[FIELD_MUSCLE], inverse_pixel));
    hu = mix(hu, HU_FAT + 8 * texture, cover(f[FIELD_CAVITY] - 0.8F, inverse_pixel)); /* subpleural, mediastinal */
    hu = mix(hu, HU_ORGAN + 4 * texture, cover(f[FIELD_ORGAN], inverse_pixel));
    return mix(hu, HU_BLOOD + 3 * texture, cover(f[FIELD_BLOOD], inverse_pixel));
}

static float bone_hu(const float *f, float texture) {
    float depth = smoothstep(1.0F, 2.6F, -f[FIELD_BONE]);
    return mix(HU_CORTEX, HU_MARROW + 60 * texture, depth);
}

static float tissue_hu(const struct renderer *renderer, const float *f, struct vec p, const float texture[2],
                       size_t n) {
    const struct scene *scene = renderer->scene;
    float inverse_pixel = 1 / scene->pixel_mm;
    float hu = soft_tissue_hu(f, inverse_pixel, texture[1]);
    if (f[FIELD_CARTILAGE] < 1)
        hu = mix(hu, HU_CARTILAGE + 10 * texture[1], cover(f[FIELD_CARTILAGE], inverse_pixel));
    if (f[FIELD_BONE] < 1)
        hu = mix(hu, bone_hu(f, texture[1]), cover(f[FIELD_BONE], inverse_pixel));
    if (f[FIELD_LUNG] < 1)
        hu = mix(hu, parenchyma_hu(p, texture[0]), cover(f[FIELD_LUNG], inverse_pixel));
    if (f[FIELD_CAVITY] > 2 && p.z < scene->anatomy->apex_mm) /* above, the trachea goes on into the neck */
        return hu;
    hu = mix(hu, HU_BLOOD, renderer->vessel[n]);
    hu = mix(hu, HU_NODULE, renderer->nodule[n]);
    /* Bronchi pass around the heart; higher up the great vessels lie against the trachea. */
    float outside_heart = p.z > HEART_TOP_MM ? 1 : clamp01(f[FIELD_BLOOD]);
    hu = mix(hu, HU_WALL, renderer->wall[n] * outside_heart);
    return mix(hu, HU_AIR, renderer->lumen[n] * outside_heart);
}

static void mix_row(struct renderer *renderer, int j) {
    int node = j / STEP;
    float t = (float)(j % STEP) / STEP;
    float(*above)[FIELD_COUNT] = &renderer->fields[node * NODES], (*below)[FIELD_COUNT] = above + NODES;
    for (int column = 0; column < NODES; column++)
        for (int field = 0; field < FIELD_COUNT; field++)
            renderer->row[column][field] = mix(above[column][field], below[column][field], t);
}

static float texture_at(const float *texture, int i, int j) {
    const float *node = texture + (j / STEP) * NODES + i / STEP;
    float u = (float)(i % STEP) / STEP, v = (float)(j % STEP) / STEP;
    return mix(mix(node[0], node[1], u), mix(node[NODES], node[NODES + 1], u), v);
}

static float pixel_hu(const struct renderer *renderer, int i, int j, struct vec p) {
    const float *left = renderer->row[i / STEP], *right = renderer->row[i / STEP + 1];
    float t = (float)(i % STEP) / STEP;
    float body = mix(left[FIELD_BODY], right[FIELD_BODY], t);
    if (body > 1)
        return table_hu(p.x, p.y);
    float f[FIELD_COUNT];
    for (int field = 0; field < FIELD_COUNT; field++)
        f[field] = mix(left[field], right[field], t);
    float texture[2] = {texture_at(renderer->texture[0], i, j), texture_at(renderer->texture[1], i, j)};
    float hu = tissue_hu(renderer, f, p, texture, (size_t)j * RENDER_SIDE + (size_t)i);
    return mix(HU_AIR, hu, cover(body, 1 / renderer->scene->pixel_mm));
}

static void add_plane(struct renderer *renderer, float z_mm, float weight) {
    const struct scene *scene = renderer->scene;
    evaluate_fields(renderer, z_mm);
    memset(renderer->vessel, 0, sizeof renderer->vessel);
    memset(renderer->wall, 0, sizeof renderer->wall);
    memset(renderer->lumen, 0, sizeof renderer->lumen);
    memset(renderer->nodule, 0, sizeof renderer->nodule);
    raster_tubes(&scene->trees->vessels, scene, z_mm, false, renderer->vessel);
    raster_tubes(&scene->trees->airways, scene, z_mm, true, renderer->wall);
    raster_tubes(&scene->trees->airways, scene, z_mm, false, renderer->lumen);
    raster_nodules(scene, z_mm, renderer->nodule);
    for (int j = 0; j < RENDER_SIDE; j++) {
        mix_row(renderer, j);
        for (int i = 0; i < RENDER_SIDE; i++) {
            struct vec p = {scene_x(scene, (float)i), scene_x(scene, (float)j), z_mm};
            renderer->sum[j * RENDER_SIDE + i] += weight * pixel_hu(renderer, i, j, p);
        }
    }
}

/* The scanner's blur in the plane: [1 2 1] / 4 along rows and columns. */
static void blur(struct renderer *renderer) {
    float *out = renderer->scratch;
    for (int j = 0; j < RENDER_SIDE; j++)
        for (int i = 0; i < RENDER_SIDE; i++) {
            const float *row = renderer->sum + j * RENDER_SIDE;
            int left = i > 0 ? i - 1 : 0, right = i < RENDER_SIDE - 1 ? i + 1 : i;
            out[j * RENDER_SIDE + i] = 0.2F * row[left] + 0.6F * row[i] + 0.2F * row[right];
        }
    for (int j = 0; j < RENDER_SIDE; j++) {
        const float *row = out + j * RENDER_SIDE, *above = j > 0 ? row - RENDER_SIDE : row;
        const float *below = j < RENDER_SIDE - 1 ? row + RENDER_SIDE : row;
        for (int i = 0; i < RENDER_SIDE; i++)
            renderer->sum[j * RENDER_SIDE + i] = 0.2F * above[i] + 0.6F * row[i] + 0.2F * below[i];
    }
}

void renderer_slice(struct renderer *renderer, float z_mm, uint32_t index, int16_t *hu) {
    const struct scene *scene = renderer->scene;
    int planes = (int)smaller(larger(ceilf(scene->spacing_mm / SUB_SLICE_MM), 1), SUB_SLICES_MAX);
    memset(renderer->sum, 0, sizeof renderer->sum);
    evaluate_texture(renderer, z_mm);
    for (int plane = 0; plane < planes; plane++) {
        float offset = ((float)plane + 0.5F) / (float)planes - 0.5F;
        add_plane(renderer, z_mm + offset * scene->spacing_mm, 1 / (float)planes);
    }
    blur(renderer);
    noise_add(scene, index, renderer->sum, renderer->scratch);
    for (size_t n = 0; n < PLANE; n++)
        hu[n] = (int16_t)((int)(smaller(larger(renderer->sum[n], -1024), 3071) + 1024.5F) - 1024);
}
