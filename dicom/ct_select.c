#include "dicom/ct.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What makes a series suitable, compared member by member, the first difference deciding. */
struct score {
    int kind;          /* 3 axial CT, 2 other CT, 1 localizer, 0 no CT */
    int covers;        /* as long as a chest */
    double spacing_mm; /* smaller is better, in steps of a quarter */
    int soft_kernel;
    size_t count;
};

static int compare_headers(const void *a, const void *b) {
    const struct ct_header *x = a, *y = b;
    const int series = strcmp(x->series_uid, y->series_uid);
    if (series != 0)
        return series;
    const int instance = strcmp(x->sop_instance_uid, y->sop_instance_uid);
    if (instance != 0)
        return instance;
    if (x->frame != y->frame)
        return x->frame < y->frame ? -1 : 1;
    return x->path_index < y->path_index ? -1 : x->path_index > y->path_index;
}

/* ---- kernels ----------------------------------------------------------------------------------------- */

/* Names of the vendors: GE and Canon use words or FC numbers, Siemens B, I, Br... with a number (60 and above sharp),
 * Philips letters. An unknown name counts as soft. */
static bool is_sharp(const char *kernel) {
    static const char *const words[] = {"LUNG", "BONE", "EDGE", "SHARP", "DETAIL"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasestr(kernel, words[i]) != NULL)
            return true;
    const char *digits = kernel;
    while (*digits != '\0' && !isdigit((unsigned char)*digits))
        digits++;
    const long number = strtol(digits, NULL, 10);
    if (strncasecmp(kernel, "FC", 2) == 0)
        return number >= 30;
    if (*digits != '\0')
        return number >= 60;
    return strcmp(kernel, "L") == 0 || strcmp(kernel, "D") == 0 || strcmp(kernel, "E") == 0 ||
           strncmp(kernel, "Y", 1) == 0;
}

/* ---- scores ------------------------------------------------------------------------------------------ */

static double normal_z(const struct ct_header *header) {
    const double *r = header->row_direction, *c = header->column_direction;
    return r[0] * c[1] - r[1] * c[0];
}

static bool is_axial(const struct ct_header *header) {
    return fabs(normal_z(header)) >= cos(CT_OBLIQUE_MAX_DEGREES * M_PI / 180);
}

static int kind_of(const struct ct_header *header) {
    if (!header->is_ct_image)
        return 0;
    if (header->is_localizer)
        return 1;
    return header->problem[0] == '\0' && is_axial(header) ? 3 : 2;
}

/* The kind that most of its instances are decides; a scout among axial slices does not. */
static struct score score_of(const struct ct_header *headers, size_t count) {
    size_t kinds[4] = {0};
    double low = INFINITY, high = -INFINITY;
    const struct ct_header *sample = headers;
    for (size_t i = 0; i < count; i++) {
        const int kind = kind_of(&headers[i]);
        kinds[kind]++;
        if (kind == 3) {
            low = fmin(low, headers[i].position_lps_mm[2]);
            high = fmax(high, headers[i].position_lps_mm[2]);
            sample = &headers[i];
        }
    }
    struct score score = {.kind = 0};
    for (int kind = 1; kind < 4; kind++)
        score.kind = kinds[kind] > 0 ? kind : score.kind;
    score.count = kinds[score.kind];
    score.spacing_mm = score.kind == 3 && score.count > 1 ? (high - low) / (double)(score.count - 1) : 1000;
    score.spacing_mm = round(score.spacing_mm * 4) / 4;
    score.covers = score.kind == 3 && high - low >= 150 && score.count >= CT_SLICES_MIN;
    score.soft_kernel = !is_sharp(sample->kernel);
    return score;
}

static bool is_better(const struct score *a, const struct score *b) {
    if (a->kind != b->kind)
        return a->kind > b->kind;
    if (a->covers != b->covers)
        return a->covers > b->covers;
    if (a->spacing_mm != b->spacing_mm)
        return a->spacing_mm < b->spacing_mm;
    if (a->soft_kernel != b->soft_kernel)
        return a->soft_kernel > b->soft_kernel;
    return a->count > b->count; /* equal: the lower UID, which came first, stays */
}

/* ---- the group --------------------------------------------------------------------------------------- */

static size_t series_length(const struct ct_header *headers, size_t count) {
    size_t length = 1;
    while (length < count && strcmp(headers[0].series_uid, headers[length].series_uid) == 0)
        length++;
    return length;
}

static size_t drop_repeats(struct ct_header *headers, size_t count) {
    size_t kept = 1;
    for (size_t i = 1; i < count; i++)
        if (headers[i].frame != headers[kept - 1].frame ||
            strcmp(headers[i].sop_instance_uid, headers[kept - 1].sop_instance_uid) != 0)
            headers[kept++] = headers[i];
    return kept;
}

static size_t drop_bystanders(struct ct_header *headers, size_t count, int kind) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        const int own = kind_of(&headers[i]);
        if (kind < 2 || own >= 2)
            headers[kept++] = headers[i];
    }
    return kept;
}

struct ct_group ct_select(struct ct_header *headers, size_t count) {
    struct ct_group best = {headers, 0};
    struct score best_score = {.kind = -1};
    qsort(headers, count, sizeof *headers, compare_headers);
    for (size_t at = 0; at < count;) {
        const size_t length = series_length(headers + at, count - at);
        const struct score score = score_of(headers + at, length);
        if (best.count == 0 || is_better(&score, &best_score)) {
            best = (struct ct_group){headers + at, length};
            best_score = score;
        }
        at += length;
    }
    best.count = drop_repeats(best.headers, best.count);
    best.count = drop_bystanders(best.headers, best.count, best_score.kind);
    return best;
}
