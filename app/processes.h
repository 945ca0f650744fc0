/* The appliance's processes. They meet only in the store; each runs until SIGTERM or SIGINT. */
#ifndef PULMO_APP_PROCESSES_H
#define PULMO_APP_PROCESSES_H

#include "config.h"
#include "store/store.h"

/* Store settings of the configuration; the folder is borrowed from it. */
struct store_config processes_store_config(const struct config *config);
/* A store handle with decoder and destinations set. */
struct store *processes_store_open(const struct config *config, struct err *err);

bool reception_run(const struct config *config, struct err *err) PULMO_MUST_USE; /* SCP, and the return to the PACS */
bool decoder_run(const struct config *config, struct err *err) PULMO_MUST_USE;   /* slices for the viewer, retention */
bool worker_run(const struct config *config, struct err *err) PULMO_MUST_USE;    /* analysis and signing */
/* One more for analysis, which ends when no job has come for worker_idle_s. */
bool spare_run(const struct config *config, struct err *err) PULMO_MUST_USE;
bool web_run(const struct config *config, struct err *err) PULMO_MUST_USE; /* HTTPS */
/* Starts the four as children of `program` and keeps them alive; analysis as often as the queue asks for, from
 * workers_min to workers_max. config_path may be NULL. */
bool supervisor_run(const char *program, const char *config_path, const struct config *config,
                    struct err *err) PULMO_MUST_USE;

/* Sends what is due in the outbox until stopped; on a thread of the reception process. */
struct outbox;
struct outbox *outbox_start(const struct config *config, struct err *err);
void outbox_stop(struct outbox *outbox);

/* The thread that gives up images and removes left-over files; in the decoder, whose work is the disk's, too. */
struct retention;
struct retention *retention_start(const struct config *config, struct err *err);
void retention_stop(struct retention *retention);

#endif
