/* Signed distances (mm, negative inside) to the shapes a chest is made of, and how they blend. Private to phantom/. */
#ifndef PULMO_PHANTOM_SHAPE_H
#define PULMO_PHANTOM_SHAPE_H

#include <math.h>

struct vec {
    float x, y, z;
};
static inline struct vec vec_add(struct vec a, struct vec b) {
    return (struct vec){a.x + b.x, a.y + b.y, a.z + b.z};
}
static inline struct vec vec_sub(struct vec a, struct vec b) {
    return (struct vec){a.x - b.x, a.y - b.y, a.z - b.z};
}
static inline struct vec vec_scale(struct vec a, float factor) {
    return (struct vec){a.x * factor, a.y * factor, a.z * factor};
}
static inline float vec_dot(struct vec a, struct vec b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}
static inline float vec_length(struct vec a) {
    return sqrtf(vec_dot(a, a));
}
static inline struct vec vec_mix(struct vec a, struct vec b, float t) {
    return vec_add(vec_scale(a, 1 - t), vec_scale(b, t));
}
/* A unit vector; x where a has no direction. */
static inline struct vec vec_unit(struct vec a) {
    float length = vec_length(a);
    return length > 1e-6F ? vec_scale(a, 1 / length) : (struct vec){1, 0, 0};
}

/* fmaxf and fminf are calls, for the sake of NaN: there is none here. */
static inline float larger(float a, float b) {
    return a > b ? a : b;
}
static inline float smaller(float a, float b) {
    return a < b ? a : b;
}
static inline float clamp01(float value) {
    return value < 0 ? 0 : value > 1 ? 1 : value;
}
static inline float mix(float a, float b, float t) {
    return a + (b - a) * t;
}
static inline float smoothstep(float from, float to, float value) {
    float t = clamp01((value - from) / (to - from));
    return t * t * (3 - 2 * t);
}
/* Union and intersection whose seam is rounded over about `round_mm`. */
static inline float shape_join(float a, float b, float round_mm) {
    float h = larger(round_mm - fabsf(a - b), 0) / round_mm;
    return smaller(a, b) - h * h * round_mm * 0.25F;
}
static inline float shape_meet(float a, float b, float round_mm) {
    return -shape_join(-a, -b, round_mm);
}

/* A tube whose radius runs from radius_a to radius_b, with round ends. */
struct tube {
    struct vec a, b;
    float radius_a, radius_b;
};
static inline float tube_distance(const struct tube *tube, struct vec p) {
    struct vec axis = vec_sub(tube->b, tube->a), from_a = vec_sub(p, tube->a);
    float t = clamp01(vec_dot(from_a, axis) / larger(vec_dot(axis, axis), 1e-6F));
    return vec_length(vec_sub(from_a, vec_scale(axis, t))) - mix(tube->radius_a, tube->radius_b, t);
}

struct ellipsoid {
    struct vec center, radius;
};
/* First order: exact on the surface, good near it. */
static inline float ellipsoid_distance(const struct ellipsoid *shape, struct vec p) {
    struct vec d = vec_sub(p, shape->center), r = shape->radius;
    struct vec q = {d.x / r.x, d.y / r.y, d.z / r.z}, g = {q.x / r.x, q.y / r.y, q.z / r.z};
    float k0 = vec_length(q), k1 = vec_length(g);
    return k1 > 1e-6F ? k0 * (k0 - 1) / k1 : -smaller(r.x, smaller(r.y, r.z));
}

/* |x/a|^n + |y/b|^n = 1 in the plane; first order as above. */
static inline float superellipse_distance(float x, float y, float a, float b, float n) {
    float u = powf(fabsf(x) / a, n), v = powf(fabsf(y) / b, n), f = powf(u + v, 1 / n);
    if (f < 1e-4F)
        return -smaller(a, b);
    float scale = powf(f, 1 - n), gx = u / larger(fabsf(x), 1e-3F) * scale, gy = v / larger(fabsf(y), 1e-3F) * scale;
    return (f - 1) / larger(sqrtf(gx * gx + gy * gy), 1e-4F);
}

#endif
