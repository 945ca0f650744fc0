/* Builds what a power cut would leave on the disk, from the log of powerfs.
 *
 *   power_replay LOG list                                    a line a sync: "number log-bytes what path"
 *   power_replay LOG build OUT CUT MODEL VARIANT [SEED]      OUT is made anew; CUT = number of a sync, 0 = end of the
 * log
 *
 * The power fails just before sync number CUT takes effect. What its file or folder was synced for before is there. The
 * rest is decided by the model and the variant.
 *
 * MODEL  posix    the strictest reading: a sync of a file covers its data and size alone, a sync of a folder its names
 *                 alone; each name's addition and removal stands for itself, so a rename may leave both names or none
 *        ordered  as a journalling file system does (ext4): names change in one order, and any sync makes all changes
 * of names before it lasting; data still need their own VARIANT none     nothing that was not synced all everything, as
 * after a crash of the process alone names    all names, no data data     all data, no names torn     all names; all
 * data but the last write to each file, of which SEED decides how many sectors came subset   each name and each sector
 * of each write by a coin of SEED; in the posix model also a size without its data; in the ordered one, names up to
 * some change */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "power_log.h"

#define SECTOR_BYTES 512
#define FILE_BYTES_MAX ((uint64_t)1 << 30)

enum variant { VARIANT_NONE, VARIANT_ALL, VARIANT_NAMES, VARIANT_DATA, VARIANT_TORN, VARIANT_SUBSET, VARIANTS };
static const char *const variant_names[] = {"none", "all", "names", "data", "torn", "subset"};

struct list { /* of record numbers or whatever fits */
    size_t *items, count, room;
};

struct node {
    bool folder;
    uint64_t number;         /* of the log; reused by the disk once a file is gone */
    uint8_t *data;           /* what is on the disk for sure */
    uint64_t size, capacity; /* size for sure */
    struct list pending;     /* writes and truncations since the last sync */
    struct entry *entries;   /* of a folder: as the processes saw it and as it is on the disk */
    size_t entry_count, entry_room;
};

/* A name of a folder. history: the changes since the folder was synced, SIZE_MAX-free: pairs of record and node. */
struct entry {
    char *name;
    struct node *live, *lasting;
    struct change {
        size_t record;     /* changes of names are ordered by it */
        struct node *node; /* NULL = removed */
    } * changes;
    size_t change_count;
};

static const uint8_t *log_data;
static size_t *record_at; /* offset of each record */
static size_t record_count;
static struct node **nodes; /* in the order of their making; nodes[0] is the root */
static size_t node_count;
static bool model_ordered;
static uint64_t random_state;

static _Noreturn void stop(const char *what, const char *which) {
    fprintf(stderr, "power_replay: %s %s: %s\n", what, which, strerror(errno));
    exit(1);
}

static void *grown(void *items, size_t count, size_t size) {
    void *more = realloc(items, count * size);
    if (!more)
        stop("no memory for", "the log");
    return more;
}

static void list_add(struct list *list, size_t item) {
    if (list->count == list->room)
        list->items = grown(list->items, list->room = list->room ? 2 * list->room : 16, sizeof *list->items);
    list->items[list->count++] = item;
}

/* SplitMix64 (Steele, Lea, Flood 2014): the same states for the same seed on every machine. */
static uint64_t random_next(void) {
    uint64_t mixed = random_state += 0x9E3779B97F4A7C15U;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBU;
    return mixed ^ (mixed >> 31);
}

static bool coin(void) {
    return random_next() >> 63;
}

/* ---- the log ----------------------------------------------------------------------------------------- */

static struct power_record record_head(size_t index) {
    struct power_record record;
    memcpy(&record, log_data + record_at[index], sizeof record);
    return record;
}

static const uint8_t *record_body(size_t index) {
    return log_data + record_at[index] + sizeof(struct power_record);
}

static const char *record_path(size_t index) {
    return (const char *)record_body(index);
}

static bool is_sync(uint32_t kind) {
    return kind == POWER_SYNC || kind == POWER_SYNC_FAILED || kind == POWER_SYNC_FOLDER || kind == POWER_SYNC_ALL;
}

static void log_read(const char *path) {
    struct stat status;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &status) != 0)
        stop("cannot read", path);
    size_t size = (size_t)status.st_size, room = 0;
    if (size)
        log_data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (size && log_data == MAP_FAILED)
        stop("cannot map", path);
    close(file);
    for (size_t at = 0; at + sizeof(struct power_record) <= size;) {
        struct power_record record;
        memcpy(&record, log_data + at, sizeof record);
        if (at + sizeof record + record.size > size)
            break;
        if (record_count == room)
            record_at = grown(record_at, room = room ? 2 * room : 4096, sizeof *record_at);
        record_at[record_count++] = at;
        at += sizeof record + record.size;
    }
}

