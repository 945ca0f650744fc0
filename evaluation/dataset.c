#include "evaluation/dataset.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIELDS_MAX 16
#define FIELD_SIZE 128 /* a UID has 64 characters, a number fewer */
#define ROWS_MAX ((size_t)1 << 26)

/* ---- lines and fields -------------------------------------------------------------------------------- */

struct lines {
    const char *name, *text;
    size_t size, at, number; /* of the current line, from 1 */
};

struct row {
    char field[FIELDS_MAX][FIELD_SIZE];
    size_t count;
};

static struct lines lines_of(const struct bytes *bytes, const char *name) {
    struct lines lines = {.name = name, .text = (const char *)bytes->data, .size = bytes->size};
    if (lines.size >= 3 && memcmp(lines.text, "\xEF\xBB\xBF", 3) == 0) /* UTF-8 byte order mark */
        lines.at = 3;
    return lines;
}

/* The next line that is not blank, without its end; false at the end of the text. */
static bool lines_next(struct lines *lines, const char **line, size_t *length) {
    while (lines->at < lines->size) {
        const char *start = lines->text + lines->at;
        const char *end = memchr(start, '\n', lines->size - lines->at);
        *length = end ? (size_t)(end - start) : lines->size - lines->at;
        lines->at += *length + (end != NULL);
        lines->number++;
        if (*length && start[*length - 1] == '\r')
            --*length;
        *line = start;
        if (*length)
            return true;
    }
    return false;
}

static bool row_split(const struct lines *lines, const char *line, size_t length, struct row *row, struct err *err) {
    row->count = 0;
    for (size_t start = 0; start <= length;) {
        const char *comma = memchr(line + start, ',', length - start);
        size_t size = comma ? (size_t)(comma - (line + start)) : length - start;
        if (row->count == FIELDS_MAX)
            return err_set(err, ERR_INPUT, "%s line %zu: more than %d fields", lines->name, lines->number, FIELDS_MAX);
        if (size >= FIELD_SIZE || memchr(line + start, '\0', size) || memchr(line + start, '"', size))
            return err_set(err, ERR_INPUT, "%s line %zu: field %zu is too long, quoted or binary", lines->name,
                           lines->number, row->count + 1);
        memcpy(row->field[row->count], line + start, size);
        row->field[row->count++][size] = '\0';
        start += size + 1;
    }
    return true;
}

/* A finite decimal number and nothing else: strtod alone would take "nan", "0x1p3" and " 1". */
static bool row_number(const struct lines *lines, const struct row *row, size_t index, double *out, struct err *err) {
    const char *text = row->field[index];
    char *end = NULL;
    double value = strtod(text, &end);
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text) || *end || !isfinite(value))
        return err_set(err, ERR_INPUT, "%s line %zu: field %zu is no number: \"%.40s\"", lines->name, lines->number,
                       index + 1, text);
    *out = value;
    return true;
}

/* The columns that a file has beyond the five that every file begins with: optional[n] is named column n. */
struct columns {
    const char *const *optional;
    size_t optional_count;
    size_t field[FIELDS_MAX]; /* of optional column n; 0 = the file has none */
    size_t count;             /* fields of every row */
};
#define FIXED_COLUMNS 5

static bool column_add(const struct lines *lines, const char *name, struct columns *columns, struct err *err) {
    for (size_t n = 0; n < columns->optional_count; n++) {
        if (strcmp(name, columns->optional[n]) != 0)
            continue;
        if (columns->field[n])
            return err_set(err, ERR_INPUT, "%s line %zu: column \"%.40s\" twice", lines->name, lines->number, name);
        columns->field[n] = columns->count++;
        return true;
    }
    return err_set(err, ERR_INPUT, "%s line %zu: \"%.40s\" is no column that is known", lines->name, lines->number,
                   name);
}

/* Reads the header: the fixed names in order, then any of the optional ones in any order. */
static bool header_read(struct lines *lines, const char *const fixed[FIXED_COLUMNS], struct columns *columns,
                        struct err *err) {
    const char *line = NULL;
    size_t length = 0;
    struct row row;
    if (!lines_next(lines, &line, &length))
        return err_set(err, ERR_INPUT, "%s is empty, not even a header", lines->name);
    if (!row_split(lines, line, length, &row, err))
        return false;
    if (row.count < FIXED_COLUMNS)
        return err_set(err, ERR_INPUT, "%s line %zu: a header of %zu fields, expected at least %d", lines->name,
                       lines->number, row.count, FIXED_COLUMNS);
    for (size_t n = 0; n < FIXED_COLUMNS; n++)
        if (strcmp(row.field[n], fixed[n]) != 0)
            return err_set(err, ERR_INPUT, "%s line %zu: header \"%.40s\" where \"%s\" is expected", lines->name,
                           lines->number, row.field[n], fixed[n]);
    columns->count = FIXED_COLUMNS;
    for (size_t n = FIXED_COLUMNS; n < row.count; n++)
        if (!column_add(lines, row.field[n], columns, err))
            return false;
    return true;
}

