/* A program: a graph compiled for fixed input shapes by the CPU back-end (oneDNN).
 *
 * A program is immutable and may be shared by threads; each thread runs it with a runner of its own (one arena).
 * Every primitive is planned for one thread, whatever the machine has: work is shared out by tile and candidate, so
 * results cannot depend on the number of threads. */
#ifndef PULMO_INFER_PROGRAM_H
#define PULMO_INFER_PROGRAM_H

#include "infer/infer.h"
#include "infer/operators.h"
#include "infer/plan.h"

struct program;
struct runner;

/* keep: every activation survives the run (for gradients); otherwise lifetimes overlap in the arena. */
struct program *infer_program_new(const struct graph *graph, const struct shape *inputs, bool keep, struct err *err);
/* The same with every convolution in the precision that the plan says. ERR_INPUT, ERR_UNSUPPORTED when it does not fit
 * the graph or this processor. */
struct program *infer_program_new_mixed(const struct graph *graph, const struct shape *inputs,
                                        const struct infer_precision *plan, struct err *err);
/* In fp32 by the library alone, each convolution a sum in order: what fewer products are measured against. */
struct program *infer_program_new_in_order(const struct graph *graph, const struct shape *inputs, struct err *err);
/* The graph of `like` for other shapes, with the packed weights of `like` where its steps want the same layout. plan:
 * that of `like`, which must live as long; NULL = fp32. */
struct program *infer_program_new_like(const struct program *like, const struct shape *inputs, bool keep,
                                       const struct infer_precision *plan, struct err *err);
void infer_program_free(struct program *program);
void infer_program_free_at(struct program **program);
const struct graph *infer_program_graph(const struct program *program); /* borrowed at infer_program_new */
/* Shape of a value of the graph under this program. */
const struct shape *infer_program_shape(const struct program *program, int value);

struct program_figures {
    struct plan_figures memory;
    size_t weight_bytes;                                         /* packed weights of its own */
    int primitives, winograds, kernels, reorders, sums_in_place; /* steps by kind; reorders: those beside weights */
    int parts_in_place; /* inputs of Concat that were written where they join */
};
const struct program_figures *infer_program_figures(const struct program *program);

struct runner *infer_runner_new(const struct program *program, struct err *err);
void infer_runner_free(struct runner *runner);
const struct program *infer_runner_program(const struct runner *runner);
void infer_runner_free_at(struct runner **runner);
/* Plain row-major input `index` of the graph, to be filled before EVERY run: its memory is used again. */
float *infer_runner_input(struct runner *runner, int index);
/* Allocates nothing. ERR_INPUT names the layer whose result holds NaN or infinity. dropout NULL = none. */
bool infer_runner_run(struct runner *runner, const struct dropout_keys *dropout, struct err *err) PULMO_MUST_USE;
/* The same, and adds to step_ns[n] the processor time that step n took. */
bool infer_runner_time(struct runner *runner, const struct dropout_keys *dropout, uint64_t *step_ns,
                       struct err *err) PULMO_MUST_USE;
int infer_program_steps(const struct program *program);
/* The node that step n computes, or a part of it; NULL where it brings an output into its layout. */
const struct graph_node *infer_program_step_node(const struct program *program, int step);
/* Elements of a convolution's result that the step computes; 0 where it is none, but a reorder or a sum of one. */
int64_t infer_program_step_convolves(const struct program *program, int step);
/* Of the last run: the greatest share of elements of one int8 activation that stand at the end of its range, where they
 * may have been cut off. 0 in full precision. */
double infer_runner_saturated(const struct runner *runner);
/* Plain row-major output `index` of the graph, valid until the next run. */
const float *infer_runner_output(const struct runner *runner, int index);
/* Any activation of a program built with keep, as plain row-major floats; 0 or 1 where it is a mask. */
bool infer_runner_read(const struct runner *runner, int value, float *out, struct err *err) PULMO_MUST_USE;

/* Gradient of a convolution's input from that of its output, plain row-major. */
bool infer_conv_backward(const struct program *program, const struct graph_node *node, const float *gradient_out,
                         float *gradient_in, struct err *err) PULMO_MUST_USE;

/* Whether this processor multiplies in that precision (a letter of precision.h), without emulation, and how large the
 * weights of int8 layers may be there so that no sum of two products saturates. */
bool infer_backend_offers(char letter, int *weight_max);

/* "oneDNN 2.6.3, avx512_core_vnni" */
const char *infer_backend_text(void);

#endif
