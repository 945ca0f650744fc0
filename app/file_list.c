#include "app/command.h"

#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 100000

void file_list_free(struct file_list *list) {
    for (size_t index = 0; index < list->count; index++)
        free(list->items[index]);
    free(list->items);
    *list = (struct file_list){0};
}

static bool append(struct file_list *list, const char *path, struct err *err) {
    if (list->count == FILES_MAX)
        return err_set(err, ERR_LIMIT, "more than %d files", FILES_MAX);
    if ((list->count & (list->count - 1)) == 0) { /* at each power of two */
        char **grown = realloc(list->items, (list->count ? list->count * 2 : 1) * sizeof *grown);
        if (!grown)
            return err_set(err, ERR_MEMORY, "out of memory for the list of files");
        list->items = grown;
    }
    char *copy = strdup(path);
    if (!copy)
        return err_set(err, ERR_MEMORY, "out of memory for the list of files");
    list->items[list->count++] = copy;
    return true;
}

static bool walk(const char *path, struct file_list *list, struct err *err) {
    char *roots[] = {(char *)path, NULL};
    FTS *tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    if (!tree)
        return err_set(err, ERR_IO, "cannot read %s: %s", path, strerror(errno));
    bool good = true;
    for (FTSENT *entry; good && (entry = fts_read(tree));) {
        if (entry->fts_info == FTS_F)
            good = append(list, entry->fts_path, err);
        else if (entry->fts_info == FTS_NS || entry->fts_info == FTS_ERR || entry->fts_info == FTS_DNR)
            good = err_set(err, ERR_NOT_FOUND, "cannot read %s: %s", entry->fts_path, strerror(entry->fts_errno));
    }
    fts_close(tree);
    return good;
}

static int compare(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

bool file_list_make(const char *const *paths, size_t count, struct file_list *out, struct err *err) {
    struct file_list list = {0};
    for (size_t index = 0; index < count; index++)
        if (!walk(paths[index], &list, err)) {
            file_list_free(&list);
            return false;
        }
    if (!list.count)
        return err_set(err, ERR_NOT_FOUND, "there is no file in %s", paths[0]);
    qsort(list.items, list.count, sizeof *list.items, compare);
    *out = list;
    return true;
}
