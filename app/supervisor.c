#include "app/pool.h"
#include "app/processes.h"
#include "app/stop.h"
#include "log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKOFF_MAX_MS 30000
#define STOP_WAIT_MS 15000
#define EARLY_MS 60000
#define TEND_MS 1000
/* Their waits are 16 s together: as long as a predecessor that was killed may keep its ports. */
#define FAILURES_MAX 7

struct child {
    const char *name; /* of --only */
    bool spare;       /* runs while the queue asks for it, and ends by itself */
    pid_t pid;        /* 0 = not running */
    int64_t started_ms, due_ms, backoff_ms;
    int failures; /* early ends with an exit status, since the last that was none; -1 = it has lived for long once */
};

static const char *const lasting[] = {"scp", "decode", "work", "web"};
#define CHILDREN_MAX (sizeof lasting / sizeof *lasting + POOL_WORKERS_MAX)

/* What the supervisor does for the store. */
struct tending {
    int64_t due_ms; /* monotonic */
    char fault[496];
};

static void start_child(struct child *child, const char *program, const char *config_path) {
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* no orphan keeps the ports when the supervisor is killed */
        if (getppid() != parent)
            _exit(1);
        if (config_path)
            execl(program, "pulmo", "serve", "-c", config_path, "--only", child->name, (char *)NULL);
        else
            execl(program, "pulmo", "serve", "--only", child->name, (char *)NULL);
        _exit(127);
    }
    child->started_ms = pulmo_monotonic_ms();
    if (pid > 0) {
        child->pid = pid;
        log_event(LOG_INFO, "serve", "child started", "child=%s pid=%d", child->name, (int)pid);
    } else {
        child->due_ms = child->started_ms + 1000;
        log_event(LOG_ERROR, "serve", "child not started", "child=%s reason=\"%s\"", child->name, strerror(errno));
    }
}

/* A child that lived for a minute starts again at once, one that dies early waits twice as long each time. */
static void on_exit_of(struct child *child, int status) {
    int64_t now = pulmo_monotonic_ms();
    bool early = now - child->started_ms < EARLY_MS;
    child->pid = 0;
    if (child->spare && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        log_event(LOG_INFO, "serve", "spare worker ended", "idle=true");
        *child = (struct child){.name = child->name, .spare = true};
        return;
    }
    if (!early)
        child->failures = -1;
    else if (child->failures >= 0)
        child->failures = WIFEXITED(status) && WEXITSTATUS(status) != 0 ? child->failures + 1 : 0;
    child->backoff_ms = !early ? 0 : child->backoff_ms ? child->backoff_ms * 2 : 250;
    if (child->backoff_ms > BACKOFF_MAX_MS)
        child->backoff_ms = BACKOFF_MAX_MS;
    child->due_ms = now + child->backoff_ms;
    log_event(LOG_ERROR, "serve", "child ended", "child=%s exit=%d signal=%d again_in_ms=%lld", child->name,
              WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
              (long long)child->backoff_ms);
}

static size_t reap(struct child *children, size_t count, bool stopping) {
    int status = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (size_t index = 0; index < count; index++)
            if (children[index].pid == pid) {
                if (stopping)
                    children[index].pid = 0;
                else
                    on_exit_of(&children[index], status);
            }
    size_t alive = 0;
    for (size_t index = 0; index < count; index++)
        alive += children[index].pid != 0;
    return alive;
}

/* One that never came up: its port is taken, its model or certificate is no good. The administrator has to act, and
 * sees that by a service that ends rather than by one that starts again for ever. One that ran before is kept trying:
 * reception shall not end because the web does. */
static const struct child *hopeless(const struct child *children, size_t count) {
    for (size_t index = 0; index < count; index++)
        if (children[index].failures >= FAILURES_MAX && !children[index].spare)
            return &children[index];
    return NULL;
}

static void stop_children(struct child *children, size_t count) {
    for (size_t index = 0; index < count; index++)
        if (children[index].pid)
            kill(children[index].pid, SIGTERM);
    int64_t deadline = pulmo_monotonic_ms() + STOP_WAIT_MS;
    while (reap(children, count, true) && pulmo_monotonic_ms() < deadline)
        poll(NULL, 0, 50);
    for (size_t index = 0; index < count; index++)
        if (children[index].pid) {
            /* The store survives this by design; a hanging child must not hold the machine's shutdown. */
            kill(children[index].pid, SIGKILL);
            waitpid(children[index].pid, NULL, 0);
        }
}

