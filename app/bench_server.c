#include "app/bench.h"
#include "dicom/dicom.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READY_MS 60000

extern char **environ;

/* ---- processes --------------------------------------------------------------------------------------- */

static bool is_nodelay(const char *entry) {
    return strncmp(entry, "TCP_NODELAY=", 12) == 0;
}

/* DCMTK 3.6.7 leaves Nagle's algorithm on unless the environment says TCP_NODELAY. */
static char **environment_make(bool nodelay, struct err *err) {
    size_t count = 0, kept = 0;
    static char on[] = "TCP_NODELAY=1";
    while (environ[count])
        count++;
    char **made = pulmo_alloc(count + 2, sizeof *made, err);
    for (size_t index = 0; made && index < count; index++)
        if (!is_nodelay(environ[index]))
            made[kept++] = environ[index];
    if (made && nodelay)
        made[kept] = on;
    return made;
}

bool bench_spawn(const struct bench_run *run, pid_t *out, struct err *err) {
    PULMO_SCOPED(pulmo_free_at) char **environment = environment_make(run->nodelay, err);
    posix_spawn_file_actions_t actions;
    if (!environment)
        return false;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, run->log ? run->log : "/dev/null",
                                     O_WRONLY | O_CREAT | O_APPEND, 0640);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    int fault =
        posix_spawnp(out, run->arguments[0], &actions, NULL, (char *const *)(uintptr_t)run->arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    return fault == 0 || err_set(err, fault == ENOENT ? ERR_NOT_FOUND : ERR_INTERNAL, "cannot start %s: %s",
                                 run->arguments[0], strerror(fault));
}

int bench_wait(pid_t process) {
    int status = 0;
    while (waitpid(process, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- receivers --------------------------------------------------------------------------------------- */

/* Of the system's choice, and free a moment ago. */
static bool port_find(uint16_t *out, struct err *err) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = probe >= 0 && bind(probe, (struct sockaddr *)&address, size) == 0 &&
                getsockname(probe, (struct sockaddr *)&address, &size) == 0;
    if (probe >= 0)
        close(probe);
    *out = ntohs(address.sin_port);
    return good || err_set(err, ERR_NETWORK, "no free port: %s", strerror(errno));
}

struct plan {
    char folder[2048], config[2200], log[2200], port[8];
    const char *arguments[8];
};

static bool config_write(const struct plan *plan, const char *text, struct err *err) {
    return bytes_write_file(plan->config, text, strlen(text), false, err);
}

/* Reception alone, as the peers are: nothing is decoded or analysed beside. */
static bool plan_pulmo(struct plan *plan, const struct bench_server *server, struct err *err) {
    char text[4096];
    uint16_t https = 0;
    if (!port_find(&https, err))
        return false;
    snprintf(text, sizeof text,
             "data_folder = %s/data\ndicom_port = %u\nhttps_port = %u\nhttps_bind = 127.0.0.1\nquiet_ms = 3600000\n"
             "associations_max = 64\ndisk_reserve_mb = 64\n",
             plan->folder, server->port, https);
    memcpy(plan->arguments, (const char *const[]){"/proc/self/exe", "serve", "-c", plan->config, "--only", "scp", NULL},
           7 * sizeof *plan->arguments);
    return config_write(plan, text, err);
}

static bool plan_orthanc(struct plan *plan, const struct bench_server *server, struct err *err) {
    char text[4096];
    const char *program = access("/usr/sbin/Orthanc", X_OK) == 0 ? "/usr/sbin/Orthanc" : "Orthanc";
    snprintf(
        text, sizeof text,
        "{\"StorageDirectory\": \"%s\", \"IndexDirectory\": \"%s\", \"Plugins\": [], \"HttpServerEnabled\": false,"
        " \"DicomAet\": \"%s\", \"DicomPort\": %u, \"DicomAlwaysAllowStore\": true, \"DicomAlwaysAllowEcho\": true,"
        " \"DicomThreadsCount\": 32}",
        plan->folder, plan->folder, server->ae_title, server->port);
    memcpy(plan->arguments, (const char *const[]){program, plan->config, NULL}, 3 * sizeof *plan->arguments);
    return config_write(plan, text, err);
}

static bool plan_storescp(struct plan *plan, const struct bench_server *server, struct err *err) {
    (void)server;
    (void)err;
    memcpy(plan->arguments, (const char *const[]){"storescp", "--fork", "-od", plan->folder, plan->port, NULL},
           6 * sizeof *plan->arguments);
    return true;
}

static const struct receiver {
    const char *name, *ae_title;
    bool (*plan)(struct plan *plan, const struct bench_server *server, struct err *err);
} receivers[] = {
    [BENCH_PULMO] = {"Pulmo", "PULMO", plan_pulmo},
    [BENCH_ORTHANC] = {"Orthanc", "ORTHANC", plan_orthanc},
    [BENCH_STORESCP] = {"storescp", "STORESCP", plan_storescp},
};

static bool wait_until_ready(const struct bench_server *server, struct err *err) {
    const struct dicom_destination destination = {.host = "127.0.0.1",
                                                  .called_aet = server->ae_title,
                                                  .calling_aet = "BENCH",
                                                  .port = server->port,
                                                  .timeout_s = 10};
    for (int64_t until_ms = pulmo_monotonic_ms() + READY_MS; pulmo_monotonic_ms() < until_ms;) {
        struct err silent = {0};
        if (dicom_echo(&destination, &silent))
            return true;
        if (waitpid(server->process, NULL, WNOHANG) == server->process)
            return err_set(err, ERR_INTERNAL, "%s ended at once", server->name);
        nanosleep(&(struct timespec){.tv_nsec = 100 * 1000000L}, NULL);
    }
    return err_set(err, ERR_NETWORK, "%s does not answer", server->name);
}

bool bench_server_start(enum bench_receiver receiver, const char *folder, struct bench_server *out, struct err *err) {
    const struct receiver *kind = &receivers[receiver];
    struct bench_server server = {.receiver = receiver, .name = kind->name, .ae_title = kind->ae_title};
    struct plan plan = {.arguments = {NULL}};
    struct err fault = {0};
    snprintf(plan.folder, sizeof plan.folder, "%s/%s", folder, kind->name);
    snprintf(plan.config, sizeof plan.config, "%s.conf", plan.folder);
    snprintf(plan.log, sizeof plan.log, "%s.log", plan.folder);
    if (mkdir(plan.folder, 0750) != 0)
        return err_set(err, ERR_IO, "cannot make %s: %s", plan.folder, strerror(errno));
    if (!port_find(&server.port, err))
        return false;
    snprintf(plan.port, sizeof plan.port, "%u", server.port);
    const struct bench_run run = {plan.arguments, plan.log, true};
    if (!kind->plan(&plan, &server, err))
        return false;
    bool started = bench_spawn(&run, &server.process, &fault);
    if (!started && fault.kind != ERR_NOT_FOUND)
        return err_set(err, fault.kind, "%s", fault.text);
    if (!started)
        server.process = 0;
    if (started && !wait_until_ready(&server, err)) {
        bench_server_stop(&server);
        return false;
    }
    *out = server;
    return true;
}

void bench_server_stop(struct bench_server *server) {
    if (server->process <= 0)
        return;
    kill(server->process, SIGTERM);
    (void)bench_wait(server->process);
    server->process = 0;
}