/* ---- the tree ---------------------------------------------------------------------------------------- */

static struct node *node_new(bool folder, uint64_t number) {
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        stop("no memory for", "a node");
    node->folder = folder;
    node->number = number;
    if (node_count % 256 == 0)
        nodes = grown(nodes, node_count + 256, sizeof *nodes);
    return nodes[node_count++] = node;
}

/* The newest of this number: an older one is gone. */
static struct node *node_find(uint64_t number) {
    for (size_t index = node_count; index-- > 0;)
        if (!nodes[index]->folder && nodes[index]->number == number)
            return nodes[index];
    return NULL;
}

static struct entry *entry_get(struct node *folder, const char *name, size_t length) {
    for (size_t index = 0; index < folder->entry_count; index++)
        if (strlen(folder->entries[index].name) == length && strncmp(folder->entries[index].name, name, length) == 0)
            return &folder->entries[index];
    if (folder->entry_count == folder->entry_room)
        folder->entries = grown(folder->entries, folder->entry_room = folder->entry_room ? 2 * folder->entry_room : 8,
                                sizeof(struct entry));
    struct entry *entry = &folder->entries[folder->entry_count++];
    *entry = (struct entry){.name = strndup(name, length)};
    if (!entry->name)
        stop("no memory for", "a name");
    return entry;
}

/* The entry of a path below the mount, "/a/b"; NULL for the root itself. */
static struct entry *entry_of(const char *path) {
    struct node *folder = nodes[0];
    struct entry *entry = NULL;
    while (*path) {
        path += strspn(path, "/");
        size_t length = strcspn(path, "/");
        if (!length)
            break;
        if (!folder || !folder->folder)
            stop("a path through no folder in the log:", path);
        entry = entry_get(folder, path, length);
        folder = entry->live;
        path += length;
    }
    return entry;
}

static struct node *folder_of(const char *path) {
    struct entry *entry = entry_of(path);
    return entry ? entry->live : nodes[0];
}

static void entry_change(struct entry *entry, struct node *node, size_t record) {
    entry->changes = grown(entry->changes, entry->change_count + 1, sizeof *entry->changes);
    entry->changes[entry->change_count++] = (struct change){record, node};
    entry->live = node;
}

static void folder_sync(struct node *folder) {
    for (size_t index = 0; index < folder->entry_count; index++) {
        folder->entries[index].lasting = folder->entries[index].live;
        folder->entries[index].change_count = 0;
    }
}

static void names_sync(void) {
    for (size_t index = 0; index < node_count; index++)
        if (nodes[index]->folder)
            folder_sync(nodes[index]);
}

/* ---- content ----------------------------------------------------------------------------------------- */

static void size_set(struct node *node, uint64_t size) {
    if (size > FILE_BYTES_MAX)
        stop("a file of the log is too large:", "1 GiB");
    if (size > node->capacity) {
        uint64_t capacity = node->capacity ? node->capacity : 4096;
        while (capacity < size)
            capacity *= 2;
        uint8_t *data = calloc(1, capacity);
        if (!data)
            stop("no memory for", "a file");
        if (node->size)
            memcpy(data, node->data, node->size);
        free(node->data);
        node->data = data;
        node->capacity = capacity;
    }
    if (size < node->size)
        memset(node->data + size, 0, node->size - size);
    node->size = size;
}

static void write_part(struct node *node, size_t record, size_t from, size_t size) {
    uint64_t offset = record_head(record).offset + from;
    if (offset + size > node->size)
        size_set(node, offset + size);
    memcpy(node->data + offset, record_body(record) + from, size);
}

static void apply(struct node *node, size_t record) {
    struct power_record head = record_head(record);
    if (head.kind == POWER_TRUNCATE)
        size_set(node, head.offset);
    else
        write_part(node, record, 0, head.size);
}

static void file_sync(struct node *node) {
    for (size_t index = 0; index < node->pending.count; index++)
        apply(node, node->pending.items[index]);
    node->pending.count = 0;
}

/* Sectors are those of the file: a write that begins within one may lose that beginning alone. */
static void apply_sectors(struct node *node, size_t record, bool (*comes)(size_t sector, void *context),
                          void *context) {
    struct power_record head = record_head(record);
    size_t sector = 0;
    for (size_t from = 0; from < head.size; sector++) {
        size_t size = SECTOR_BYTES - (size_t)((head.offset + from) % SECTOR_BYTES);
        size = size < head.size - from ? size : head.size - from;
        if (comes(sector, context))
            write_part(node, record, from, size);
        from += size;
    }
}

