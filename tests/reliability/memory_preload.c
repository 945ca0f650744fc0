/* Memory that is refused: preloaded, one allocation of a process fails as if there were none, or all from one on.
 *
 * MEMORY_CONTROL names a file of struct control, which a test writes and reads while the process runs. MEMORY_TRACE, if
 * set, names a file that gets the calls above each allocation that failed, and above a crash.
 * MEMORY_EXCEPT, if set, is part of the name of a library that gets what it asks for: one that does not survive. */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FRAMES 24
#define NEAR 4 /* calls above an allocation that tell whose it is: this file's two, libc's strdup, the library */

/* Written by a test: armed last, and 0 before the other numbers are changed. */
struct control {
    _Atomic uint32_t armed, times; /* times: so many fail, 0 = all that follow */
    _Atomic uint64_t skip;         /* so many are granted before */
    _Atomic uint64_t seen, failed;
};

/* glibc's own, below the names that this library takes. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static struct control *control;
static int trace = -1;
static const char *except;
static _Thread_local int inside __attribute__((tls_model("initial-exec"))); /* the trace may allocate itself */

static void on_crash(int number) {
    void *frames[FRAMES];
    inside++;
    ssize_t ignored = write(trace, "#crashed\n", 9);
    (void)ignored;
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES), trace);
    raise(number); /* SA_RESETHAND: ends the process as it would have */
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MEMORY_CONTROL"), *trace_path = getenv("MEMORY_TRACE");
    void *frames[FRAMES];
    except = getenv("MEMORY_EXCEPT");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (trace_path) {
        (void)backtrace(frames, FRAMES); /* loads what it needs now */
        trace = open(trace_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        const struct sigaction action = {.sa_handler = on_crash, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};
        sigaction(SIGSEGV, &action, NULL);
        sigaction(SIGABRT, &action, NULL);
    }
    if (mapped != MAP_FAILED)
        control = mapped;
}

static void tell(uint64_t number) {
    void *frames[FRAMES];
    char line[32];
    size_t at = sizeof line;
    line[--at] = '\n';
    do
        line[--at] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    line[--at] = '#';
    ssize_t ignored = write(trace, line + at, sizeof line - at);
    (void)ignored;
    inside++;
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES), trace);
    inside--;
}

static int is_excepted(void) {
    void *frames[NEAR + 1];
    inside++;
    int count = except ? backtrace(frames, NEAR + 1) : 0, found = 0;
    for (int index = 0; index < count && !found; index++) {
        Dl_info where;
        found = dladdr(frames[index], &where) && where.dli_fname && strstr(where.dli_fname, except);
    }
    inside--;
    return found;
}

static int refused(void) {
    if (!control || inside || !atomic_load(&control->armed))
        return 0;
    uint64_t number = atomic_fetch_add(&control->seen, 1), skip = atomic_load(&control->skip);
    uint32_t times = atomic_load(&control->times);
    if (number < skip || (times && number >= skip + times) || is_excepted())
        return 0;
    atomic_fetch_add(&control->failed, 1);
    if (trace >= 0)
        tell(number);
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) {
    return refused() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return refused() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    return refused() ? NULL : __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
    return refused() ? NULL : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    return refused() ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    void *made = refused() ? NULL : __libc_memalign(alignment, size);
    if (!made)
        return ENOMEM;
    *out = made;
    return 0;
}
