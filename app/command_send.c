#include "app/command.h"
#include "dicom/dicom.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct progress {
    size_t total, refused;
    bool terminal;
    char *const *paths;
};

static bool on_sent(void *context, size_t index, uint16_t status, const char *error) {
    struct progress *progress = context;
    bool stored = status == 0x0000 || (status & 0xF000) == 0xB000;
    if (!stored) {
        progress->refused++;
        fprintf(stderr, "%s%s: status 0x%04X %s\n", progress->terminal ? "\n" : "", progress->paths[index], status,
                error ? error : "");
    }
    if (progress->terminal) {
        int filled = (int)((index + 1) * 40 / progress->total);
        fprintf(stderr, "\r[%.*s%*s] %zu/%zu", filled, "########################################", 40 - filled, "",
                index + 1, progress->total);
    }
    return true;
}

/* "HOST:PORT" into its two parts. */
static bool split_address(const char *text, char host[256], int64_t *port) {
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || colon - text > 255)
        return false;
    snprintf(host, 256, "%.*s", (int)(colon - text), text);
    return command_integer(colon + 1, 1, 65535, port);
}

static int run(int argc, char **argv) {
    const char *calling = "PULMO-SEND", *tls_ca = NULL;
    const struct command_option options[] = {{"--calling", &calling, NULL}, {"--tls-ca", &tls_ca, NULL}};
    int count = command_options(argc, argv, options, 2);
    char host[256];
    int64_t port = 0;
    if (count < 3 || !split_address(argv[0], host, &port) || strlen(argv[1]) >= DICOM_AET_SIZE ||
        strlen(calling) >= DICOM_AET_SIZE)
        return command_usage(&command_send);
    struct err err = {0};
    PULMO_SCOPED(file_list_free) struct file_list files = {0};
    if (!file_list_make((const char *const *)argv + 2, (size_t)count - 2, &files, &err))
        return command_fail(&command_send, &err);
    struct dicom_tls tls = {.ca_file = tls_ca, .require_peer_certificate = true};
    struct dicom_destination destination = {.host = host,
                                            .called_aet = argv[1],
                                            .calling_aet = calling,
                                            .port = (uint16_t)port,
                                            .tls = tls_ca ? &tls : NULL,
                                            .timeout_s = 30};
    struct progress progress = {.total = files.count, .terminal = isatty(STDERR_FILENO) == 1, .paths = files.items};
    bool sent = dicom_send(&destination, (const char *const *)files.items, files.count, on_sent, &progress, &err);
    if (progress.terminal)
        fputc('\n', stderr);
    if (!sent)
        return command_fail(&command_send, &err);
    printf("%zu of %zu instances stored by %s\n", files.count - progress.refused, files.count, argv[1]);
    return progress.refused ? EXIT_FAILED : EXIT_DONE;
}

const struct command command_send = {"send", "send HOST:PORT AET PATH... [--calling AET] [--tls-ca FILE]",
                                     "C-STORE files and folders to an application entity", run};
