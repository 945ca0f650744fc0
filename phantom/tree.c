/* Grows each tree as Tawhai et al. (J Appl Physiol 97, 2004) grow airways: points spread through the lung are split in
 * two at every bifurcation, and each daughter runs part of the way to the middle of its half. Radii follow Murray's law
 * with the exponent measured in lungs: r ~ n^0.4 of the points fed. */
#include "phantom/tree.h"

#include "phantom/draw.h"

#include <stdlib.h>

#define POINTS_PER_LUNG 1500
#define PLEURA_MM 3.0F         /* vessels end before they can be seen at the pleura */
#define PIECES 4               /* tubes a branch: it bends */
#define TUBES_MAX (1 << 18)    /* four trees have some 50,000 */
#define AIRWAY_LUMEN_MIN 1.15F /* thinner airways cannot be told from parenchyma */

struct growth {
    const struct anatomy *anatomy;
    struct vec *points; /* reordered in place by the splits */
    size_t count;
    float root_radius;
    struct draw draw;
    struct tubes *vessels, *airways; /* airways NULL: none beside this tree */
};
struct branch {
    struct vec from, direction;
    float radius;
    struct vec airway_from;
    size_t first, last; /* points fed: [first, last) */
};

static bool tubes_add(struct tubes *tubes, struct tube tube, struct err *err) {
    if (tubes->count == tubes->capacity) {
        size_t capacity = tubes->capacity ? 2 * tubes->capacity : 1024;
        if (capacity > TUBES_MAX)
            return err_set(err, ERR_LIMIT, "the phantom has more than %d tubes", TUBES_MAX);
        struct tube *grown = realloc(tubes->items, capacity * sizeof *grown);
        if (!grown)
            return err_set(err, ERR_MEMORY, "out of memory for the phantom's vessels");
        tubes->items = grown;
        tubes->capacity = capacity;
    }
    tubes->items[tubes->count++] = tube;
    return true;
}

static float radius_of(const struct growth *growth, size_t fed) {
    return larger(growth->root_radius * powf((float)fed / (float)growth->count, 0.4F), 0.42F);
}

static struct vec center_of(const struct growth *growth, size_t first, size_t last) {
    struct vec sum = {0, 0, 0};
    for (size_t index = first; index < last; index++)
        sum = vec_add(sum, growth->points[index]);
    return vec_scale(sum, 1 / (float)(last - first));
}

/* Across the branch, the direction in which its points spread most: three steps of the power method. */
static struct vec widest_across(const struct growth *growth, const struct branch *branch, struct vec center) {
    struct vec axis = vec_unit((struct vec){branch->direction.y + 0.3F, branch->direction.z, branch->direction.x});
    for (int step = 0; step < 3; step++) {
        struct vec sum = {0, 0, 0};
        for (size_t index = branch->first; index < branch->last; index++) {
            struct vec d = vec_sub(growth->points[index], center);
            d = vec_sub(d, vec_scale(branch->direction, vec_dot(d, branch->direction)));
            sum = vec_add(sum, vec_scale(d, vec_dot(d, axis)));
        }
        axis = vec_unit(sum);
    }
    return axis;
}

/* Partitions the branch's points at a plane near their middle; both sides keep at least one. */
static size_t split(struct growth *growth, const struct branch *branch, struct vec center) {
    struct vec axis = widest_across(growth, branch, center);
    float at = vec_dot(center, axis) + draw_between(&growth->draw, -2.5F, 2.5F);
    size_t low = branch->first, high = branch->last;
    while (low < high) {
        if (vec_dot(growth->points[low], axis) < at) {
            low++;
            continue;
        }
        struct vec swapped = growth->points[low];
        growth->points[low] = growth->points[--high];
        growth->points[high] = swapped;
    }
    if (low == branch->first || low == branch->last)
        low = branch->first + (branch->last - branch->first) / 2;
    return low;
}

static bool add_curve(struct tubes *tubes, struct vec from, struct vec bend, const struct tube *end, struct err *err) {
    struct vec before = from;
    float radius_before = end->radius_a;
    for (int piece = 1; piece <= PIECES; piece++) {
        float t = (float)piece / PIECES;
        struct vec here = vec_mix(vec_mix(from, bend, t), vec_mix(bend, end->b, t), t);
        float radius = mix(end->radius_a, end->radius_b, t);
        if (!tubes_add(tubes, (struct tube){before, here, radius_before, radius}, err))
            return false;
        before = here;
        radius_before = radius;
    }
    return true;
}

/* The airway lies behind and medial of its artery, almost touching it. */
static struct vec beside(struct vec at, struct vec direction, float radius) {
    struct vec side = {at.x > 0 ? -0.5F : 0.5F, 0.8F, 0.3F};
    side = vec_unit(vec_sub(side, vec_scale(direction, 0.8F * vec_dot(side, direction))));
    return vec_add(at, vec_scale(side, 2.0F * radius + 0.9F));
}

static bool add_airway(struct growth *growth, struct branch *branch, struct vec to, float radius, struct err *err) {
    float lumen_from = 0.92F * branch->radius, lumen_to = 0.92F * radius;
    struct vec end = beside(to, branch->direction, radius);
    struct tube tube = {branch->airway_from, end, lumen_from, lumen_to};
    struct vec bend = vec_mix(branch->airway_from, end, 0.5F);
    branch->airway_from = end;
    if (!growth->airways || lumen_to < AIRWAY_LUMEN_MIN)
        return true;
    return add_curve(growth->airways, tube.a, bend, &tube, err);
}

