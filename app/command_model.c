#include "app/analysis.h"
#include "app/command.h"

#include <stdio.h>
#include <string.h>

static int run(int argc, char **argv) {
    const char *config_path = NULL, *model = NULL;
    const struct command_option options[] = {{"-c", &config_path, NULL}, {"--model", &model, NULL}};
    if (command_options(argc, argv, options, 2) != 1 || strcmp(argv[0], "show"))
        return command_usage(&command_model);
    struct config config;
    struct engine engine;
    struct err err = {0};
    if (!command_config(config_path, &config, &err) || (model && !config_set(&config, "model", model, &err)) ||
        !engine_open(&config, &engine, &err))
        return command_fail(&command_model, &err);
    const struct infer_model_info *info = infer_model_info(engine.model);
    printf("name             %s\nversion          %s\nsha256           %s\nbackend          %s (%s)\n"
           "operating point  %.4f\npasses           %u\ndropout          %.3f\n",
           info->name, info->version, info->sha256, infer_backend_name(engine.session),
           infer_backend_detail(engine.session), info->operating_point, info->passes, info->dropout);
    engine_close(&engine);
    return EXIT_DONE;
}

const struct command command_model = {"model", "model show [--model FILE] [-c FILE]",
                                      "the model in use, checked against its digests", run};
