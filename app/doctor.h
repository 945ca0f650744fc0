/* The checks of `pulmo doctor`: each finds out one thing and says what to do about it. */
#ifndef PULMO_APP_DOCTOR_H
#define PULMO_APP_DOCTOR_H

#include "config.h"
#include "store/store.h"

enum doctor_state { DOCTOR_OK, DOCTOR_SKIPPED, DOCTOR_WARNING, DOCTOR_FAILED };
struct doctor_finding {
    const char *name; /* of the check */
    enum doctor_state state;
    char text[480];
};

struct doctor {
    const char *config_path; /* NULL = the defaults */
    struct config config;
    int64_t studies;  /* whose contents are read */
    bool quick;       /* without the self-test, which takes a study's time */
    const char *name; /* of the check at hand */
    struct store_inspection store;
    bool store_read;
    void (*report)(void *context, const struct doctor_finding *finding);
    void *context;
};
void doctor_say(struct doctor *doctor, enum doctor_state state, const char *format, ...) PULMO_PRINTF(3, 4);

void doctor_folder(struct doctor *doctor); /* app/doctor_machine.c */
void doctor_space(struct doctor *doctor);
void doctor_clock(struct doctor *doctor);
void doctor_database(struct doctor *doctor); /* app/doctor_store.c */
void doctor_audit(struct doctor *doctor);
void doctor_contents(struct doctor *doctor);
void doctor_queues(struct doctor *doctor);
void doctor_ports(struct doctor *doctor); /* app/doctor_network.c */
void doctor_certificates(struct doctor *doctor);
void doctor_destinations(struct doctor *doctor);
void doctor_model(struct doctor *doctor); /* app/doctor_engine.c */
void doctor_selftest(struct doctor *doctor);

#endif
