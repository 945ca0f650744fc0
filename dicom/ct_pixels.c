#include "dicom/ct.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { THREADS_MAX = 8 };

static const int16_t PADDING_HU = -1024;
/* 1.5 * 2^52: adding it leaves no place for fractions, so that a double of 16 bits is rounded to the nearest, ties to
 * even, without the calls that fmin, fmax and nearbyint are. */
static const double WHOLE = 6755399441055744.0;

/* HU = slope * stored + intercept (PS3.3 C.11.1), to the nearest integer, clipped to int16. */
static void rescale(const int32_t *stored, size_t count, const struct ct_header *header, int16_t *out) {
    for (size_t i = 0; i < count; i++) {
        if (header->has_padding && stored[i] >= header->padding_first && stored[i] <= header->padding_last) {
            out[i] = PADDING_HU;
        } else {
            const double hu = header->slope * stored[i] + header->intercept;
            const double low = hu > INT16_MIN ? hu : INT16_MIN, clipped = low < INT16_MAX ? low : INT16_MAX;
            out[i] = (int16_t)((clipped + WHOLE) - WHOLE);
        }
    }
}

/* Kinds that are this machine's fault, not the slice's: the job is tried again. */
static bool is_transient(enum err_kind kind) {
    return kind == ERR_IO || kind == ERR_MEMORY || kind == ERR_NOT_FOUND || kind == ERR_NO_SPACE || kind == ERR_CONFIG;
}

/* One slice, in the order of the files: a file of many frames is read once, by one thread. */
struct place {
    size_t path_index, k;
    uint32_t frame;
};

static int compare_places(const void *a, const void *b) {
    const struct place *x = a, *y = b;
    if (x->path_index != y->path_index)
        return x->path_index < y->path_index ? -1 : 1;
    return (x->frame > y->frame) - (x->frame < y->frame);
}

static struct place *places_of(const struct ct_group *group, struct err *err) {
    struct place *places = pulmo_alloc(group->count, sizeof *places, err);
    for (size_t k = 0; places != NULL && k < group->count; k++)
        places[k] = (struct place){group->headers[k].path_index, k, group->headers[k].frame};
    if (places != NULL)
        qsort(places, group->count, sizeof *places, compare_places);
    return places;
}

/* What the threads share: the next file is taken, the outcome merged, under one lock. Which thread decodes a slice
 * changes nothing of the volume. */
struct work {
    const struct ct_group *group;
    const char *const *paths;
    const struct place *places;
    struct volume *volume;
    pthread_mutex_t lock;
    size_t next, damaged, first_damaged;
    struct err damage, fault; /* damage: of the first damaged slice; fault: ends the work */
};

/* The places of the next file: 0 = there is none. */
static size_t take(struct work *work, const struct place **first) {
    size_t count = 0;
    pthread_mutex_lock(&work->lock);
    *first = work->places + work->next;
    if (work->fault.kind == ERR_NONE)
        while (work->next + count < work->group->count && (*first)[count].path_index == (*first)->path_index)
            count++;
    work->next += count;
    pthread_mutex_unlock(&work->lock);
    return count;
}

static void merge(struct work *work, size_t k, const struct err *why) {
    pthread_mutex_lock(&work->lock);
    if (is_transient(why->kind)) {
        work->fault = *why;
    } else if (work->damaged++ == 0 || k < work->first_damaged) {
        work->first_damaged = k;
        work->damage = *why;
    }
    pthread_mutex_unlock(&work->lock);
}

static void decode_file(struct work *work, const struct place *places, size_t count, int32_t *stored) {
    const size_t plane = (size_t)work->volume->grid.size_ijk[0] * (size_t)work->volume->grid.size_ijk[1];
    struct err damage = {0};
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    const bool read = bytes_read_file(work->paths[places->path_index], CT_FILE_BYTES_MAX, &file, &damage);
    PULMO_SCOPED(shim_dataset_free_at)
    struct shim_dataset *dataset = read ? shim_dataset_parse(file.data, file.size, &damage) : NULL;
    bytes_free(&file); /* the data set has its own copy: of many frames, half a gigabyte */
    for (size_t n = 0; n < count; n++) {
        const size_t k = places[n].k;
        struct err why = damage; /* of a file that cannot be read all slices are damaged */
        if (dataset != NULL && shim_frame_decode(dataset, places[n].frame, stored, plane, &why))
            rescale(stored, plane, &work->group->headers[k], work->volume->hu + k * plane);
        else
            merge(work, k, &why);
    }
}

static void *decode_files(void *context) {
    struct work *work = context;
    const size_t plane = (size_t)work->volume->grid.size_ijk[0] * (size_t)work->volume->grid.size_ijk[1];
    struct err why = {0};
    PULMO_SCOPED(pulmo_free_at) int32_t *stored = pulmo_alloc(plane, sizeof *stored, &why);
    const struct place *first = NULL;
    if (stored == NULL) {
        merge(work, 0, &why);
        return NULL;
    }
    for (size_t count = take(work, &first); count > 0; count = take(work, &first))
        decode_file(work, first, count, stored);
    return NULL;
}

static void run(struct work *work) {
    pthread_t threads[THREADS_MAX - 1];
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    long started = 0;
    while (started + 1 < processors && started < THREADS_MAX - 1 &&
           pthread_create(&threads[started], NULL, decode_files, work) == 0)
        started++;
    decode_files(work);
    for (long i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

bool ct_pixels(const struct ct_group *group, const char *const *paths, struct volume *volume, struct refusals *refusals,
               struct err *err) {
    PULMO_SCOPED(pulmo_free_at) struct place *places = places_of(group, err);
    if (places == NULL)
        return false;
    struct work work = {
        .group = group, .paths = paths, .places = places, .volume = volume, .lock = PTHREAD_MUTEX_INITIALIZER};
    run(&work);
    pthread_mutex_destroy(&work.lock);
    if (work.fault.kind != ERR_NONE)
        return err_set(err, work.fault.kind, "%s", work.fault.text);
    if (work.damaged > 0) {
        refusals_add(refusals, REFUSAL_UNREADABLE, "%zu of %zu slices cannot be decoded: %.120s", work.damaged,
                     group->count, work.damage.text);
    }
    return true;
}