static bool before_limit(size_t sector, void *context) {
    const size_t *limit = context;
    return sector < *limit;
}

static bool by_coin(size_t sector, void *context) {
    (void)sector;
    (void)context;
    return coin();
}

static void apply_torn(struct node *node, size_t record) {
    struct power_record head = record_head(record);
    size_t limit = head.kind == POWER_WRITE ? (size_t)(random_next() % (head.size / SECTOR_BYTES + 1)) : 0;
    if (head.kind == POWER_WRITE)
        apply_sectors(node, record, before_limit, &limit);
}

static void apply_by_coin(struct node *node, size_t record) {
    struct power_record head = record_head(record);
    unsigned choice = (unsigned)(random_next() % 3);
    if (choice == 0) { /* all of it */
        apply(node, record);
    } else if (choice == 1 && head.kind == POWER_WRITE) {
        apply_sectors(node, record, by_coin, NULL);
    } else if (!model_ordered && head.kind == POWER_WRITE && coin() && head.offset + head.size > node->size) {
        size_set(node, head.offset + head.size); /* the size came, its data did not */
    }
}

/* ---- replay and cut ---------------------------------------------------------------------------------- */

static void replay_name(size_t index, const struct power_record *head) {
    const char *path = record_path(index);
    if (head->kind == POWER_RENAME) {
        struct node *moved = entry_of(path)->live;
        entry_change(entry_of(path + strlen(path) + 1), moved, index);
        entry_change(entry_of(path), NULL, index); /* found again: the first may have moved */
    } else if (head->kind == POWER_UNLINK || head->kind == POWER_RMDIR) {
        entry_change(entry_of(path), NULL, index);
    } else if (head->kind == POWER_LINK) {
        entry_change(entry_of(path), node_find(head->node), index);
    } else {
        entry_change(entry_of(path), node_new(head->kind == POWER_FOLDER, head->node), index);
    }
}

static void replay_sync(size_t index, const struct power_record *head) {
    struct node *node = head->kind == POWER_SYNC || head->kind == POWER_SYNC_FAILED ? node_find(head->node) : NULL;
    if (node && head->kind == POWER_SYNC)
        file_sync(node);
    if (node && head->kind == POWER_SYNC_FAILED)
        node->pending.count = 0;
    if (head->kind == POWER_SYNC_FOLDER)
        folder_sync(folder_of(record_path(index)));
    if (head->kind == POWER_SYNC_ALL)
        for (size_t each = 0; each < node_count; each++)
            file_sync(nodes[each]);
    if (head->kind == POWER_SYNC_ALL || (model_ordered && head->kind != POWER_SYNC_FAILED))
        names_sync();
}

/* Up to, and without, sync number cut; 0 = to the end. */
static void replay(size_t cut) {
    size_t syncs = 0;
    node_new(true, 0);
    for (size_t index = 0; index < record_count; index++) {
        struct power_record head = record_head(index);
        if (is_sync(head.kind)) {
            if (++syncs == cut)
                return;
            replay_sync(index, &head);
        } else if (head.kind == POWER_WRITE || head.kind == POWER_TRUNCATE) {
            struct node *node = node_find(head.node);
            if (node)
                list_add(&node->pending, index);
        } else {
            replay_name(index, &head);
        }
    }
    if (cut > syncs)
        stop("there is no such sync in", "the log");
}

static void cut_content(struct node *node, enum variant variant) {
    size_t count = node->pending.count;
    if (variant == VARIANT_NONE || variant == VARIANT_NAMES)
        return;
    for (size_t index = 0; index < count; index++) {
        size_t record = node->pending.items[index];
        if (variant == VARIANT_SUBSET)
            apply_by_coin(node, record);
        else if (variant == VARIANT_TORN && index + 1 == count)
            apply_torn(node, record);
        else
            apply(node, record);
    }
}

static void cut_names(struct node *folder, enum variant variant, size_t last_record) {
    for (size_t index = 0; index < folder->entry_count; index++) {
        struct entry *entry = &folder->entries[index];
        if (variant == VARIANT_ALL || variant == VARIANT_NAMES || variant == VARIANT_TORN)
            entry->lasting = entry->live;
        for (size_t change = 0; variant == VARIANT_SUBSET && change < entry->change_count; change++)
            if (model_ordered ? entry->changes[change].record <= last_record : coin())
                entry->lasting = entry->changes[change].node;
    }
}

