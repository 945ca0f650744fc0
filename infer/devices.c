#include "infer/devices.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "infer/session.h"

#define LANES_MAX (INFER_DEVICES_MAX * WORKERS_MAX)

/* ---- the group --------------------------------------------------------------------------------------------- */

struct infer_session *infer_device(struct infer_session *session, unsigned device) {
    return device ? session->peers[device - 1] : session;
}

bool infer_session_join(struct infer_session *session, struct infer_session *peer, struct err *err) {
    if (peer == session || peer->peer_count || peer->model != session->model)
        return err_set(err, ERR_CONFLICT, "a device that joins has the same model and no devices of its own");
    if (session->plugin || peer->plugin)
        return err_set(err, ERR_UNSUPPORTED, "a card shares no study with other devices");
    if (strcmp(infer_backend_detail(peer), infer_backend_detail(session)) != 0)
        return err_set(err, ERR_CONFLICT, "a device of \"%s\" cannot share the work of \"%s\"",
                       infer_backend_detail(peer), infer_backend_detail(session));
    if (memcmp(&peer->precision, &session->precision, sizeof peer->precision) != 0)
        return err_set(err, ERR_CONFLICT, "a device that joins computes in the same precision");
    if (session->peer_count + 1 == INFER_DEVICES_MAX)
        return err_set(err, ERR_LIMIT, "more than %d devices", INFER_DEVICES_MAX);
    session->peers[session->peer_count++] = peer;
    return true;
}

void infer_session_place(struct infer_session *session, enum infer_place place, uint32_t devices) {
    session->placement[place] = devices;
}

unsigned infer_session_devices(const struct infer_session *session) {
    return session->peer_count + 1;
}

const struct err *infer_session_dropped(const struct infer_session *session, unsigned device) {
    const struct infer_session *of = device ? session->peers[device - 1] : session;
    return of->dropped.kind ? &of->dropped : NULL;
}

void infer_devices_set_fault(struct infer_session *session, infer_fault *fault, void *context) {
    session->fault = fault;
    session->fault_context = context;
}

uint64_t infer_devices_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

bool infer_lane_run(struct lane *lane, struct runner *runner, const struct dropout_keys *keys, struct err *err) {
    const struct infer_session *session = lane->session;
    if (session->fault && !session->fault(session->fault_context, err))
        return false;
    uint64_t start = infer_devices_now_ns();
    bool good = infer_runner_run(runner, keys, err);
    lane->busy_ns += infer_devices_now_ns() - start;
    return good;
}

/* ---- a run --------------------------------------------------------------------------------------------------- */

struct share { /* of one device: jobs [next, end) are still to do */
    size_t next, end;
    bool member, failed;
};

struct crew {
    const struct devices_work *work;
    struct share shares[INFER_DEVICES_MAX];
    unsigned devices, members;
    pthread_mutex_t lock; /* guards all below, and the shares */
    pthread_cond_t changed;
    size_t in_flight, again_count, stolen, repeated;
    size_t *again;  /* [count] jobs of dropped devices */
    uint8_t *owner; /* [count] 1 + the device that has done a job; 0 = not done */
    bool over;      /* no new job starts */
    size_t failed_index;
    struct err failure;
};

struct member {
    struct crew *crew;
    struct lane lane;
    pthread_t thread;
};

/* What every device would say of the same data is no fault of the device. */
static bool is_of_data(enum err_kind kind) {
    return kind == ERR_INPUT || kind == ERR_UNSUPPORTED || kind == ERR_LIMIT;
}

/* The next job: what a dropped device left, the own share from the front, the fullest other one from the back. */
static bool job_next(struct crew *crew, unsigned device, size_t *index) {
    struct share *own = &crew->shares[device], *fullest = own;
    if (crew->again_count) {
        *index = crew->again[--crew->again_count];
        return true;
    }
    if (own->next < own->end) {
        *index = own->next++;
        return true;
    }
    for (unsigned i = 0; i < crew->devices; i++)
        if (crew->shares[i].end - crew->shares[i].next > fullest->end - fullest->next)
            fullest = &crew->shares[i];
    if (fullest->next == fullest->end)
        return false;
    *index = --fullest->end;
    crew->stolen++;
    return true;
}

/* Waits while a job that is under way elsewhere might still come back. False = nothing is left for this lane. */
static bool job_take(struct crew *crew, unsigned device, size_t *index) {
    pthread_mutex_lock(&crew->lock);
    bool taken = false;
    while (!crew->over && !crew->shares[device].failed && !(taken = job_next(crew, device, index)) && crew->in_flight)
        pthread_cond_wait(&crew->changed, &crew->lock);
    crew->in_flight += taken;
    pthread_mutex_unlock(&crew->lock);
    return taken;
}

static void run_fail(struct crew *crew, size_t index, const struct err *why) {
    if (!crew->over || index < crew->failed_index) {
        crew->failed_index = index;
        crew->failure = *why;
    }
    crew->over = true;
}