/* Judges the database, migrates it once before four processes open it, and shows a bad configuration here. */
static bool prepare_store(const struct config *config, struct err *err) {
    struct store_config store_config = processes_store_config(config);
    if (!store_recover(&store_config, err))
        return false;
    PULMO_SCOPED(store_close_at) struct store *store = processes_store_open(config, err);
    return store != NULL;
}

/* The reserve of disk space, and whether a child met a damaged database. A fault is logged when it is a new one. */
static bool tend_store(const struct config *config, struct tending *tending) {
    struct store_config store_config = processes_store_config(config);
    struct store_tended tended = {0};
    struct err err = {0};
    int64_t now = pulmo_monotonic_ms();
    if (now < tending->due_ms)
        return true;
    tending->due_ms = now + TEND_MS;
    if (!store_tend(&store_config, &tended, &err) && strcmp(err.text, tending->fault) != 0)
        log_err(LOG_ERROR, "serve", "disk not tended", &err);
    snprintf(tending->fault, sizeof tending->fault, "%s", err.text);
    if (tended.reserve_given_up)
        log_event(LOG_ERROR, "serve", "disk full", "free_bytes=%llu reserve=\"given up\"",
                  (unsigned long long)tended.free_bytes);
    if (tended.reserve_made)
        log_event(LOG_INFO, "serve", "reserve made", "free_bytes=%llu", (unsigned long long)tended.free_bytes);
    return !tended.database_suspect;
}

/* All children let go of the database, which is then judged: sound, they start again; damaged, the service ends. */
static bool judge_database(struct child *children, size_t count, struct pool *pool, struct err *err) {
    log_event(LOG_ERROR, "serve", "database suspect", "children=%zu", count);
    pool_release(pool);
    stop_children(children, count);
    for (size_t index = 0; index < count; index++)
        children[index].due_ms = 0;
    return prepare_store(pool->config, err);
}

/* The processes that always run, then the spare ones. Returns how many. */
static size_t list_children(const struct pool *pool, struct child children[CHILDREN_MAX]) {
    size_t count = 0;
    for (size_t index = 0; index < sizeof lasting / sizeof *lasting; index++)
        children[count++] = (struct child){.name = lasting[index]};
    for (int64_t index = 1; index < pool->floor; index++)
        children[count++] = (struct child){.name = "work"};
    for (int64_t index = pool->floor; index < pool->ceiling; index++)
        children[count++] = (struct child){.name = "spare", .spare = true};
    return count;
}

/* What is not running and due. A spare one that rests is only started when the queue asks for more than there are. */
static void start_due(struct child *children, size_t count, struct pool *pool, const char *const command[2]) {
    int64_t missing = pool_wanted(pool) - pool->floor;
    for (size_t index = 0; index < count; index++)
        missing -= children[index].spare && children[index].pid;
    for (size_t index = 0; index < count; index++) {
        if (children[index].pid || pulmo_monotonic_ms() < children[index].due_ms)
            continue;
        if (children[index].spare && missing-- <= 0)
            continue;
        start_child(&children[index], command[0], command[1]);
    }
}

bool supervisor_run(const char *program, const char *config_path, const struct config *config, struct err *err) {
    if (!prepare_store(config, err))
        return false;
    struct child children[CHILDREN_MAX] = {0};
    const char *const command[2] = {program, config_path};
    PULMO_SCOPED(pool_release) struct pool pool = pool_begin(config);
    size_t count = list_children(&pool, children);
    const struct child *failed = NULL;
    struct tending tending = {0};
    while (!stop_requested && !failed) {
        if (!tend_store(config, &tending) && !judge_database(children, count, &pool, err))
            return false;
        reap(children, count, false);
        failed = hopeless(children, count);
        if (!failed)
            start_due(children, count, &pool, command);
        poll(NULL, 0, 250); /* SIGCHLD and SIGTERM end it early */
    }
    log_event(LOG_INFO, "serve", "stopping", "children=%zu", count);
    stop_children(children, count);
    return !failed || err_set(err, ERR_CONFIG, "the process \"%s\" ended %d times at its start; it said why above",
                              failed->name, FAILURES_MAX);
}
