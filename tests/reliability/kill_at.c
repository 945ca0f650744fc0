/* Runs a command and kills it (SIGKILL) before or after its Nth durable system call, or lists all of them.
 *
 *   kill_at FOLDER REPORT COMMAND...                    lists
 *   kill_at FOLDER REPORT before|after N COMMAND...     kills
 *
 * A fault point is a call that changes, or makes durable, a file of FOLDER: write, sync, rename, unlink, link,
 * truncate, allocate, and what makes a file or folder that is not there yet. Sockets, logs and files elsewhere do not
 * count. The points of all threads and child processes are numbered from 1 in the order of their entries.
 *
 * A seccomp filter stops the command at those calls alone, so that everything else runs at full speed; at such a stop
 * the call has not begun. "before" kills there: the kernel then skips the call. "after" lets it go on to its exit and
 * kills before the program sees the result. REPORT receives a line "N call path" a point, in the end "killed N" or
 * "ended STATUS". Exit status 0 = killed or listed, 1 = it ended before point N, 2 = usage, 77 = tracing is refused. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "kill_at knows the system calls of x86-64 and AArch64"
#endif

#define PAGE_BYTES 4096
#define OPTIONS                                                                                                       \
    (PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | \
     PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)

/* Which file a call changes. The numbers are those of its arguments. */
enum target {
    TARGET_DESCRIPTOR, /* 0 */
    TARGET_PATH,       /* 0 */
    TARGET_AT,         /* folder 0, path 1 */
    TARGET_SECOND,     /* path 1 */
    TARGET_SECOND_AT,  /* folder 2, path 3 */
    TARGET_ALL,        /* everything */
    TARGET_NEW_PATH,   /* as TARGET_PATH and TARGET_AT; only where nothing is there yet */
    TARGET_NEW_AT,
};

static const struct call {
    long number;
    const char *name;
    enum target target;
} calls[] = {
    {SYS_write, "write", TARGET_DESCRIPTOR},
    {SYS_pwrite64, "pwrite64", TARGET_DESCRIPTOR},
    {SYS_writev, "writev", TARGET_DESCRIPTOR},
    {SYS_pwritev, "pwritev", TARGET_DESCRIPTOR},
    {SYS_pwritev2, "pwritev2", TARGET_DESCRIPTOR},
    {SYS_copy_file_range, "copy_file_range", TARGET_DESCRIPTOR},
    {SYS_sendfile, "sendfile", TARGET_DESCRIPTOR},
    {SYS_fsync, "fsync", TARGET_DESCRIPTOR},
    {SYS_fdatasync, "fdatasync", TARGET_DESCRIPTOR},
    {SYS_sync_file_range, "sync_file_range", TARGET_DESCRIPTOR},
    {SYS_syncfs, "syncfs", TARGET_DESCRIPTOR},
    {SYS_sync, "sync", TARGET_ALL},
    {SYS_ftruncate, "ftruncate", TARGET_DESCRIPTOR},
    {SYS_truncate, "truncate", TARGET_PATH},
    {SYS_fallocate, "fallocate", TARGET_DESCRIPTOR},
    {SYS_fchmod, "fchmod", TARGET_DESCRIPTOR},
    {SYS_renameat, "renameat", TARGET_SECOND_AT},
    {SYS_renameat2, "renameat2", TARGET_SECOND_AT},
    {SYS_linkat, "linkat", TARGET_SECOND_AT},
    {SYS_unlinkat, "unlinkat", TARGET_AT},
    {SYS_mkdirat, "mkdirat", TARGET_NEW_AT},
    {SYS_mknodat, "mknodat", TARGET_NEW_AT},
    {SYS_openat, "openat", TARGET_NEW_AT},
#ifdef SYS_rename
    {SYS_rename, "rename", TARGET_SECOND},
    {SYS_link, "link", TARGET_SECOND},
    {SYS_unlink, "unlink", TARGET_PATH},
    {SYS_rmdir, "rmdir", TARGET_PATH},
    {SYS_mkdir, "mkdir", TARGET_NEW_PATH},
    {SYS_mknod, "mknod", TARGET_NEW_PATH},
    {SYS_open, "open", TARGET_NEW_PATH},
    {SYS_creat, "creat", TARGET_NEW_PATH},
#endif
};
#define CALLS (sizeof calls / sizeof *calls)

