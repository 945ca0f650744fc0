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

static bool read_slice(const char *path, const struct ct_header *header, int32_t *stored, int16_t *out,
                       struct err *err) {
    const size_t count = (size_t)header->format.rows * header->format.columns;
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    if (!bytes_read_file(path, CT_FILE_BYTES_MAX, &file, err))
        return false;
    PULMO_SCOPED(shim_dataset_free_at) struct shim_dataset *dataset = shim_dataset_parse(file.data, file.size, err);
    if (dataset == NULL || !shim_frame_decode(dataset, 0, stored, count, err))
        return false;
    rescale(stored, count, header, out);
    return true;
}

/* Kinds that are this machine's fault, not the slice's: the job is tried again. */
static bool is_transient(enum err_kind kind) {
    return kind == ERR_IO || kind == ERR_MEMORY || kind == ERR_NOT_FOUND || kind == ERR_NO_SPACE || kind == ERR_CONFIG;
}

/* What the threads share: the next slice is taken, the outcome merged, under one lock. Which thread decodes a slice
 * changes nothing of the volume. */
struct work {
    const struct ct_group *group;
    const char *const *paths;
    struct volume *volume;
    pthread_mutex_t lock;
    size_t next, damaged, first_damaged;
    struct err damage, fault; /* damage: of the first damaged slice; fault: ends the work */
};

static bool take(struct work *work, size_t *k) {
    pthread_mutex_lock(&work->lock);
    const bool more = work->next < work->group->count && work->fault.kind == ERR_NONE;
    *k = work->next;
    work->next += more;
    pthread_mutex_unlock(&work->lock);
    return more;
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

static void *decode_slices(void *context) {
    struct work *work = context;
    const size_t plane = (size_t)work->volume->grid.size_ijk[0] * (size_t)work->volume->grid.size_ijk[1];
    struct err why = {0};
    PULMO_SCOPED(pulmo_free_at) int32_t *stored = pulmo_alloc(plane, sizeof *stored, &why);
    size_t k = 0;
    if (stored == NULL) {
        merge(work, 0, &why);
        return NULL;
    }
    while (take(work, &k)) {
        const struct ct_header *header = &work->group->headers[k];
        why = (struct err){0};
        if (!read_slice(work->paths[header->path_index], header, stored, work->volume->hu + k * plane, &why))
            merge(work, k, &why);
    }
    return NULL;
}

static void run(struct work *work) {
    pthread_t threads[THREADS_MAX - 1];
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    long started = 0;
    while (started + 1 < processors && started < THREADS_MAX - 1 &&
           pthread_create(&threads[started], NULL, decode_slices, work) == 0)
        started++;
    decode_slices(work);
    for (long i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}

bool ct_pixels(const struct ct_group *group, const char *const *paths, struct volume *volume, struct refusals *refusals,
               struct err *err) {
    struct work work = {.group = group, .paths = paths, .volume = volume, .lock = PTHREAD_MUTEX_INITIALIZER};
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
