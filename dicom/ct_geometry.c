#include "dicom/ct.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double DIRECTION_TOLERANCE = 0.002; /* of a cosine: 0.1 degrees */
static const double SPACING_TOLERANCE = 0.01;    /* of pixel spacing, relative */
static const double GAP_MISSING = 1.5;           /* times the usual gap: a slice is missing */
static const double GAP_IRREGULAR = 0.2;         /* relative deviation that is still the same spacing */
static const double GAP_DUPLICATE = 0.1;

static double dot(const double a[3], const double b[3]) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

static void cross(const double a[3], const double b[3], double out[3]) {
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

static double degrees(double cosine) {
    return acos(fmin(1, fmax(-1, cosine))) * 180 / M_PI;
}

/* ---- what a group is made of ------------------------------------------------------------------------- */

static void check_kinds(const struct ct_group *group, struct refusals *refusals) {
    size_t images = 0, localizers = 0, problems = 0;
    const struct ct_header *first_problem = NULL;
    for (size_t i = 0; i < group->count; i++) {
        const struct ct_header *header = &group->headers[i];
        images += header->is_ct_image;
        localizers += header->is_localizer;
        problems += header->problem[0] != '\0';
        first_problem = first_problem == NULL && header->problem[0] != '\0' ? header : first_problem;
    }
    if (images == 0) {
        refusals_add(refusals, REFUSAL_NOT_CT, "no CT image among the objects (modality %s)",
                     group->headers[0].modality[0] != '\0' ? group->headers[0].modality : "unknown");
    } else if (localizers == group->count) {
        refusals_add(refusals, REFUSAL_LOCALIZER, "only %zu localizer image%s, no axial series", localizers,
                     localizers == 1 ? "" : "s");
    } else if (first_problem != NULL) {
        refusals_add(refusals, REFUSAL_UNREADABLE, "%zu of %zu slices cannot be used: %s", problems, group->count,
                     first_problem->problem);
    }
}

static bool same_direction(const double a[3], const double b[3]) {
    return fabs(a[0] - b[0]) < DIRECTION_TOLERANCE && fabs(a[1] - b[1]) < DIRECTION_TOLERANCE &&
           fabs(a[2] - b[2]) < DIRECTION_TOLERANCE;
}

static bool same_spacing(const double a[2], const double b[2]) {
    return fabs(a[0] - b[0]) <= SPACING_TOLERANCE * a[0] && fabs(a[1] - b[1]) <= SPACING_TOLERANCE * a[1];
}

static const char *difference(const struct ct_header *a, const struct ct_header *b) {
    if (a->format.rows != b->format.rows || a->format.columns != b->format.columns)
        return "different rows or columns";
    if (!same_direction(a->row_direction, b->row_direction) ||
        !same_direction(a->column_direction, b->column_direction))
        return "different orientations";
    if (!same_spacing(a->spacing_ij_mm, b->spacing_ij_mm))
        return "different pixel spacings";
    return strcmp(a->frame_of_reference_uid, b->frame_of_reference_uid) == 0 ? NULL : "different frames of reference";
}

static void check_alike(const struct ct_group *group, struct refusals *refusals) {
    size_t others = 0;
    const char *first = NULL;
    for (size_t i = 1; i < group->count; i++) {
        const char *what = difference(&group->headers[0], &group->headers[i]);
        others += what != NULL;
        first = first == NULL ? what : first;
    }
    if (first != NULL) {
        refusals_add(refusals, REFUSAL_MIXED_GEOMETRY, "%s: %zu of %zu slices do not fit the first", first, others,
                     group->count);
    }
}

static void check_axial(const double normal[3], struct refusals *refusals) {
    const double angle = degrees(fabs(normal[2]));
    if (angle > CT_OBLIQUE_MAX_DEGREES) {
        refusals_add(refusals, REFUSAL_NOT_AXIAL, "the slices are %.0f degrees off axial (%.0f are accepted)", angle,
                     CT_OBLIQUE_MAX_DEGREES);
    }
}

/* ---- positions --------------------------------------------------------------------------------------- */

static int compare_along(const void *a, const void *b) {
    const struct ct_header *x = a, *y = b;
    if (x->along_mm != y->along_mm)
        return x->along_mm < y->along_mm ? -1 : 1;
    const int instance = strcmp(x->sop_instance_uid, y->sop_instance_uid);
    return instance != 0 ? instance : (x->frame > y->frame) - (x->frame < y->frame);
}

static void sort_along(struct ct_group *group, const double normal[3]) {
    for (size_t i = 0; i < group->count; i++)
        group->headers[i].along_mm = dot(group->headers[i].position_lps_mm, normal);
    qsort(group->headers, group->count, sizeof *group->headers, compare_along);
}

static double gap_after(const struct ct_group *group, size_t index) {
    return group->headers[index + 1].along_mm - group->headers[index].along_mm;
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The median of the gaps that are not repeats of a position; 0 when there is none. */
static double usual_gap(const struct ct_group *group) {
    double *gaps = calloc(group->count, sizeof *gaps);
    size_t count = 0;
    for (size_t i = 0; gaps != NULL && i + 1 < group->count; i++)
        if (gap_after(group, i) > GAP_DUPLICATE)
            gaps[count++] = gap_after(group, i);
    if (count > 0)
        qsort(gaps, count, sizeof *gaps, compare_doubles);
    const double median = count > 0 ? gaps[count / 2] : 0;
    free(gaps);
    return median;
}

static void check_missing(const struct ct_group *group, double usual, struct refusals *refusals) {
    double missing = 0;
    size_t places = 0;
    const double *from = NULL, *to = NULL;
    for (size_t i = 0; i + 1 < group->count; i++) {
        const double gap = gap_after(group, i);
        if (gap > GAP_MISSING * usual) {
            places++;
            missing += round(gap / usual) - 1;
            from = from == NULL ? group->headers[i].position_lps_mm : from;
            to = group->headers[i + 1].position_lps_mm;
        }
    }
    if (from != NULL) {
        missing = fmax(missing, 1);
        refusals_add(refusals, REFUSAL_MISSING_SLICES,
                     "%.0f slice%s missing at %zu place%s between z = %.1f and %.1f mm", missing,
                     missing == 1 ? " is" : "s are", places, places == 1 ? "" : "s", fmin(from[2], to[2]),
                     fmax(from[2], to[2]));
    }
}

static void check_gaps(const struct ct_group *group, double usual, struct refusals *refusals) {
    size_t duplicates = 0, irregular = 0;
    double low = usual, high = usual;
    for (size_t i = 0; i + 1 < group->count; i++) {
        const double gap = gap_after(group, i);
        duplicates += gap <= GAP_DUPLICATE;
        if (gap > GAP_DUPLICATE && gap <= GAP_MISSING * usual) {
            irregular += fabs(gap - usual) > GAP_IRREGULAR * usual;
            low = fmin(low, gap);
            high = fmax(high, gap);
        }
    }
    if (duplicates > 0)
        refusals_add(refusals, REFUSAL_DUPLICATE_POSITIONS, "%zu slices lie where another one lies", duplicates);
    check_missing(group, usual, refusals);
    if (irregular > 0)
        refusals_add(refusals, REFUSAL_MIXED_GEOMETRY, "the slice spacing varies from %.2f to %.2f mm", low, high);
    if (usual > CT_SPACING_MAX_MM) {
        refusals_add(refusals, REFUSAL_TOO_THICK, "slices are %.1f mm apart (%.1f are accepted)", usual,
                     CT_SPACING_MAX_MM);
    }
}

static void step_of(const struct ct_group *group, double step[3]) {
    const double *first = group->headers[0].position_lps_mm, *last = group->headers[group->count - 1].position_lps_mm;
    for (size_t i = 0; i < 3; i++)
        step[i] = (last[i] - first[i]) / (double)(group->count - 1);
}

/* A tilted gantry moves the slices within their planes: a sheared volume, which no step after this one expects. */
static void check_tilt(const struct ct_group *group, const double normal[3], struct refusals *refusals) {
    double step[3];
    step_of(group, step);
    const double length = sqrt(dot(step, step));
    const double tilt = length > 0 ? degrees(fabs(dot(step, normal)) / length) : 0;
    if (tilt > CT_TILT_MAX_DEGREES)
        refusals_add(refusals, REFUSAL_MIXED_GEOMETRY, "the stack is sheared by %.1f degrees (gantry tilt)", tilt);
}

static void fill_grid(const struct ct_group *group, const double normal[3], struct grid *grid) {
    const struct ct_header *first = &group->headers[0];
    double step[3];
    step_of(group, step);
    grid->size_ijk[0] = (int32_t)first->format.columns;
    grid->size_ijk[1] = (int32_t)first->format.rows;
    grid->size_ijk[2] = (int32_t)group->count;
    grid->spacing_mm[0] = first->spacing_ij_mm[0];
    grid->spacing_mm[1] = first->spacing_ij_mm[1];
    grid->spacing_mm[2] = dot(step, normal);
    for (size_t axis = 0; axis < 3; axis++) {
        grid->ijk_to_lps_mm[axis][0] = first->row_direction[axis] * grid->spacing_mm[0];
        grid->ijk_to_lps_mm[axis][1] = first->column_direction[axis] * grid->spacing_mm[1];
        grid->ijk_to_lps_mm[axis][2] = step[axis];
        grid->ijk_to_lps_mm[axis][3] = first->position_lps_mm[axis];
    }
}

void ct_geometry(struct ct_group *group, struct grid *grid, struct refusals *refusals) {
    check_kinds(group, refusals);
    if (refusals->count > 0)
        return;
    check_alike(group, refusals);
    double normal[3];
    cross(group->headers[0].row_direction, group->headers[0].column_direction, normal);
    check_axial(normal, refusals);
    sort_along(group, normal);
    if (group->count < CT_SLICES_MIN)
        refusals_add(refusals, REFUSAL_TOO_FEW_SLICES, "%zu slices (%d are the least)", group->count, CT_SLICES_MIN);
    if (refusals->count == 0) {
        check_gaps(group, usual_gap(group), refusals);
        check_tilt(group, normal, refusals);
    }
    if (refusals->count == 0)
        fill_grid(group, normal, grid);
}
