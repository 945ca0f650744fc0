/* Inside the rewriting passes only: fuse.c and fuse_attention.c. */
#ifndef PULMO_INFER_FUSE_H
#define PULMO_INFER_FUSE_H

#include "infer/operators.h"

struct graph_node *infer_fuse_producer(struct graph *graph, int value);
bool infer_fuse_is(const struct graph_node *node, const char *operation);
bool infer_fuse_used_once(const struct graph *graph, int value);
/* A constant float of one element. */
bool infer_fuse_scalar(const struct graph *graph, int value, float *out);
/* Empties a node whose work another one does now; the passes remove it in the end. */
void infer_fuse_drop(struct graph_node *node);

bool infer_fuse_attention_topk(struct graph *graph, struct err *err) PULMO_MUST_USE;
/* Needs a graph in topological order that holds no dropped node. */
bool infer_fuse_attention_masked(struct graph *graph, struct err *err) PULMO_MUST_USE;

#endif