static const struct call *call_of(uint64_t number) {
    for (size_t index = 0; index < CALLS; index++)
        if ((uint64_t)calls[index].number == number)
            return &calls[index];
    return NULL;
}

/* ---- the command ------------------------------------------------------------------------------------- */

/* Stops at the calls of the table, lets everything else pass. */
static bool filter_install(void) {
    struct sock_filter program[2 * CALLS + 8];
    unsigned short count = 0;
    program[count++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    program[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    program[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program[count++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t index = 0; index < CALLS; index++) {
        program[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[index].number, 0, 1);
        program[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    }
    program[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog whole = {.len = count, .filter = program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &whole) == 0;
}

static pid_t command_start(char **command) {
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) != 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) { /* waits until it is traced: without a tracer the filter's calls would fail */
        char byte;
        close(ready[1]);
        if (read(ready[0], &byte, 1) != 1 || !filter_install())
            _exit(77);
        execvp(command[0], command);
        fprintf(stderr, "kill_at: cannot run %s: %s\n", command[0], strerror(errno));
        _exit(127);
    }
    bool traced = pid > 0 && ptrace(PTRACE_SEIZE, pid, NULL, OPTIONS) == 0 && write(ready[1], "", 1) == 1;
    close(ready[0]);
    close(ready[1]);
    return traced ? pid : -1;
}

/* ---- a stop ------------------------------------------------------------------------------------------ */

/* A text of the tracee, read page by page since the page after its end may be missing. */
static bool text_read(pid_t tid, uint64_t address, char out[PATH_MAX]) {
    size_t size = 0;
    while (size < PATH_MAX - 1) {
        size_t wanted = PAGE_BYTES - (size_t)((address + size) % PAGE_BYTES);
        if (wanted > PATH_MAX - 1 - size)
            wanted = PATH_MAX - 1 - size;
        struct iovec here = {out + size, wanted}, there = {(void *)(uintptr_t)(address + size), wanted};
        ssize_t got = process_vm_readv(tid, &here, 1, &there, 1, 0);
        if (got <= 0)
            return false;
        if (memchr(out + size, '\0', (size_t)got))
            return true;
        size += (size_t)got;
    }
    return false;
}

/* What a link below /proc of the tracee leads to: "fd/5", "cwd". */
static bool link_read(pid_t tid, const char *name, char out[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/%d/%s", (int)tid, name);
    ssize_t size = readlink(link, out, PATH_MAX - 1);
    if (size < 0)
        return false;
    out[size] = '\0';
    return true;
}

static bool descriptor_path(pid_t tid, uint64_t descriptor, char out[PATH_MAX]) {
    char name[32];
    snprintf(name, sizeof name, "fd/%d", (int)descriptor);
    return link_read(tid, name, out);
}

static bool path_read(pid_t tid, uint64_t folder, uint64_t address, char out[PATH_MAX]) {
    char text[PATH_MAX], base[PATH_MAX];
    if (!text_read(tid, address, text))
        return false;
    bool absolute = text[0] == '/';
    if (!absolute && !((int)folder == AT_FDCWD ? link_read(tid, "cwd", base) : descriptor_path(tid, folder, base)))
        return false;
    return snprintf(out, PATH_MAX, "%s%s%s", absolute ? "" : base, absolute ? "" : "/", text) < PATH_MAX;
}

static bool path_new(pid_t tid, uint64_t folder, uint64_t address, char out[PATH_MAX]) {
    return path_read(tid, folder, address, out) && access(out, F_OK) != 0;
}

static bool target_path(pid_t tid, const struct call *call, const uint64_t *argument, char out[PATH_MAX]) {
    uint64_t here = (uint64_t)AT_FDCWD;
    bool opens = call->number == SYS_openat;
    switch (call->target) {
    case TARGET_DESCRIPTOR: return descriptor_path(tid, argument[0], out);
    case TARGET_PATH: return path_read(tid, here, argument[0], out);
    case TARGET_AT: return path_read(tid, argument[0], argument[1], out);
    case TARGET_SECOND: return path_read(tid, here, argument[1], out);
    case TARGET_SECOND_AT: return path_read(tid, argument[2], argument[3], out);
    case TARGET_ALL: return true;
    case TARGET_NEW_PATH: return path_new(tid, here, argument[0], out);
    case TARGET_NEW_AT: return (!opens || argument[2] & O_CREAT) && path_new(tid, argument[0], argument[1], out);
    }
    return false;
}

/* ---- the tracer -------------------------------------------------------------------------------------- */

struct tracer {
    const char *folder;
    FILE *report;
    bool after;
    long wanted;  /* 0 = list only */
    long count;   /* points so far */
    pid_t ending; /* the thread whose call is let through to its end, then it is killed; 0 = none */
    bool killed;
    int status; /* of the command */
};

static pid_t command_pid;

static void on_signal(int number) {
    kill(command_pid, number); /* asked to end: the command is */
}

static pid_t process_of(pid_t tid) {
    char path[64], line[256];
    int process = tid;
    snprintf(path, sizeof path, "/proc/%d/status", (int)tid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "Tgid: %d", &process) == 1)
            break;
    if (file)
        fclose(file);
    return process;
}

static void kill_process(struct tracer *tracer, pid_t tid) {
    fprintf(tracer->report, "killed %ld\n", tracer->count);
    tracer->killed = true;
    tracer->wanted = 0;
    kill(process_of(tid), SIGKILL);
}

static bool is_inside(const char *folder, const char *path) {
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* The request that lets the thread go on: to the call's exit when the kill comes after it. */
static enum __ptrace_request on_call(struct tracer *tracer, pid_t tid) {
    struct __ptrace_syscall_info info = {0};
    char path[PATH_MAX] = "";
    if (tracer->killed || ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) <= 0)
        return PTRACE_CONT;
    const struct call *call = call_of(info.seccomp.nr);
    uint64_t argument[6];
    for (int index = 0; index < 6; index++)
        argument[index] = info.seccomp.args[index];
    if (!call || !target_path(tid, call, argument, path) || (*path && !is_inside(tracer->folder, path)))
        return PTRACE_CONT;
    tracer->count++;
    fprintf(tracer->report, "%ld %s %s\n", tracer->count, call->name, path + (*path ? strlen(tracer->folder) : 0));
    if (tracer->count != tracer->wanted)
        return PTRACE_CONT;
    if (tracer->after) {
        tracer->ending = tid;
        return PTRACE_SYSCALL;
    }
    kill_process(tracer, tid);
    return PTRACE_CONT;
}

static void on_stop(struct tracer *tracer, pid_t tid, int status) {
    int number = WSTOPSIG(status), event = status >> 16, deliver = 0;
    enum __ptrace_request request = PTRACE_CONT;
    if (event == PTRACE_EVENT_SECCOMP)
        request = on_call(tracer, tid);
    else if (number == (SIGTRAP | 0x80) && tid == tracer->ending)
        kill_process(tracer, tid);
    else if (!event && number != (SIGTRAP | 0x80))
        deliver = number;
    ptrace(request, tid, NULL, deliver); /* fails when the thread is gone: so be it */
}

static void trace(struct tracer *tracer) {
    int status = 0;
    for (;;) {
        pid_t tid = waitpid(-1, &status, __WALL);
        if (tid < 0 && errno != EINTR)
            return;
        if (tid > 0 && WIFSTOPPED(status))
            on_stop(tracer, tid, status);
        else if (tid == command_pid)
            tracer->status = status;
    }
}

static int usage(void) {
    fprintf(stderr, "usage: kill_at FOLDER REPORT [before|after N] COMMAND...\n");
    return 2;
}

int main(int argc, char **argv) {
    char folder[PATH_MAX];
    struct tracer tracer = {.folder = folder};
    int first = 3;
    if (argc < 4)
        return usage();
    tracer.after = strcmp(argv[3], "after") == 0;
    if (tracer.after || strcmp(argv[3], "before") == 0) {
        tracer.wanted = argc > 5 ? strtol(argv[4], NULL, 10) : 0;
        first = 5;
        if (tracer.wanted < 1)
            return usage();
    }
    bool listing = !tracer.wanted;
    if (!realpath(argv[1], folder) || !(tracer.report = fopen(argv[2], "we"))) {
        fprintf(stderr, "kill_at: %s or %s: %s\n", argv[1], argv[2], strerror(errno));
        return 2;
    }
    command_pid = command_start(argv + first);
    if (command_pid < 0) {
        fprintf(stderr, "kill_at: this system does not allow tracing: %s\n", strerror(errno));
        return 77;
    }
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
    trace(&tracer);
    if (!tracer.killed)
        fprintf(tracer.report, "ended %d\n", WIFEXITED(tracer.status) ? WEXITSTATUS(tracer.status) : -1);
    fclose(tracer.report);
    return listing || tracer.killed ? 0 : 1;
}