/* One branch and all it feeds. Depth is bounded by the points, about 2 log2 of them in practice. */
static bool grow(struct growth *growth, struct branch branch, struct err *err) {
    size_t fed = branch.last - branch.first;
    struct vec center = center_of(growth, branch.first, branch.last), to_center = vec_sub(center, branch.from);
    float share = fed == 1 ? 1.0F : 0.42F;
    struct vec to = vec_add(branch.from, vec_scale(to_center, share));
    float length = vec_length(to_center) * share, end_radius = radius_of(growth, fed) * (fed == 1 ? 0.7F : 0.96F);
    end_radius = smaller(end_radius, branch.radius);
    struct vec bend = vec_add(branch.from, vec_scale(branch.direction, 0.4F * length));
    struct tube tube = {branch.from, to, branch.radius, end_radius};
    struct vec direction = vec_unit(vec_sub(to, bend));
    branch.direction = direction;
    if (!add_curve(growth->vessels, branch.from, bend, &tube, err) || !add_airway(growth, &branch, to, end_radius, err))
        return false;
    if (fed == 1)
        return true;
    size_t middle = split(growth, &branch, center_of(growth, branch.first, branch.last));
    struct branch low = {to, direction, end_radius, branch.airway_from, branch.first, middle};
    struct branch high = {to, direction, end_radius, branch.airway_from, middle, branch.last};
    low.radius = smaller(end_radius, radius_of(growth, middle - branch.first) * 1.04F);
    high.radius = smaller(end_radius, radius_of(growth, branch.last - middle) * 1.04F);
    return grow(growth, low, err) && grow(growth, high, err);
}

static size_t sow(struct growth *growth, int side) {
    size_t sown = 0;
    for (int attempt = 0; attempt < 400000 && sown < POINTS_PER_LUNG; attempt++) {
        uint32_t bits[4];
        draw_four(&growth->draw, bits);
        struct vec at = {(float)side * random_uniform(bits[0]) * 135, random_uniform(bits[1]) * 190 - 95,
                         random_uniform(bits[2]) * 275 - 10};
        if (anatomy_lung(growth->anatomy, at) < -PLEURA_MM)
            growth->points[sown++] = at;
    }
    return sown;
}

struct root {
    int side; /* -1 right, 1 left */
    struct vec at, airway_at, direction;
    float radius;
    bool airways;
};

static bool grow_root(const struct anatomy *anatomy, uint64_t seed, uint32_t index, const struct root *root,
                      struct trees *out, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct vec *points = pulmo_alloc(POINTS_PER_LUNG, sizeof *points, err);
    if (!points)
        return false;
    struct growth growth = {.anatomy = anatomy,
                            .points = points,
                            .root_radius = root->radius,
                            .draw = draw_new(seed, DRAW_TREE, index),
                            .vessels = &out->vessels,
                            .airways = root->airways ? &out->airways : NULL};
    growth.count = sow(&growth, root->side);
    if (growth.count == 0)
        return err_set(err, ERR_INTERNAL, "the phantom's lung holds no point for its vessels");
    struct branch branch = {anatomy_world(anatomy, root->at),
                            root->direction,
                            root->radius,
                            anatomy_world(anatomy, root->airway_at),
                            0,
                            growth.count};
    return grow(&growth, branch, err);
}

static bool add_trachea(const struct anatomy *anatomy, struct tubes *airways, struct err *err) {
    const struct tube parts[] = {{{0, 12, 330}, {0, 12, 220}, 8.6F, 8.4F},
                                 {{0, 12, 220}, ANATOMY_CARINA, 8.4F, 8.2F},
                                 {ANATOMY_CARINA, ANATOMY_HILUM_RIGHT, 7, 5.6F},
                                 {ANATOMY_CARINA, ANATOMY_HILUM_LEFT, 6.4F, 5.4F}};
    for (size_t index = 0; index < sizeof parts / sizeof *parts; index++) {
        struct tube tube = parts[index];
        tube.a = anatomy_world(anatomy, tube.a);
        tube.b = anatomy_world(anatomy, tube.b);
        if (!tubes_add(airways, tube, err))
            return false;
    }
    return true;
}

bool trees_grow(const struct anatomy *anatomy, uint64_t seed, struct trees *out, struct err *err) {
    const struct root roots[] = {
        {-1, {-28, 6, 146}, ANATOMY_HILUM_RIGHT, {-0.9F, 0.1F, -0.3F}, 6.0F, true},
        {1, {32, 5, 150}, ANATOMY_HILUM_LEFT, {0.9F, 0.2F, -0.2F}, 5.8F, true},
        {-1, {-20, 13, 114}, ANATOMY_HILUM_RIGHT, {-1, 0.1F, 0.1F}, 4.4F, false},
        {1, {26, 14, 116}, ANATOMY_HILUM_LEFT, {1, 0.1F, 0.1F}, 4.4F, false},
    };
    struct trees trees = {0};
    bool grown = add_trachea(anatomy, &trees.airways, err);
    for (uint32_t index = 0; grown && index < sizeof roots / sizeof *roots; index++)
        grown = grow_root(anatomy, seed, index, &roots[index], &trees, err);
    if (!grown) {
        trees_free(&trees);
        return false;
    }
    *out = trees;
    return true;
}

void trees_free(struct trees *trees) {
    free(trees->vessels.items);
    free(trees->airways.items);
    *trees = (struct trees){0};
}
