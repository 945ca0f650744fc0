#include "infer/cuda/study.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLAB_SIZE ((size_t)8 << 20) /* bytes of one staging buffer; there are two */
#define SIDE_MAX 4096
#define VOXELS_MAX ((int64_t)1 << 31) /* indices are 32 bits */

enum { EVENT_STAGED = 0, EVENT_BEGIN = 2, EVENT_END = 4 }; /* two each, by turns */

/* Memory that grows when a study needs more. */
struct room {
    void *memory;
    size_t size;
};

struct study {
    struct card *card;
    struct room hu, lungs, maps, starts, source;
    struct cuda_mark *marks, *sorted; /* [CUDA_MARKS_MAX], on the card, as the two below */
    uint8_t *dropped;
    int32_t *count;
    char *staging[2]; /* pinned */
    size_t slabs;     /* staged so far */
    struct {          /* pinned */
        int32_t fault, count, none;
        struct device_keys keys[2];
        struct cuda_mark marks[1024];
    } * host;
    struct room results[2]; /* pinned */
    double device_ms;
};

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void room_clear(struct card *card, struct room *room) {
    card_free(card, room->memory);
    *room = (struct room){NULL, 0};
}

static bool room_make(struct card *card, struct room *room, size_t size, struct err *err) {
    if (room->size >= size && room->memory)
        return true;
    room_clear(card, room);
    room->memory = card_alloc(card, size, err);
    room->size = room->memory ? size : 0;
    return room->memory != NULL;
}

static bool results_make(struct card *card, struct room *room, size_t size, struct err *err) {
    if (room->size >= size)
        return true;
    card_pinned_free(card, room->memory);
    room->memory = card_pinned_alloc(card, size, err);
    room->size = room->memory ? size : 0;
    return room->memory != NULL;
}

void study_free(struct study *study) {
    if (!study)
        return;
    struct room *rooms[] = {&study->hu, &study->lungs, &study->maps, &study->starts, &study->source};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        room_clear(study->card, rooms[i]);
    card_free(study->card, study->marks);
    card_free(study->card, study->sorted);
    card_free(study->card, study->dropped);
    card_free(study->card, study->count);
    for (int i = 0; i < 2; i++) {
        card_pinned_free(study->card, study->staging[i]);
        card_pinned_free(study->card, study->results[i].memory);
    }
    card_pinned_free(study->card, study->host);
    free(study);
}