/* All that the device has done in this run is done again: what it got wrong before it noticed is not known. */
static void device_drop(struct crew *crew, struct lane *lane, size_t index, const struct err *why) {
    struct share *share = &crew->shares[lane->device];
    crew->again[crew->again_count++] = index;
    if (share->failed)
        return;
    share->failed = true;
    lane->session->dropped = *why;
    for (size_t n = 0; n < crew->work->count; n++)
        if (crew->owner[n] == lane->device + 1) {
            crew->owner[n] = 0;
            crew->again[crew->again_count++] = n;
            crew->repeated++;
        }
    if (--crew->members == 0)
        run_fail(crew, index, why);
}

static void job_end(struct crew *crew, struct lane *lane, size_t index, bool good, const struct err *why) {
    pthread_mutex_lock(&crew->lock);
    crew->in_flight--;
    bool failed = crew->shares[lane->device].failed;
    if (good && !failed)
        crew->owner[index] = (uint8_t)(lane->device + 1);
    else if (!good && is_of_data(why->kind))
        run_fail(crew, index, why);
    else
        device_drop(crew, lane, index, why);
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
}

static void *member_run(void *pointer) {
    struct member *member = pointer;
    struct crew *crew = member->crew;
    size_t index = 0;
    while (job_take(crew, member->lane.device, &index)) {
        struct err why = {0};
        bool good = crew->work->job(crew->work->context, &member->lane, index, &why);
        job_end(crew, &member->lane, index, good, &why);
    }
    return NULL;
}

/* Contiguous shares in proportion to the threads of each device. Returns the lanes. */
static unsigned crew_share(struct crew *crew, struct infer_session *session, struct member *members) {
    unsigned lanes = 0;
    size_t total = 0, before = 0, count = crew->work->count;
    uint32_t placed = session->placement[crew->work->place];
    /* Of a device on which another stage may be running in another thread, nothing is read. */
    for (unsigned device = 0; device < crew->devices; device++) {
        struct infer_session *of = infer_device(session, device);
        crew->shares[device].member = (!placed || placed >> device & 1) && !of->dropped.kind;
        total += crew->shares[device].member ? of->threads : 0;
    }
    for (unsigned device = 0; device < crew->devices; device++) {
        struct infer_session *of = infer_device(session, device);
        if (!crew->shares[device].member)
            continue;
        crew->members++;
        crew->shares[device].next = count * before / total;
        before += of->threads;
        crew->shares[device].end = count * before / total;
        for (unsigned worker = 0; worker < of->threads; worker++)
            members[lanes++] =
                (struct member){.crew = crew, .lane = {.session = of, .device = device, .worker = worker}};
    }
    return lanes;
}

/* A thread that cannot be started only makes the run longer; the caller's own is the first lane. */
static void crew_run(struct member *members, unsigned lanes, struct devices_figures *figures) {
    bool started[LANES_MAX] = {false};
    for (unsigned i = 1; i < lanes; i++)
        started[i] = pthread_create(&members[i].thread, NULL, member_run, &members[i]) == 0;
    member_run(&members[0]);
    for (unsigned i = 1; i < lanes; i++)
        if (started[i])
            pthread_join(members[i].thread, NULL);
    for (unsigned i = 0; i < lanes; i++)
        figures->busy_ns += members[i].lane.busy_ns;
    figures->lanes = lanes;
}

bool infer_devices_run(struct infer_session *session, const struct devices_work *work, struct devices_figures *figures,
                       struct err *err) {
    struct crew crew = {.work = work,
                        .devices = session->peer_count + 1,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .changed = PTHREAD_COND_INITIALIZER};
    PULMO_SCOPED(pulmo_free_at) struct member *members = pulmo_alloc(LANES_MAX, sizeof *members, err);
    /* Each job stands in `again` at most once at a time: it left it when it was taken. */
    PULMO_SCOPED(pulmo_free_at) size_t *again = pulmo_alloc(work->count, sizeof *again, err);
    PULMO_SCOPED(pulmo_free_at) uint8_t *owner = pulmo_alloc(work->count, 1, err);
    if (!members || !again || !owner)
        return false;
    crew.again = again;
    crew.owner = owner;
    struct devices_figures made = {0};
    unsigned lanes = crew_share(&crew, session, members);
    if (lanes == 0)
        return err_set(err, ERR_INTERNAL, "no device is left for this stage");
    uint64_t start = infer_devices_now_ns();
    crew_run(members, lanes, &made);
    made.wall_ns = infer_devices_now_ns() - start;
    made.stolen = crew.stolen;
    made.again = crew.repeated;
    if (figures)
        *figures = made;
    if (!crew.over)
        return true;
    return err_set(err, crew.failure.kind, "%s", crew.failure.text);
}
