/* Segment files of the journal: <folder>/journal/NNN.seg.
 *
 * Written once with zeros when made, and written over ever after: then neither block nor size changes, fdatasync has
 * only the content to wait for, and the page cache is warm. Each piece begins on a page of its own, so that a write
 * which a power cut tears cannot touch a neighbour that was acknowledged before. Any thread. */
#ifndef PULMO_STORE_SEGMENT_H
#define PULMO_STORE_SEGMENT_H

#include "pulmo.h"

#define SEGMENT_PAGE 4096
#define SEGMENT_PATH_SIZE 4096

/* The folder of the segments, made when absent. */
bool segment_folder_make(const char *folder, struct err *err) PULMO_MUST_USE;
bool segment_path(const char *folder, int64_t number, char out[SEGMENT_PATH_SIZE], struct err *err) PULMO_MUST_USE;
/* Opens a segment, and makes it, filled and synced, when it is absent or has another size. The descriptor, or -1. */
int segment_open(const char *folder, int64_t number, uint64_t size, struct err *err);
/* A piece's length in the segment, whole pages. */
uint64_t segment_room(size_t size);
/* Writes pieces one after the other, each padded with zeros to whole pages, and lets the disk begin with them. Not
 * synced. */
#define SEGMENT_PIECES_MAX 2
struct segment_piece {
    const void *data;
    size_t size;
};
bool segment_write(int descriptor, uint64_t position, const struct segment_piece *pieces, size_t count,
                   struct err *err) PULMO_MUST_USE;
/* For reading. -1: ERR_NOT_FOUND when there is no such segment; any other error says nothing of what it holds. */
int segment_look(const char *folder, int64_t number, struct err *err);
/* size bytes at position, less where the file ends: *got. */
bool segment_read_at(int descriptor, uint64_t position, size_t size, void *out, size_t *got,
                     struct err *err) PULMO_MUST_USE;
/* size bytes at position, into memory of that size. ERR_CONFLICT when the file is shorter, ERR_NOT_FOUND when it is
 * absent. */
bool segment_read(const char *folder, int64_t number, uint64_t position, size_t size, void *out,
                  struct err *err) PULMO_MUST_USE;

#endif
