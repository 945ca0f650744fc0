/* Inside infer/: a session is the compiled stages and one runner a worker for each. */
#ifndef PULMO_INFER_SESSION_H
#define PULMO_INFER_SESSION_H

#include "infer/backend_plugin.h"
#include "infer/devices.h"
#include "infer/model.h"
#include "infer/program.h"
#include "workers.h"

struct stage {
    struct program *program;
    struct runner *runners[WORKERS_MAX];
};

/* The detector for tiles of one size. Of the processor. */
struct detector_stages {
    struct stage wanted; /* in the session's precision */
    struct stage full;   /* in fp32, where the other is not */
};

struct infer_session {
    const struct infer_model *model;
    unsigned threads;
    enum infer_backend wanted;
    struct plugin *plugin;            /* NULL = there is no card, or it has failed */
    bool on_processor;                /* what runs now, and what ran last, does so without the plugin */
    struct err why_not;               /* kind 0 = nothing to say */
    struct infer_precision precision; /* of the processor's detector; "" = fp32 */
    struct stage trunk;               /* of the processor; made when it is to run it */
    struct detector_stages cubes;     /* of `tile` voxels a side; made with it */
    struct stage tails[2];            /* for one pass, and for the number of passes last asked for */
    uint32_t tail_batch[2];           /* passes that each is compiled for; 0 = not yet */
    struct stage gate;                /* one runner; none where the model has no gate */
    struct stage gradient;            /* the detector with every activation kept; compiled at the first infer_cam */
    unsigned gradient_workers;
    struct infer_session *peers[INFER_DEVICES_MAX - 1]; /* borrowed; devices 1 .. */
    unsigned peer_count;
    uint32_t placement[INFER_PLACES];
    struct err dropped; /* kind 0 = in use; written by the runs of the session that it joined */
    struct infer_detect_figures detect_figures;
    struct infer_recompute_figures recompute_figures;
    infer_fault *fault;
    void *fault_context;
};

/* The processor's programs of this session, unless they are made. */
bool infer_session_processor(struct infer_session *session, struct err *err) PULMO_MUST_USE;
/* The detector for the tiles of one study, on all devices. */
struct tile_stages {
    int64_t side_kji[3];
    struct detector_stages own[INFER_DEVICES_MAX]; /* empty where the tiles are the session's cubes */
};
/* The processor's programs, and those for tiles of that size where they are no cubes; the caller clears it. */
bool infer_tile_stages(struct infer_session *session, const int64_t side_kji[3], struct tile_stages *out,
                       struct err *err) PULMO_MUST_USE;
void infer_tile_stages_clear(struct tile_stages *stages);
const struct detector_stages *infer_tile_stages_of(const struct tile_stages *stages, const struct lane *lane);
/* The card has failed at something: this study runs on the processor, all later ones too if it is for good. */
void infer_session_leave_card(struct infer_session *session, const struct err *why, bool for_good);

/* The tail for that many passes, once infer_session_tail has compiled it. */
const struct stage *infer_session_tail_of(const struct infer_session *session, uint32_t passes);
/* Compiles the tail for that many passes, unless it is. */
bool infer_session_tail(struct infer_session *session, uint32_t passes, struct err *err) PULMO_MUST_USE;
bool infer_session_is_mixed(const struct infer_session *session);
bool infer_session_gradient(struct infer_session *session, struct err *err) PULMO_MUST_USE;

/* Decoding (models/README.md): whether the cell [k][j][i] is a peak of the map, where its mark lies from the map's
 * first voxel, in voxels, and how big it is. maps: heatmap, offset z, y, x, log diameter, `whole` cells each. */
struct mark {
    double at[3]; /* k, j, i */
    double diameter_mm, logit;
    int64_t cell; /* order of discovery, for a stable sort */
};
bool infer_is_peak(const float *heat, const int64_t cells[3], const int64_t at[3]);
struct mark infer_mark(const float *maps, const int64_t cells[3], const int64_t at[3]);
/* The place of a mark at `at` (k, j, i): in the image, although an offset may lead out of it. */
void infer_mark_place(const struct grid *grid, const double at[3], double out_lps_mm[3]);
#define MAP_CHANNELS 5
/* Output of a detector's runner that is channel 0 .. 4 of the maps. */
const float *infer_map_channel(const struct infer_model *model, const struct runner *runner, int channel,
                               int64_t tile_cells);

/* HU to the network's 0 .. 1 (models/README.md, Frame). */
#define FRAME_HU_MIN (-1024)
#define FRAME_HU_MAX 608
/* A box of side_kji voxels that starts at `start` (i, j, k; may lie outside, where it is 0), normalised. Returns
 * whether anything in it is above 0. */
bool infer_frame_cut_box(const struct volume *iso, const int64_t start[3], const int64_t side_kji[3], float *out);
/* A cube. */
bool infer_frame_cut(const struct volume *iso, const int64_t start[3], int side, float *out);
/* What it would return, without cutting. */
bool infer_frame_any(const struct volume *iso, const int64_t start[3], int side);
/* ERR_INPUT unless the volume is isotropic at 1 mm. */
bool infer_frame_check(const struct volume *iso, struct err *err) PULMO_MUST_USE;

#endif
