#include "app/pool.h"

#include "app/processes.h"
#include "log.h"

#include <stdio.h>
#include <unistd.h>

#define LOOK_MS 1000

/* MemAvailable of proc(5); 0 where it is not told. */
static int64_t available_bytes(void) {
    FILE *file = fopen("/proc/meminfo", "r");
    char line[128];
    long long kib = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lld kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return (int64_t)kib << 10;
}

int64_t pool_size(int64_t open_jobs, int64_t floor, int64_t ceiling) {
    int64_t size = open_jobs < ceiling ? open_jobs : ceiling;
    return size > floor ? size : floor;
}

struct pool pool_begin(const struct config *config) {
    int64_t floor = config->workers_min, ceiling = config->workers_max;
    if (ceiling == 0)
        ceiling = pool_size(available_bytes() / POOL_WORKER_BYTES, 1, sysconf(_SC_NPROCESSORS_ONLN));
    ceiling = pool_size(ceiling, floor, POOL_WORKERS_MAX);
    return (struct pool){.config = config, .floor = floor, .ceiling = ceiling, .wanted = floor};
}

int64_t pool_wanted(struct pool *pool) {
    int64_t now = pulmo_monotonic_ms(), jobs = 0;
    struct err err = {0};
    if (pool->ceiling == pool->floor || now < pool->due_ms)
        return pool->wanted;
    pool->due_ms = now + LOOK_MS;
    if (!pool->store) {
        struct store_config config = processes_store_config(pool->config);
        pool->store = store_open(&config, &err);
    }
    if (!pool->store || !store_jobs_open(pool->store, 1U << STORE_JOB_ANALYSE, &jobs, &err)) {
        log_err(LOG_WARNING, "serve", "queue not seen", &err);
        pool_release(pool);
        return pool->wanted;
    }
    pool->wanted = pool_size(jobs, pool->floor, pool->ceiling);
    return pool->wanted;
}

void pool_release(struct pool *pool) {
    if (pool->store)
        store_close(pool->store);
    pool->store = NULL;
}