/* The next row of exactly `fields` fields; *more is false at the end. */
static bool row_next(struct lines *lines, size_t fields, struct row *row, bool *more, struct err *err) {
    const char *line = NULL;
    size_t length = 0;
    *more = lines_next(lines, &line, &length);
    if (!*more)
        return true;
    if (!row_split(lines, line, length, row, err))
        return false;
    if (row->count != fields)
        return err_set(err, ERR_INPUT, "%s line %zu: %zu fields, expected %zu", lines->name, lines->number, row->count,
                       fields);
    if (!row->field[0][0])
        return err_set(err, ERR_INPUT, "%s line %zu: no series", lines->name, lines->number);
    return true;
}

/* Makes room for one more item at every power of two. */
static void *grow(void *items, size_t count, size_t size, struct err *err) {
    if (count & (count - 1))
        return items;
    if (count >= ROWS_MAX) {
        err_set(err, ERR_LIMIT, "more than %zu rows", ROWS_MAX);
        return NULL;
    }
    void *grown = realloc(items, (count ? 2 * count : 1) * size);
    if (!grown)
        err_set(err, ERR_MEMORY, "out of memory for %zu rows", 2 * count);
    return grown;
}

/* ---- the three files --------------------------------------------------------------------------------- */

static int compare_series(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool series_parse(struct lines lines, struct dataset *out, struct err *err) {
    struct row row;
    for (bool more = true;;) {
        if (!row_next(&lines, 1, &row, &more, err))
            return false;
        if (!more)
            break;
        if (out->series_count == 0 && strcmp(row.field[0], "seriesuid") == 0)
            continue; /* LUNA16's list has a header, others none */
        char **grown = grow(out->series, out->series_count, sizeof *grown, err);
        if (!grown)
            return false;
        out->series = grown;
        out->series[out->series_count] = strdup(row.field[0]);
        if (!out->series[out->series_count])
            return err_set(err, ERR_MEMORY, "out of memory for a series");
        out->series_count++;
    }
    if (!out->series_count)
        return err_set(err, ERR_INPUT, "%s lists no series", lines.name);
    qsort(out->series, out->series_count, sizeof *out->series, compare_series);
    for (size_t n = 1; n < out->series_count; n++)
        if (strcmp(out->series[n - 1], out->series[n]) == 0)
            return err_set(err, ERR_INPUT, "%s lists %s twice", lines.name, out->series[n]);
    return true;
}

static bool series_find(const struct dataset *dataset, const char *uid, size_t *scan) {
    char **found = bsearch(&uid, dataset->series, dataset->series_count, sizeof *dataset->series, compare_series);
    if (found)
        *scan = (size_t)(found - dataset->series);
    return found != NULL;
}

/* Fields 1 to 4: the place and one more number. */
static bool row_numbers(const struct lines *lines, const struct row *row, double xyz_mm[3], double *last,
                        struct err *err) {
    for (size_t n = 0; n < 3; n++)
        if (!row_number(lines, row, n + 1, &xyz_mm[n], err))
            return false;
    return row_number(lines, row, 4, last, err);
}

/* An optional number: NAN where the file has no such column or the field is empty. */
static bool optional_number(const struct lines *lines, const struct row *row, size_t field, double *out,
                            struct err *err) {
    *out = NAN;
    return !field || !row->field[field][0] || row_number(lines, row, field, out, err);
}

/* An optional texture by its name; unknown where the file has none. */
static bool optional_texture(const struct lines *lines, const struct row *row, size_t field, enum texture *out,
                             struct err *err) {
    *out = TEXTURE_UNKNOWN;
    if (!field || !row->field[field][0])
        return true;
    for (enum texture texture = TEXTURE_UNKNOWN; texture <= TEXTURE_GROUND_GLASS; texture++)
        if (strcmp(row->field[field], texture_name(texture)) == 0) {
            *out = texture;
            return true;
        }
    return err_set(err, ERR_INPUT, "%s line %zu: \"%.40s\" is no texture", lines->name, lines->number,
                   row->field[field]);
}

static bool included_read(const struct lines *lines, const struct row *row, size_t field, bool *out, struct err *err) {
    const char *text = field ? row->field[field] : "1";
    if (strcmp(text, "0") != 0 && strcmp(text, "1") != 0)
        return err_set(err, ERR_INPUT, "%s line %zu: included is \"%.40s\", not 0 or 1", lines->name, lines->number,
                       text);
    *out = text[0] == '1';
    return true;
}

static bool truth_parse(struct lines lines, struct dataset *out, struct err *err) {
    static const char *const fixed[] = {"seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"};
    static const char *const optional[] = {"included", "texture"};
    struct columns columns = {.optional = optional, .optional_count = 2};
    bool more = true;
    struct row row;
    if (!header_read(&lines, fixed, &columns, err))
        return false;
    for (;;) {
        struct truth truth = {0};
        if (!row_next(&lines, columns.count, &row, &more, err))
            return false;
        if (!more)
            return true;
        if (!row_numbers(&lines, &row, truth.xyz_mm, &truth.diameter_mm, err) ||
            !included_read(&lines, &row, columns.field[0], &truth.included, err) ||
            !optional_texture(&lines, &row, columns.field[1], &truth.texture, err))
            return false;
        if (!series_find(out, row.field[0], &truth.scan))
            continue;
        struct truth *grown = grow(out->truths, out->truth_count, sizeof *grown, err);
        if (!grown)
            return false;
        out->truths = grown;
        out->truths[out->truth_count++] = truth;
    }
}

static bool mark_read(const struct lines *lines, const struct row *row, const struct columns *columns, struct mark *out,
                      struct err *err) {
    for (size_t value = 0; value < MARK_VALUES; value++)
        if (!optional_number(lines, row, columns->field[value], &out->value[value], err))
            return false;
    return row_numbers(lines, row, out->xyz_mm, &out->score, err) &&
           optional_texture(lines, row, columns->field[MARK_VALUES], &out->texture, err);
}

static bool marks_parse(struct lines lines, struct dataset *out, struct err *err) {
    static const char *const fixed[] = {"seriesuid", "coordX", "coordY", "coordZ", "probability"};
    static const char *const optional[MARK_VALUES + 1] = {
        [MARK_DIAMETER_MM] = "diameter_mm",           [MARK_MUTUAL_INFORMATION_NATS] = "mutual_information_nats",
        [MARK_ENTROPY_NATS] = "entropy_nats",         [MARK_PROBABILITY_LOW] = "probability_low",
        [MARK_PROBABILITY_HIGH] = "probability_high", [MARK_VALUES] = "texture"};
    struct columns columns = {.optional = optional, .optional_count = MARK_VALUES + 1};
    bool more = true;
    struct row row;
    if (!header_read(&lines, fixed, &columns, err))
        return false;
    for (;;) {
        struct mark mark = {0};
        if (!row_next(&lines, columns.count, &row, &more, err))
            return false;
        if (!more)
            return true;
        if (!mark_read(&lines, &row, &columns, &mark, err))
            return false;
        if (!series_find(out, row.field[0], &mark.scan))
            continue;
        struct mark *grown = grow(out->marks, out->mark_count, sizeof *grown, err);
        if (!grown)
            return false;
        out->marks = grown;
        out->marks[out->mark_count++] = mark;
    }
}

/* ---- order ------------------------------------------------------------------------------------------- */

/* By scan, keeping the file's order: a counting sort. class_of: 0 before 1 within a scan. */
static bool truths_sort(struct dataset *dataset, struct err *err) {
    size_t buckets = 2 * dataset->series_count + 1;
    PULMO_SCOPED(pulmo_free_at) size_t *start = pulmo_alloc(buckets, sizeof *start, err);
    struct truth *sorted = pulmo_alloc(dataset->truth_count, sizeof *sorted, err);
    if (!start || !sorted) {
        free(sorted);
        return false;
    }
    for (size_t n = 0; n < dataset->truth_count; n++)
        start[2 * dataset->truths[n].scan + !dataset->truths[n].included + 1]++;
    for (size_t n = 1; n < buckets; n++)
        start[n] += start[n - 1];
    for (size_t n = 0; n < dataset->truth_count; n++)
        sorted[start[2 * dataset->truths[n].scan + !dataset->truths[n].included]++] = dataset->truths[n];
    free(dataset->truths);
    dataset->truths = sorted;
    return true;
}

static bool marks_sort(struct dataset *dataset, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) size_t *start = pulmo_alloc(dataset->series_count + 1, sizeof *start, err);
    struct mark *sorted = pulmo_alloc(dataset->mark_count, sizeof *sorted, err);
    if (!start || !sorted) {
        free(sorted);
        return false;
    }
    for (size_t n = 0; n < dataset->mark_count; n++)
        start[dataset->marks[n].scan + 1]++;
    for (size_t n = 1; n <= dataset->series_count; n++)
        start[n] += start[n - 1];
    for (size_t n = 0; n < dataset->mark_count; n++)
        sorted[start[dataset->marks[n].scan]++] = dataset->marks[n];
    free(dataset->marks);
    dataset->marks = sorted;
    return true;
}

bool dataset_parse(const struct dataset_text *text, struct dataset *out, struct err *err) {
    PULMO_SCOPED(dataset_free) struct dataset dataset = {0};
    if (!series_parse(lines_of(text->series, text->series_name), &dataset, err) ||
        !truth_parse(lines_of(text->truth, text->truth_name), &dataset, err) ||
        !marks_parse(lines_of(text->marks, text->marks_name), &dataset, err) || !truths_sort(&dataset, err) ||
        !marks_sort(&dataset, err))
        return false;
    *out = dataset;
    dataset = (struct dataset){0};
    return true;
}

void dataset_free(struct dataset *dataset) {
    for (size_t n = 0; n < dataset->series_count; n++)
        free(dataset->series[n]);
    free(dataset->series);
    free(dataset->truths);
    free(dataset->marks);
    *dataset = (struct dataset){0};
}