/* Where the journal of names ends: at some change that was not synced, or before all of them. */
static size_t names_end(void) {
    struct list changes = {0};
    list_add(&changes, 0);
    for (size_t index = 0; index < node_count; index++)
        for (size_t entry = 0; entry < nodes[index]->entry_count; entry++)
            for (size_t change = 0; change < nodes[index]->entries[entry].change_count; change++)
                list_add(&changes, nodes[index]->entries[entry].changes[change].record);
    size_t end = changes.items[random_next() % changes.count];
    free(changes.items);
    return end;
}

static void cut_all(enum variant variant) {
    size_t end = names_end();
    for (size_t index = 0; index < node_count; index++) {
        if (nodes[index]->folder)
            cut_names(nodes[index], variant, end);
        else
            cut_content(nodes[index], variant);
    }
}

/* ---- output ------------------------------------------------------------------------------------------ */

static void file_write(const struct node *node, int folder, const char *name) {
    int file = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (file < 0 || ftruncate(file, (off_t)node->size) != 0)
        stop("cannot make", name);
    static const uint8_t zeros[4096];
    for (uint64_t at = 0; at < node->size;) {
        uint64_t size = node->size - at < sizeof zeros ? node->size - at : sizeof zeros;
        if (memcmp(node->data + at, zeros, size) != 0 &&
            pwrite(file, node->data + at, size, (off_t)at) != (ssize_t)size)
            stop("cannot write", name);
        at += size;
    }
    close(file);
}

static void folder_write(const struct node *node, int folder) {
    for (size_t index = 0; index < node->entry_count; index++) {
        const struct entry *entry = &node->entries[index];
        if (!entry->lasting)
            continue;
        if (!entry->lasting->folder) {
            file_write(entry->lasting, folder, entry->name);
            continue;
        }
        int inner = -1;
        if ((mkdirat(folder, entry->name, 0750) != 0 && errno != EEXIST) ||
            (inner = openat(folder, entry->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
            stop("cannot make", entry->name);
        folder_write(entry->lasting, inner);
        close(inner);
    }
}

static int build(const char *out, size_t cut, enum variant variant) {
    replay(cut);
    cut_all(variant);
    if (mkdir(out, 0750) != 0)
        stop("cannot make", out);
    int folder = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        stop("cannot open", out);
    folder_write(nodes[0], folder);
    return 0;
}

static bool path_find(const struct node *folder, const struct node *wanted, char *out, size_t size) {
    for (size_t index = 0; index < folder->entry_count; index++) {
        const struct entry *entry = &folder->entries[index];
        int length = snprintf(out, size, "/%s", entry->name);
        if (!entry->live || length < 0 || (size_t)length >= size)
            continue;
        if (entry->live == wanted ||
            (entry->live->folder && path_find(entry->live, wanted, out + length, size - (size_t)length)))
            return true;
    }
    return false;
}

static int list(void) {
    size_t syncs = 0;
    node_new(true, 0);
    for (size_t index = 0; index < record_count; index++) {
        struct power_record head = record_head(index);
        if (!is_sync(head.kind)) {
            if (head.kind != POWER_WRITE && head.kind != POWER_TRUNCATE)
                replay_name(index, &head);
            continue;
        }
        char path[PATH_MAX] = "/";
        const struct node *node = node_find(head.node);
        if (head.kind == POWER_SYNC_FOLDER)
            snprintf(path, sizeof path, "%s", record_path(index));
        else if (head.kind != POWER_SYNC_ALL && (!node || !path_find(nodes[0], node, path, sizeof path)))
            snprintf(path, sizeof path, "(gone)");
        printf("%zu %zu %s %s\n", ++syncs, record_at[index],
               head.kind == POWER_SYNC          ? "file"
               : head.kind == POWER_SYNC_FOLDER ? "folder"
               : head.kind == POWER_SYNC_ALL    ? "all"
                                                : "failed",
               path);
    }
    return 0;
}

static int usage(void) {
    fprintf(stderr, "usage: power_replay LOG list | power_replay LOG build OUT CUT posix|ordered VARIANT [SEED]\n");
    return 2;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return usage();
    log_read(argv[1]);
    if (argc == 3 && strcmp(argv[2], "list") == 0)
        return list();
    if (argc < 7 || strcmp(argv[2], "build") != 0)
        return usage();
    model_ordered = strcmp(argv[5], "ordered") == 0;
    random_state = argc > 7 ? strtoull(argv[7], NULL, 10) : 0;
    for (int variant = 0; variant < VARIANTS; variant++)
        if (strcmp(argv[6], variant_names[variant]) == 0)
            return build(argv[3], strtoul(argv[4], NULL, 10), (enum variant)variant);
    return usage();
}
