/* `pulmo bench NAME`: one part of the measurements, each in a file of its own. */
#include "app/bench.h"

#include <stdio.h>
#include <string.h>

static const struct command *const parts[] = {&bench_attention, &bench_devices, &bench_dropout,   &bench_engine,
                                              &bench_ingest,    &bench_plan,    &bench_precision, &bench_study};
#define PART_COUNT (sizeof parts / sizeof *parts)

static int run(int argc, char **argv) {
    for (size_t index = 0; argc > 1 && index < PART_COUNT; index++)
        if (strcmp(argv[1], parts[index]->name) == 0)
            return parts[index]->run(argc - 1, argv + 1);
    int status = command_usage(&command_bench);
    for (size_t index = 0; index < PART_COUNT; index++)
        fprintf(stderr, "  pulmo %-64s %s\n", parts[index]->usage, parts[index]->summary);
    return status;
}

const struct command command_bench = {"bench", "bench NAME [--json]", "figures of one part beside those of its peers",
                                      run};
