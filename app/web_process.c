#include "app/install.h"
#include "app/processes.h"
#include "app/stop.h"
#include "log.h"
#include "web/web.h"

#include <poll.h>
#include <stdio.h>

bool web_run(const struct config *config, struct err *err) {
    struct store_config store = processes_store_config(config);
    char viewer[4096], certificate[CONFIG_TEXT_SIZE + 32], key[CONFIG_TEXT_SIZE + 32];
    if (!install_find(config->viewer_folder, "web/viewer/dist", "viewer", viewer, err))
        return false;
    bool own = *config->https_certificate == '\0';
    snprintf(certificate, sizeof certificate, "%s%s", own ? config->data_folder : config->https_certificate,
             own ? "/https-certificate.pem" : "");
    snprintf(key, sizeof key, "%s%s", own ? config->data_folder : config->https_key, own ? "/https-key.pem" : "");
    struct web_config web = {
        .bind_address = *config->https_bind ? config->https_bind : NULL,
        .port = (uint16_t)config->https_port,
        .certificate_file = certificate,
        .key_file = key,
        .viewer_folder = viewer,
        .store = &store,
        .body_bytes_max = (size_t)config->body_mb_max << 20,
        .request_deadline_s = (int)config->request_deadline_s,
        .keep_alive_s = (int)config->keep_alive_s,
        .connections_max = (uint32_t)config->connections_max,
        .connections_max_an_origin = (uint32_t)config->connections_max_an_address,
        .proxies = config->https_proxies,
    };
    struct web_server *server = web_start(&web, err);
    if (!server)
        return false;
    log_event(LOG_INFO, "web", "listening", "port=%u", web_port(server));
    while (!stop_requested)
        poll(NULL, 0, 250);
    web_stop(server);
    return true;
}