struct study *study_new(struct card *card, struct err *err) {
    struct study *study = pulmo_alloc(1, sizeof *study, err);
    if (!study)
        return NULL;
    study->card = card;
    study->marks = card_alloc(card, CUDA_MARKS_MAX * sizeof *study->marks, err);
    study->sorted = study->marks ? card_alloc(card, CUDA_MARKS_MAX * sizeof *study->sorted, err) : NULL;
    study->dropped = study->sorted ? card_alloc(card, CUDA_MARKS_MAX, err) : NULL;
    study->count = study->dropped ? card_alloc(card, sizeof *study->count, err) : NULL;
    study->host = study->count ? card_pinned_alloc(card, sizeof *study->host, err) : NULL;
    study->staging[0] = study->host ? card_pinned_alloc(card, SLAB_SIZE, err) : NULL;
    study->staging[1] = study->staging[0] ? card_pinned_alloc(card, SLAB_SIZE, err) : NULL;
    if (study->staging[1]) {
        study->host->none = 0;
        return study;
    }
    study_free(study);
    return NULL;
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static void timing_fill(const struct study *study, double start_ms, int32_t batches, struct cuda_timing *out) {
    if (out)
        *out = (struct cuda_timing){.wall_ms = now_ms() - start_ms, .device_ms = study->device_ms, .batches = batches};
}

/* Waits until the last batch but one is done, so that the host is never more than two ahead, and counts its time. */
static bool batch_reach(struct study *study, int32_t batch, struct err *err) {
    int which = batch % 2;
    if (batch < 0)
        return true;
    if (!card_reach(study->card, EVENT_END + which, err))
        return false;
    study->device_ms += card_elapsed_ms(study->card, EVENT_BEGIN + which, EVENT_END + which);
    return true;
}

/* ---- the bus ----------------------------------------------------------------------------------------------------- */

struct feed { /* from pageable memory to the card, a slab at a time */
    const char *from;
    char *to;
    size_t size, done;
};

/* At least the first `wanted` bytes are on their way; what is queued on the compute stream behind it sees them. */
static bool feed_push(struct study *study, struct feed *feed, size_t wanted, struct err *err) {
    wanted = wanted < feed->size ? wanted : feed->size;
    while (feed->done < wanted) {
        int which = (int)(study->slabs % 2);
        size_t rest = feed->size - feed->done, size = rest < SLAB_SIZE ? rest : SLAB_SIZE;
        if (study->slabs >= 2 && !card_reach(study->card, EVENT_STAGED + which, err))
            return false;
        memcpy(study->staging[which], feed->from + feed->done, size);
        card_upload(study->card, CARD_COPY, feed->to + feed->done, study->staging[which], size);
        card_mark(study->card, CARD_COPY, EVENT_STAGED + which);
        feed->done += size;
        study->slabs++;
        card_wait(study->card, CARD_COMPUTE, EVENT_STAGED + which);
    }
    return true;
}

/* ---- one network ------------------------------------------------------------------------------------------------- */

bool study_run(struct study *study, struct network *network, const float *const *inputs, float *const *outputs,
               const struct cuda_keys *keys, struct err *err) {
    const struct device_plan *plan = network_plan(network);
    const struct device_tensor *tensors = device_plan_tensors(plan);
    for (int i = 0; i < plan->input_count; i++)
        card_upload(study->card, CARD_COMPUTE, network_input(network, i), inputs[i],
                    (size_t)tensors[plan->inputs[i]].size);
    network_keys(network, keys, &study->host->keys[0]);
    network_run(network);
    for (int i = 0; i < plan->output_count; i++)
        card_download(study->card, CARD_COMPUTE, outputs[i], network_output(network, i),
                      network_output_size(network, i));
    network_fault(network, &study->host->fault);
    return card_finish(study->card, err) && network_judge(network, study->host->fault, err);
}

/* ---- resampling -------------------------------------------------------------------------------------------------- */

static bool size_check(const int32_t size[3], const char *what, struct err *err) {
    int64_t voxels = 1;
    for (int axis = 0; axis < 3; axis++) {
        if (size[axis] < 1 || size[axis] > SIDE_MAX)
            return err_set(err, ERR_LIMIT, "%s of %d voxels along axis %d", what, size[axis], axis);
        voxels *= size[axis];
    }
    return voxels < VOXELS_MAX || err_set(err, ERR_LIMIT, "%s of %lld voxels", what, (long long)voxels);
}

static size_t voxels_of(const int32_t size[3]) {
    return (size_t)size[0] * (size_t)size[1] * (size_t)size[2];
}

bool study_resample(struct study *study, const struct cuda_resample *how, const int16_t *hu, int16_t *out,
                    struct err *err) {
    if (!size_check(how->source_size, "a source", err) || !size_check(how->size, "a volume", err))
        return false;
    size_t source = voxels_of(how->source_size) * sizeof *hu, size = voxels_of(how->size) * sizeof *out;
    study->slabs = 0;
    if (!room_make(study->card, &study->source, source, err) || !room_make(study->card, &study->hu, size, err))
        return false;
    struct feed feed = {.from = (const char *)hu, .to = study->source.memory, .size = source};
    struct kernel kernel = {.kind = KERNEL_RESAMPLE};
    kernel.on.resample.how = *how;
    kernel.on.resample.hu = study->source.memory;
    kernel.on.resample.to = study->hu.memory;
    if (!feed_push(study, &feed, source, err))
        return false;
    card_run(study->card, &kernel, (int64_t)voxels_of(how->size));
    card_download(study->card, CARD_COMPUTE, out, study->hu.memory, size);
    return card_finish(study->card, err);
}

/* ---- detection --------------------------------------------------------------------------------------------------- */

static bool port_is(const struct network *network, int port, int64_t channels, int64_t side, int64_t batch) {
    const struct device_plan *plan = network_plan(network);
    if (port < 0 || port >= plan->output_count)
        return false;
    const struct device_tensor *tensor = &device_plan_tensors(plan)[plan->outputs[port]];
    const int64_t dims[5] = {batch, channels, side, side, side};
    return tensor->rank == 5 && memcmp(tensor->dims, dims, sizeof dims) == 0;
}

static int64_t batch_of(const struct network *network) {
    const struct device_plan *plan = network_plan(network);
    return device_plan_tensors(plan)[plan->inputs[0]].dims[0];
}

static bool cube_is(const struct network *network, int64_t side) {
    const struct device_plan *plan = network_plan(network);
    const struct device_tensor *tensor = &device_plan_tensors(plan)[plan->inputs[0]];
    const int64_t dims[5] = {tensor->dims[0], 1, side, side, side};
    return plan->input_count == 1 && tensor->rank == 5 && memcmp(tensor->dims, dims, sizeof dims) == 0;
}

static bool detect_check(const struct network *network, const struct cuda_detect *d, struct err *err) {
    static const int64_t channels[3] = {1, 3, 1};
    bool good = d->tile > 0 && d->tile % FRAME_STRIDE == 0 && d->margin >= 0 && d->margin % FRAME_STRIDE == 0 &&
                2 * d->margin < d->tile && d->tile_count >= 0 && d->candidates_max > 0 && d->candidates_max <= 1024 &&
                cube_is(network, d->tile);
    for (int i = 0; good && i < 3; i++)
        good = port_is(network, d->outputs[i], channels[i], d->tile / FRAME_STRIDE, batch_of(network));
    for (int axis = 0; good && axis < 3; axis++)
        good = d->cells[axis] == (d->size_ijk[2 - axis] + FRAME_STRIDE - 1) / FRAME_STRIDE;
    if (!good)
        return err_set(err, ERR_INTERNAL, "the detector's plan and the request differ");
    return size_check(d->size_ijk, "a volume", err);
}

static size_t cells_of(const struct cuda_detect *d) {
    return (size_t)d->cells[0] * (size_t)d->cells[1] * (size_t)d->cells[2];
}

static bool detect_begin(struct study *study, const struct cuda_detect *d, struct err *err) {
    size_t voxels = voxels_of(d->size_ijk), starts = (size_t)d->tile_count * sizeof *d->starts;
    study->slabs = 0;
    study->device_ms = 0;
    if (!room_make(study->card, &study->hu, voxels * sizeof(int16_t), err) ||
        !room_make(study->card, &study->lungs, voxels, err) ||
        !room_make(study->card, &study->maps, FRAME_MAP_CHANNELS * cells_of(d) * sizeof(float), err) ||
        !room_make(study->card, &study->starts, starts + 1, err))
        return false;
    struct kernel fill = {.kind = KERNEL_FILL};
    fill.on.fill.to = study->maps.memory;
    fill.on.fill.value = FRAME_EMPTY_LOGIT;
    card_run(study->card, &fill, (int64_t)(FRAME_MAP_CHANNELS * cells_of(d)));
    if (starts)
        card_upload(study->card, CARD_COMPUTE, study->starts.memory, d->starts, starts);
    return true;
}

/* Bytes of the volume up to the last slice that tiles first .. first + batch - 1 see. */
static size_t slices_wanted(const struct cuda_detect *d, int32_t first, int32_t batch) {
    int64_t last = 0;
    for (int32_t n = first; n < first + batch && n < d->tile_count; n++) {
        int64_t end = (int64_t)d->starts[n][2] + d->tile;
        last = end > last ? end : last;
    }
    last = last < d->size_ijk[2] ? last : d->size_ijk[2];
    return (size_t)last * (size_t)d->size_ijk[0] * (size_t)d->size_ijk[1] * sizeof(int16_t);
}

struct cut {
    const int32_t *size_ijk;
    int32_t side, first, count;
    uint32_t mirror;
};

static void cut_queue(struct study *study, struct network *network, const struct cut *how) {
    struct kernel cut = {.kind = KERNEL_CUT};
    cut.on.cut.hu = study->hu.memory;
    cut.on.cut.starts = study->starts.memory;
    memcpy(cut.on.cut.size_ijk, how->size_ijk, sizeof cut.on.cut.size_ijk);
    cut.on.cut.side = how->side;
    cut.on.cut.first = how->first;
    cut.on.cut.count = how->count;
    cut.on.cut.mirror = how->mirror;
    cut.on.cut.to = network_input(network, 0);
    card_run(study->card, &cut, batch_of(network) * how->side * how->side * how->side);
}

static void tiles_queue(struct study *study, struct network *network, const struct cuda_detect *d, int32_t first) {
    int64_t side = d->tile / FRAME_STRIDE;
    struct kernel keep = {.kind = KERNEL_KEEP};
    keep.on.keep.request = *d;
    keep.on.keep.starts = study->starts.memory;
    keep.on.keep.first = first;
    keep.on.keep.maps = study->maps.memory;
    for (int i = 0; i < 3; i++)
        keep.on.keep.from[i] = network_output(network, d->outputs[i]);
    cut_queue(study, network, &(struct cut){d->size_ijk, d->tile, first, d->tile_count, 0});
    network_run(network);
    card_run(study->card, &keep, batch_of(network) * FRAME_MAP_CHANNELS * side * side * side);
}

static bool tiles_run(struct study *study, struct network *network, const struct cuda_detect *d, struct feed *volume,
                      int32_t *batches, struct err *err) {
    int32_t size = (int32_t)batch_of(network), batch = 0;
    network_keys(network, NULL, &study->host->keys[0]);
    for (int32_t first = 0; first < d->tile_count; first += size, batch++) {
        if (!feed_push(study, volume, slices_wanted(d, first, size), err) || !batch_reach(study, batch - 2, err))
            return false;
        card_mark(study->card, CARD_COMPUTE, EVENT_BEGIN + batch % 2);
        tiles_queue(study, network, d, first);
        card_mark(study->card, CARD_COMPUTE, EVENT_END + batch % 2);
    }
    *batches = batch;
    return feed_push(study, volume, volume->size, err) && batch_reach(study, batch - 2, err) &&
           batch_reach(study, batch - 1, err);
}

static void marks_queue(struct study *study, const struct cuda_detect *d) {
    struct kernel kernel = {.kind = KERNEL_PEAKS};
    kernel.on.marks.request = *d;
    kernel.on.marks.maps = study->maps.memory;
    kernel.on.marks.lungs = study->lungs.memory;
    kernel.on.marks.marks = study->marks;
    kernel.on.marks.sorted = study->sorted;
    kernel.on.marks.count = study->count;
    kernel.on.marks.dropped = study->dropped;
    card_upload(study->card, CARD_COMPUTE, study->count, &study->host->none, sizeof study->host->none);
    card_run(study->card, &kernel, (int64_t)cells_of(d));
    kernel.kind = KERNEL_RANK;
    card_run(study->card, &kernel, CUDA_MARKS_MAX);
    kernel.kind = KERNEL_SUPPRESS;
    card_run(study->card, &kernel, KERNEL_BLOCK);
    card_download(study->card, CARD_COMPUTE, &study->host->count, study->count, sizeof study->host->count);
    card_download(study->card, CARD_COMPUTE, study->host->marks, study->marks,
                  (size_t)d->candidates_max * sizeof *study->marks);
}

bool study_detect(struct study *study, struct network *network, const struct cuda_detect *request,
                  const struct study_marks *out, struct err *err) {
    double start = now_ms();
    int32_t batches = 0;
    if (!detect_check(network, request, err) || !detect_begin(study, request, err))
        return false;
    size_t voxels = voxels_of(request->size_ijk);
    struct feed volume = {.from = (const char *)request->hu, .to = study->hu.memory, .size = voxels * sizeof(int16_t)};
    struct feed lungs = {.from = (const char *)request->lungs, .to = study->lungs.memory, .size = voxels};
    if (!tiles_run(study, network, request, &volume, &batches, err) || !feed_push(study, &lungs, voxels, err))
        return false;
    marks_queue(study, request);
    network_fault(network, &study->host->fault);
    if (out->maps)
        card_download(study->card, CARD_COMPUTE, out->maps, study->maps.memory,
                      FRAME_MAP_CHANNELS * cells_of(request) * sizeof(float));
    if (!card_finish(study->card, err) || !network_judge(network, study->host->fault, err))
        return false;
    if (study->host->count < 0)
        return err_set(err, ERR_LIMIT, "more than %d peaks", CUDA_MARKS_MAX);
    *out->count = study->host->count;
    memcpy(out->marks, study->host->marks, (size_t)study->host->count * sizeof *out->marks);
    timing_fill(study, start, batches, out->timing);
    return true;
}

/* ---- candidates -------------------------------------------------------------------------------------------------- */

/* Of one candidate: entries of the trunk, or passes of the tail. */
static size_t part_size(const struct network *network, int port) {
    return network_output_size(network, port) / (size_t)batch_of(network);
}

static void crops_queue(struct study *study, struct network *network, const struct study_crops *crops, int32_t batch) {
    const struct device_plan *plan = network_plan(network);
    int32_t side = (int32_t)device_plan_tensors(plan)[plan->inputs[0]].dims[4];
    int32_t first = batch * (int32_t)batch_of(network);
    struct cuda_keys keys = *crops->keys;
    keys.candidate += (uint32_t)first;
    network_keys(network, &keys, &study->host->keys[batch % 2]);
    cut_queue(study, network,
              &(struct cut){crops->request->size_ijk, side, first, crops->request->count, crops->request->mirror});
    network_run(network);
    char *to = study->results[batch % 2].memory;
    for (int port = 0; port < plan->output_count; port++) {
        card_download(study->card, CARD_COMPUTE, to, network_output(network, port), network_output_size(network, port));
        to += network_output_size(network, port);
    }
}

/* The batch's results go where the caller wants them, without those of padding. */
static bool crops_take(struct study *study, const struct network *network, const struct study_crops *crops,
                       int32_t batch, struct err *err) {
    if (batch < 0)
        return true;
    if (!batch_reach(study, batch, err))
        return false;
    int32_t size = (int32_t)batch_of(network), first = batch * size;
    int32_t count = crops->request->count - first < size ? crops->request->count - first : size;
    const char *from = study->results[batch % 2].memory;
    for (int port = 0; port < network_plan(network)->output_count; port++) {
        size_t part = part_size(network, port);
        memcpy((char *)crops->outputs[port] + (size_t)first * part, from, (size_t)count * part);
        from += network_output_size(network, port);
    }
    return true;
}

static bool crops_begin(struct study *study, const struct network *network, const struct study_crops *crops,
                        struct err *err) {
    const struct device_plan *plan = network_plan(network);
    const struct device_tensor *input = &device_plan_tensors(plan)[plan->inputs[0]];
    size_t size = 0, starts = (size_t)crops->request->count * sizeof *crops->request->starts;
    if (!size_check(crops->request->size_ijk, "a volume", err))
        return false;
    if (!cube_is(network, input->dims[4]) || crops->request->count < 1)
        return err_set(err, ERR_INTERNAL, "the plan is none of candidates");
    for (int port = 0; port < plan->output_count; port++) {
        if (network_output_size(network, port) % (size_t)input->dims[0])
            return err_set(err, ERR_INTERNAL, "output %d does not part into candidates", port);
        size += network_output_size(network, port);
    }
    size_t volume = voxels_of(crops->request->size_ijk) * sizeof(int16_t);
    study->device_ms = 0;
    study->slabs = 0;
    if (!results_make(study->card, &study->results[0], size, err) ||
        !results_make(study->card, &study->results[1], size, err) ||
        !room_make(study->card, &study->starts, starts, err) || !room_make(study->card, &study->hu, volume, err))
        return false;
    card_upload(study->card, CARD_COMPUTE, study->starts.memory, crops->request->starts, starts);
    struct feed feed = {.from = (const char *)crops->request->hu, .to = study->hu.memory, .size = volume};
    return feed_push(study, &feed, volume, err);
}

bool study_candidates(struct study *study, struct network *network, const struct study_crops *crops, struct err *err) {
    double start = now_ms();
    if (!crops_begin(study, network, crops, err))
        return false;
    int32_t size = (int32_t)batch_of(network), batches = (crops->request->count + size - 1) / size;
    for (int32_t batch = 0; batch < batches; batch++) {
        if (!crops_take(study, network, crops, batch - 2, err))
            return false;
        card_mark(study->card, CARD_COMPUTE, EVENT_BEGIN + batch % 2);
        crops_queue(study, network, crops, batch);
        card_mark(study->card, CARD_COMPUTE, EVENT_END + batch % 2);
    }
    if (!crops_take(study, network, crops, batches - 2, err) || !crops_take(study, network, crops, batches - 1, err))
        return false;
    network_fault(network, &study->host->fault);
    if (!card_finish(study->card, err) || !network_judge(network, study->host->fault, err))
        return false;
    timing_fill(study, start, batches, crops->timing);
    return true;
}
