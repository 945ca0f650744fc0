/* One card as the plugin sees it: memory, two streams of work, kernels, convolutions. The only code that differs
 * between a card of CUDA (card_cuda.cu, conv_cudnn.c) and the host card of the tests (tests/infer_card_host.c).
 *
 * Work is queued and runs later. What goes wrong with it is kept, the first of it, and told by card_reach and
 * card_finish. One thread at a time. */
#ifndef PULMO_INFER_CUDA_CARD_H
#define PULMO_INFER_CUDA_CARD_H

#include "infer/cuda/kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

struct card;
struct card_conv;  /* a convolution made ready; belongs to its card */
struct card_graph; /* recorded work of the compute stream; belongs to its card */

enum card_stream { CARD_COMPUTE = 0, CARD_COPY, CARD_STREAMS };
#define CARD_EVENTS 8 /* points in a stream, by number */

/* 0 with err set: why there is none. */
int card_count(struct err *err);
/* cache: folder of engine plans, or NULL. */
struct card *card_open(int index, const char *cache, struct err *err);
void card_close(struct card *card);
const char *card_text(const struct card *card);       /* "NVIDIA ..., cuDNN 9.19.0, CUDA 13.0, sm_90" */
const char *card_library(const struct card *card);    /* "cuDNN 9.19.0" */
const char *card_generation(const struct card *card); /* "sm_90" */
double card_peak(const struct card *card); /* half-precision operations a second by data sheet; 0 = not known */

/* Memory of the card, aligned to at least 256 bytes; host memory that copies need not stage. Zeroed neither. */
void *card_alloc(struct card *card, size_t size, struct err *err);
void card_free(struct card *card, void *memory);
void *card_pinned_alloc(struct card *card, size_t size, struct err *err);
void card_pinned_free(struct card *card, void *memory);

/* Copies; host memory that is not pinned makes the caller wait. */
void card_upload(struct card *card, enum card_stream stream, void *to, const void *from, size_t size);
void card_download(struct card *card, enum card_stream stream, void *to, const void *from, size_t size);
/* `count` indices of a kernel on the compute stream. */
void card_run(struct card *card, const struct kernel *kernel, int64_t count);

/* Of a step DEVICE_CONV whose channels fit tensor cores; call: shapes, no data. NULL with ERR_UNSUPPORTED where the
 * library has no engine for it: it is a kernel then. */
struct card_conv *card_conv_new(struct card *card, const struct device_call *call, struct err *err);
void card_conv_free(struct card_conv *conv);
size_t card_conv_workspace(const struct card_conv *conv);
bool card_conv_cached(const struct card_conv *conv); /* the engine plan came from the cache */
void card_conv_run(struct card *card, const struct card_conv *conv, const struct device_call *call, void *workspace);

/* Whether work must have run once before it is recorded: libraries load what they need at their first run. */
bool card_loads_late(const struct card *card);
/* What is queued on the compute stream between begin and end is recorded instead of run. */
bool card_record_begin(struct card *card, struct err *err) PULMO_MUST_USE;
struct card_graph *card_record_end(struct card *card, struct err *err);
void card_graph_run(struct card *card, const struct card_graph *graph);
void card_graph_free(struct card_graph *graph);

/* An event is a point in a stream; the other stream, or the host, waits until it is passed. */
void card_mark(struct card *card, enum card_stream stream, int event);
void card_wait(struct card *card, enum card_stream stream, int event);
bool card_reach(struct card *card, int event, struct err *err) PULMO_MUST_USE;
double card_elapsed_ms(struct card *card, int from, int to); /* between two events that were reached; 0 on the host */
bool card_finish(struct card *card, struct err *err) PULMO_MUST_USE;

#ifdef __cplusplus
}
#endif
#endif
