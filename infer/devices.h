/* Several devices at one stage: a session and the peers that joined it share tiles and candidates.
 *
 * A job's result depends on its index alone, so that neither the number of devices nor who did a job shows in it. */
#ifndef PULMO_INFER_DEVICES_H
#define PULMO_INFER_DEVICES_H

#include "infer/infer.h"

/* One thread of one device during a run; busy_ns is what its jobs add to it. */
struct lane {
    struct infer_session *session;
    unsigned device, worker; /* 0 = the session itself, then its peers; worker within the device */
    uint64_t busy_ns;        /* inside primitives */
};
typedef bool infer_lane_job(void *context, struct lane *lane, size_t index, struct err *err);

struct devices_work {
    enum infer_place place;
    size_t count;
    infer_lane_job *job; /* may be repeated, on another device, and must then leave the same */
    void *context;
};
struct devices_figures {
    uint64_t wall_ns, busy_ns;
    unsigned lanes;
    size_t stolen, again; /* jobs taken from another device's share; jobs of a dropped device that were done again */
};
/* Every device begins with a share of its own and then takes from the fullest other. One that fails (by anything but
 * the data: infer_devices_failed) is dropped for good and all its jobs of this run are done again by the others; the
 * last one's failure is the run's. */
bool infer_devices_run(struct infer_session *session, const struct devices_work *work, struct devices_figures *figures,
                       struct err *err) PULMO_MUST_USE;

uint64_t infer_devices_now_ns(void); /* of the monotonic clock */
/* Session `device` of the group: 0 itself. */
struct infer_session *infer_device(struct infer_session *session, unsigned device);
/* Runs the runner and adds the time to the lane. */
struct runner;
struct dropout_keys;
bool infer_lane_run(struct lane *lane, struct runner *runner, const struct dropout_keys *keys,
                    struct err *err) PULMO_MUST_USE;

/* For tests: asked before each run of a runner on this session; false with err = the device has failed. Nothing outside
 * tests/ sets it. */
typedef bool infer_fault(void *context, struct err *err);
void infer_devices_set_fault(struct infer_session *session, infer_fault *fault, void *context);

#endif
