/* Drives a fuzz target as a plain test, without libFuzzer: run_corpus FOLDER...
 *
 * Each file of the folders goes in whole, cut short at many lengths, and with bits turned; also the empty input. The
 * damage is the same in every run, so that a failure can be repeated. A crash or a sanitizer's report is the failure;
 * a folder without any file is one too, since such a test would prove nothing. */
#include "pulmo.h"
#include "random.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_BYTES_MAX ((size_t)4 << 20)
#define CUTS_MAX 64
#define DAMAGES_MAX 128

/* A copy of exactly the size, so that the address sanitizer sees a read past its end. */
static void run_copy(const uint8_t *data, size_t size) {
    uint8_t *copy = calloc(size ? size : 1, 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void run_cuts(const struct bytes *file) {
    size_t step = file->size / CUTS_MAX + 1;
    for (size_t size = 0; size < file->size; size += step)
        run_copy(file->data, size);
}

static void run_damaged(struct bytes *file, uint32_t seed) {
    for (uint32_t round = 0; file->size && round < DAMAGES_MAX; round++) {
        uint32_t random[4];
        random_philox((uint32_t[2]){seed, 0}, (uint32_t[4]){round, 0, 0, 0}, random);
        /* most headers lie in the first 4 KiB: half of the rounds stay there */
        size_t reach = round % 2 && file->size > 4096 ? 4096 : file->size;
        size_t at = random[0] % reach;
        uint8_t kept = file->data[at];
        file->data[at] = (uint8_t)random[1];
        run_copy(file->data, file->size);
        file->data[at] = kept;
    }
}

static bool run_file(const char *folder, const char *name, uint32_t seed) {
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    PULMO_SCOPED(bytes_free) struct bytes file = {0};
    struct err err = {0};
    if (length < 0 || (size_t)length >= sizeof path || !bytes_read_file(path, INPUT_BYTES_MAX, &file, &err)) {
        fprintf(stderr, "%s/%s: %s\n", folder, name, err.text);
        return false;
    }
    run_copy(file.data, file.size);
    run_cuts(&file);
    run_damaged(&file, seed);
    return true;
}

static int run_folder(const char *folder) {
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, NULL, alphasort);
    int files = 0;
    for (int index = 0; index < count; index++) {
        if (entries[index]->d_name[0] != '.' && run_file(folder, entries[index]->d_name, (uint32_t)files))
            files++;
        free(entries[index]);
    }
    free(entries);
    if (!files)
        fprintf(stderr, "%s: no input there\n", folder);
    return files;
}

int main(int count, char **arguments) {
    run_copy(NULL, 0);
    bool complete = count > 1;
    for (int index = 1; index < count; index++)
        complete = run_folder(arguments[index]) > 0 && complete;
    return complete ? EXIT_SUCCESS : EXIT_FAILURE;
}
