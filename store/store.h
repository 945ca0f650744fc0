/* The durable state of the appliance: instances, studies, jobs, results, verdicts, outbox, users, audit chain.
 *
 * SQLite (WAL, synchronous=FULL) beside content-addressed files. Reception, analysis and web meet only here. A handle
 * belongs to one thread at a time; open one a thread. Every fact and its audit row are one transaction. */
#ifndef PULMO_STORE_H
#define PULMO_STORE_H

#include "pulmo.h"

struct store;

struct store_config {
    const char *folder;           /* made when absent */
    int64_t quiet_ms;             /* no new instance of a study for this long = one part of completeness */
    uint64_t disk_reserve_bytes;  /* reception refuses (ERR_NO_SPACE) below this much free space */
    int64_t lease_ms;             /* of a job; renewed by store_job_renew */
    uint32_t attempts_max;        /* then the job is dead */
    uint32_t password_memory_kib; /* cost of Argon2id; 0 = 65536 */
};
/* Opens or makes the store and migrates it forward; ERR_CONFIG when it was written by a newer version. */
struct store *store_open(const struct store_config *config, struct err *err);
void store_close(struct store *store);
void store_close_at(struct store **store);
/* One per installation, made with the store (Device Observer UID, PS3.16 TID 1004). */
bool store_device_uid(struct store *store, char out[DICOM_UID_SIZE], struct err *err) PULMO_MUST_USE;

/* ---- health: store/disk.c, store/recover.c ------------------------------------------------------------ */

/* Before any process opens the store, by the one that starts them: judges the database after whatever ended it last.
 * ERR_IO when it is damaged: it is moved aside then, and the sentence names what the operator does. */
bool store_recover(const struct store_config *config, struct err *err) PULMO_MUST_USE;
/* Every second or so, by one process: keeps a reserve of disk space, gives it up when the disk is full. */
struct store_tended {
    uint64_t free_bytes;
    bool reserve_made, reserve_given_up; /* by this call */
    bool database_suspect;               /* some process met damage: stop all, then store_recover */
};
bool store_tend(const struct store_config *config, struct store_tended *out, struct err *err) PULMO_MUST_USE;

#define STORE_PROBLEMS_MAX 8
#define STORE_PROBLEM_SIZE 256
struct store_health {
    uint64_t free_bytes;
    size_t problem_count; /* 0 = all is well */
    struct store_problem {
        char code[24]; /* "DISK_LOW", "DISK_FULL", "DISK_READ_ONLY", "DISK_FAILS", "DATABASE_LOCKED", ... */
        char text[STORE_PROBLEM_SIZE];
    } problems[STORE_PROBLEMS_MAX];
};
/* Looks at the disk, writes and syncs a byte, asks for the database's write lock: half a second when that is held. */
bool store_health(struct store *store, struct store_health *out, struct err *err) PULMO_MUST_USE;

/* ---- reception --------------------------------------------------------------------------------------- */

/* When true is returned, file, folder and row have been synced. The same UID with the same bytes is success again;
 * with other bytes both are kept, `pixel_digest` telling transcoded from conflict, audited. A new instance of a study
 * that has a result queues a superseding analysis. */
bool store_instance_put(struct store *store, const struct instance *instance, struct err *err) PULMO_MUST_USE;
/* Decoder for "transcoded or conflict": SHA-256 of decoded pixels; set once after store_open. NULL = all are conflicts.
 */
typedef bool store_pixel_digest(const void *part10, size_t size, char out[65], struct err *err);
void store_set_pixel_digest(struct store *store, store_pixel_digest *digest);

/* The reception journal, store/journal.h: instances of several associations in one commit, without a file each; in
 * blobs/ a moment later. One process a folder writes it; in a second one all takes the way of store_instance_put. */
struct store_journal;
struct store_journal *store_journal_open(const struct store_config *config, struct err *err);
void store_journal_close(struct store_journal *journal); /* what it holds stays until the next checkpoint */
void store_journal_set_pixel_digest(struct store_journal *journal, store_pixel_digest *digest); /* once, after open */
/* Upkeep, for a thread of its own in a loop: waits for up to wait_ms, then adds a segment, empties some, recycles them.
 * The journal takes nothing before the first call, which adds the rows of what a former process acknowledged and did
 * not live to commit. An error leaves everything as it was: call again. */
bool store_journal_keep(struct store_journal *journal, int64_t wait_ms, struct err *err) PULMO_MUST_USE;
/* Any thread. store_instance_put, with the same promise, but that the rows of a new UID come some milliseconds later:
 * when true is returned, content and what they will say have been synced, and after a crash the first call of
 * store_journal_keep adds them. store: the calling thread's handle. What the journal has no room for becomes a file at
 * once. */
bool store_journal_put(struct store_journal *journal, struct store *store, const struct instance *instance,
                       struct err *err) PULMO_MUST_USE;
/* Waits for the rows of all that was put before. False when they cannot be committed, which is tried again and again.
 */
bool store_journal_flush(struct store_journal *journal, struct err *err) PULMO_MUST_USE;
/* Runs work, which writes to the store, in one commit with other threads' works, after the rows of all that was put
 * before; on a thread of the journal's, and again after a rollback when another's work failed. */
typedef bool store_work(struct store *store, void *context, struct err *err);
bool store_journal_run(struct store_journal *journal, store_work *work, void *context, struct err *err) PULMO_MUST_USE;
/* Moves what the journal holds at this moment into blobs/, from any process. Whoever reads or removes files in blobs/
 * by the rows of `instance` calls it before: a purge before it chooses, a backup after its snapshot of the database
 * (then every content that the snapshot names is a file; its journal rows are dropped when the restored store opens).
 * store_study_paths does it by itself. */
bool store_journal_checkpoint(struct store *store, struct err *err) PULMO_MUST_USE;

bool store_association_opened(struct store *store, uint64_t association_id, const char *calling_aet,
                              const char *peer_address, struct err *err) PULMO_MUST_USE;
bool store_association_closed(struct store *store, uint64_t association_id, struct err *err) PULMO_MUST_USE;
/* At start of reception: associations of a dead process no longer hold studies open. */
bool store_associations_reset(struct store *store, struct err *err) PULMO_MUST_USE;

/* ---- audit ------------------------------------------------------------------------------------------- */

/* Appends a row of its own (events without another fact: start, stop, login, refused instance). code: DICOM PS3.15
 * A.5 event code, e.g. "110114"; outcome 0 success, 4 minor, 8 serious failure; detail holds no patient data. */
struct store_audit {
    const char *code, *action, *actor, *address, *study_uid, *detail;
    int outcome;
};
bool store_audit_append(struct store *store, const struct store_audit *audit, struct err *err) PULMO_MUST_USE;
/* Walks the chain. *first_bad_row = 0 when whole, otherwise the first row whose digest or link does not hold (or the
 * first that is missing), with the reason. *rows = rows read. */
bool store_audit_verify(struct store *store, int64_t *rows, int64_t *first_bad_row, char *reason, size_t reason_size,
                        struct err *err) PULMO_MUST_USE;
/* What the walk found. first_bad_row 0 = whole; digest: of the last good row. */
struct store_audit_verdict {
    int64_t rows, first_bad_row;
    char digest[65], reason[200];
};
/* Signs number and digest of the chain's last row (Ed25519, RFC 8032) and writes them to a file that can leave the
 * machine. The key is made at the first time: audit-key.pem (0600) in the store's folder, its public half beside it as
 * audit-key.pub.pem. A chain that is broken is not signed: ERR_CONFLICT. */
struct store_checkpoint {
    int64_t rows, time_ms;
    char digest[65], device_uid[DICOM_UID_SIZE];
};
bool store_checkpoint_write(struct store *store, const char *path, struct store_checkpoint *out,
                            struct err *err) PULMO_MUST_USE;
/* Checks the file's signature by a public key (PEM), then walks the chain, which must pass through the signed row: then
 * nothing up to it was changed or cut off. ERR_DENIED when the signature is not of this key, ERR_CONFLICT when the
 * checkpoint is of another installation. */
bool store_checkpoint_verify(struct store *store, const char *path, const char *public_key_path,
                             struct store_checkpoint *checkpoint, struct store_audit_verdict *out,
                             struct err *err) PULMO_MUST_USE;
/* One JSON document a line, oldest first. */
bool store_audit_export(struct store *store, bool (*line)(void *context, const char *json, struct err *err),
                        void *context, struct err *err) PULMO_MUST_USE;

/* ---- jobs -------------------------------------------------------------------------------------------- */

enum store_job_kind { STORE_JOB_ANALYSE = 1, STORE_JOB_DECODE, STORE_JOB_SIGN, STORE_JOB_SHADOW };
struct store_job {
    int64_t id; /* 0 = none due */
    enum store_job_kind kind;
    uint32_t attempt; /* from 1 */
    char study_uid[DICOM_UID_SIZE];
    int64_t study_revision; /* of the set of instances when the job was taken */
    int64_t result_id;      /* the result being signed; STORE_JOB_SHADOW: the one to compare with */
    char lease[40];
};
/* Makes jobs of studies that are complete (quiet time over, no open association that sent to them), then leases the
 * oldest due job of the kinds in kinds_mask (1 << kind), STORE_JOB_SHADOW when no other is due. */
bool store_job_take(struct store *store, unsigned kinds_mask, int64_t now_ms, struct store_job *out,
                    struct err *err) PULMO_MUST_USE;
bool store_job_renew(struct store *store, const struct store_job *job, int64_t now_ms, struct err *err) PULMO_MUST_USE;
/* Gives a job back unfinished, since the process is asked to stop: it is due at once, and the attempt does not count.
 */
bool store_job_release(struct store *store, const struct store_job *job, struct err *err) PULMO_MUST_USE;
/* Gives a job back after an error: retried with back-off when the kind is transient, dead otherwise or after
 * attempts_max (the study is then shown as failed, with the sentence). */
bool store_job_fail(struct store *store, const struct store_job *job, const struct err *why,
                    struct err *err) PULMO_MUST_USE;

/* Queues again what ended in the dead letter of a study, jobs and sendings (not signings: those are asked for anew).
 * Audited. ERR_NOT_FOUND when there is nothing. */
/* Jobs of kinds_mask that wait or are leased. */
bool store_jobs_open(struct store *store, unsigned kinds_mask, int64_t *out, struct err *err) PULMO_MUST_USE;
bool store_study_requeue(struct store *store, const char *study_uid, const char *actor, struct err *err) PULMO_MUST_USE;
/* Waits until some process wrote to the store since the last call (this handle's own writes included) or timeout_ms
 * have passed (at most a minute counts); some 20 ms after the write, so that a burst of commits is looked at once. The
 * wake-up between the processes, instead of polling: nothing due -> wait -> look again. What comes due by the clock
 * alone (quiet time, back-off) needs a timeout as short as its delay may be. */
bool store_wait(struct store *store, int64_t timeout_ms, struct err *err) PULMO_MUST_USE;

/* Paths of a study's instances (current version of each SOP instance), owned: store_paths_free. */
struct store_paths {
    char **items;
    size_t count;
};
bool store_study_paths(struct store *store, const char *study_uid, struct store_paths *out,
                       struct err *err) PULMO_MUST_USE;
/* The same with the versions that are no longer current, or never were: what an earlier result was made of. */
bool store_study_paths_all(struct store *store, const char *study_uid, struct store_paths *out,
                           struct err *err) PULMO_MUST_USE;
void store_paths_free(struct store_paths *paths);
/* Reads all current instances of a study and compares their digests, before they are worked on. ERR_IO names the first
 * that is not what was stored; health tells of it until all are whole again (the same instance, sent again). */
bool store_study_verify(struct store *store, const char *study_uid, struct err *err) PULMO_MUST_USE;

/* ---- results ----------------------------------------------------------------------------------------- */

enum store_status { STORE_ANALYSED = 1, STORE_REFUSED, STORE_FAILED };
/* A named file of a result: "analysis.json", "sr.dcm", "seg.dcm", "overlay/attention/57.png", "series.json",
 * "slice/57.i16", "contour/57.json". Names match [a-z0-9./_-]+, no "..". */
struct store_artifact {
    const char *name, *media_type;
    const void *data;
    size_t size;
    bool send; /* to every destination, through the outbox */
};
struct store_report {
    enum store_status status;
    const char *series_uid, *reason; /* reason: "NOT_A_CHEST: ...", shown in the worklist */
    const char *summary_json;        /* the analyze document, with findings */
    const char *model_sha256, *backend;
    uint32_t findings_reported;
    double probability_max; /* orders the worklist */
    bool review;
    const struct store_artifact *artifacts;
    size_t artifact_count;
};
/* Result, artifacts, outbox rows, job state and audit row: one commit. Results are immutable; an earlier one of the
 * study becomes superseded. ERR_CONFLICT when the lease was lost: nothing is written. */
bool store_job_finish(struct store *store, const struct store_job *job, const struct store_report *report,
                      int64_t *result_id, struct err *err) PULMO_MUST_USE;
/* Finishes a DECODE job: artifacts of the study's revision, made from its instances alone ("series.json",
 * "slices.i16": all slices in one artifact, read by range). Needs no result, so that a study opens in the viewer before
 * its analysis is done. ERR_CONFLICT when the lease was lost. */
bool store_decode_finish(struct store *store, const struct store_job *job, const struct store_artifact *artifacts,
                         size_t artifact_count, struct err *err) PULMO_MUST_USE;
/* Finishes a signing: the signed objects, with the signature row and the outbox. */
bool store_sign_finish(struct store *store, const struct store_job *job, const struct store_artifact *artifacts,
                       size_t artifact_count, struct err *err) PULMO_MUST_USE;

struct store_result {
    int64_t id, study_revision, created_ms, superseded_by; /* 0 = current */
    int64_t supersedes;                                    /* the result before it; 0 = the first */
    enum store_status status;
    char study_uid[DICOM_UID_SIZE], series_uid[DICOM_UID_SIZE];
    char reason[256];
    char model_sha256[65], backend[96];
    bool review;
    bool signed_by_reader;
    char sign_failure[256]; /* why the last signing ended in the dead letter; "" when it did not */
};
bool store_result_get(struct store *store, int64_t result_id, struct store_result *out, struct err *err) PULMO_MUST_USE;
/* The study's current result; id 0 when there is none. */
bool store_result_current(struct store *store, const char *study_uid, struct store_result *out,
                          struct err *err) PULMO_MUST_USE;
/* Reads an artifact and checks its digest (ERR_NOT_FOUND; ERR_IO when the content is not what was stored). */
bool store_artifact_read(struct store *store, int64_t result_id, const char *name, struct bytes *out,
                         char media_type[64], struct err *err) PULMO_MUST_USE;
/* Reads an artifact of the study's newest decoded revision (store_decode_finish) and checks its digest. */
bool store_study_artifact_read(struct store *store, const char *study_uid, const char *name, struct bytes *out,
                               char media_type[64], struct err *err) PULMO_MUST_USE;
/* size bytes from offset, owned. ERR_INPUT when the range leaves the artifact. The digest covers the whole content and
 * is not checked here: only the file's size is (a whole read checks it). */
bool store_study_artifact_read_range(struct store *store, const char *study_uid, const char *name, uint64_t offset,
                                     size_t size, struct bytes *out, struct err *err) PULMO_MUST_USE;

/* ---- models: store/model.c --------------------------------------------------------------------------- */

/* Installed models, by the SHA-256 of their model.json. Each change is audited with it. */
struct store_model {
    char sha256[65], name[128], version[64], actor[64];
    char state[12]; /* "active", "shadow", "former" (promoted once, not in use any more), "installed" */
    int64_t installed_ms, promoted_ms, results; /* promoted_ms 0 = never; results: made by it, superseded ones too */
    int64_t files, size_bytes;
};
/* Keeps a model's files and the row that names them, for good; the caller has opened it before. *added = false when it
 * was there already: then its files are written again where the disk has lost them. */
bool store_model_install(struct store *store, const struct store_model *model, const struct model_files *files,
                         bool *added, struct err *err) PULMO_MUST_USE;
/* In the order of their installation. Owned: free(*out). */
bool store_model_list(struct store *store, struct store_model **out, size_t *count, struct err *err) PULMO_MUST_USE;
/* By a digest or its beginning, of 4 digits at least. ERR_NOT_FOUND; ERR_INPUT when several begin so. */
bool store_model_find(struct store *store, const char *prefix, struct store_model *out, struct err *err) PULMO_MUST_USE;
/* Its files, digests checked; owned (model_files_free). ERR_NOT_FOUND when it is not installed. */
bool store_model_read(struct store *store, const char *sha256, struct model_files *out, struct err *err) PULMO_MUST_USE;
/* The promoted model; "" = none is, and that of the configuration is in use. */
bool store_model_active(struct store *store, char sha256[65], struct err *err) PULMO_MUST_USE;
/* Puts an installed model in use from the next job on. ERR_CONFLICT when it is in use. */
bool store_model_promote(struct store *store, const char *sha256, const char *actor, struct err *err) PULMO_MUST_USE;
/* Takes the last promotion back; sha256: what is in use then, "" = the configuration's. ERR_CONFLICT when nothing is
 * promoted. */
bool store_model_rollback(struct store *store, const char *actor, char sha256[65], struct err *err) PULMO_MUST_USE;

/* ---- shadow: store/shadow.c -------------------------------------------------------------------------- */

/* Lets an installed model look at every new result's images, too, for comparison alone; NULL = no model any more.
 * ERR_CONFLICT when that is so already, or the model is in use. Promoting the shadow ends it. */
bool store_model_shadow(struct store *store, const char *sha256, const char *actor, struct err *err) PULMO_MUST_USE;
/* "" = there is none. */
bool store_model_shadowing(struct store *store, char sha256[65], struct err *err) PULMO_MUST_USE;
/* Which model a STORE_JOB_SHADOW wants; "" = none any more: the shadow was ended, or the result was superseded. */
bool store_shadow_begin(struct store *store, const struct store_job *job, char sha256[65],
                        struct err *err) PULMO_MUST_USE;
/* Puts such a job away undone. */
bool store_shadow_drop(struct store *store, const struct store_job *job, struct err *err) PULMO_MUST_USE;
/* What the model said; of the report status, reason, document and model are kept, no files. Nothing of the result that
 * it is compared with changes, nothing is sent. */
bool store_shadow_finish(struct store *store, const struct store_job *job, const struct store_report *report,
                         struct err *err) PULMO_MUST_USE;
struct store_shadow {
    int64_t id, result_id, created_ms; /* result_id: of the model in use, on the same images */
    enum store_status status;
    char reason[256];
};
/* Of one model, oldest first. Owned: free(*out). */
bool store_shadow_list(struct store *store, const char *sha256, struct store_shadow **out, size_t *count,
                       struct err *err) PULMO_MUST_USE;
/* The analyze document of one; owned (bytes_free). */
bool store_shadow_document(struct store *store, int64_t shadow_id, struct bytes *out, struct err *err) PULMO_MUST_USE;

/* ---- reading: worklist, verdicts, signature ---------------------------------------------------------- */

struct store_study {
    char study_uid[DICOM_UID_SIZE], patient_name[256], patient_id[128], accession_number[64], study_date[16];
    char description[256];
    char state[16]; /* "receiving", "queued", "analysing", "analysed", "refused", "failed", "signed" */
    char reason[256];
    int64_t received_ms, instances, result_id;
    uint32_t findings_reported;
    double probability_max;
    bool review;
    int64_t purged_ms, held_ms; /* 0 = not */
    char hold_reason[256];
    int64_t supersedes; /* the result that the current one replaced; 0 = none */
};
/* Studies that need eyes first: unsigned before signed, review and high probability first. Owned: free(*out). */
bool store_study_list(struct store *store, size_t offset, size_t limit, struct store_study **out, size_t *count,
                      struct err *err) PULMO_MUST_USE;
bool store_study_get(struct store *store, const char *study_uid, struct store_study *out,
                     struct err *err) PULMO_MUST_USE;

/* What store_instance_put would do with an instance, without doing it; its errors are those of reception. */
struct store_route {
    char version[16];     /* "first", "same" (stored already), "transcoded", "corrected", "conflict", "foreign" */
    bool becomes_current; /* used for analysis; otherwise kept beside, or nothing at all when the same */
    bool study_known;
    struct store_study study; /* as it is now, when known */
};
bool store_route(struct store *store, const struct instance *instance, struct store_route *out,
                 struct err *err) PULMO_MUST_USE;

/* What a reader decided on a finding of a result; append-only, the last one counts, undo appends "none". */
struct store_verdict {
    uint32_t finding_id; /* 0 when the reader added it: then the new id is returned in it (from 10001) */
    char verdict[12];    /* "accepted", "rejected", "none", "added", "removed" (of an added one) */
    double center_lps_mm[3], diameter_mm; /* "added" */
    char user[64];
    int64_t created_ms;
};
bool store_verdict_put(struct store *store, int64_t result_id, struct store_verdict *inout,
                       struct err *err) PULMO_MUST_USE;
/* The verdicts that count, one a finding. Owned: free(*out). */
bool store_verdict_list(struct store *store, int64_t result_id, struct store_verdict **out, size_t *count,
                        struct err *err) PULMO_MUST_USE;
/* Queues the signing of a result by a user (already authenticated again with the password). Refuses (ERR_CONFLICT) a
 * superseded, an already signed or a failed result: of the last there is nothing that a reader could confirm. */
bool store_sign_request(struct store *store, int64_t result_id, const char *user, struct err *err) PULMO_MUST_USE;
/* Who asked for the signature of a STORE_JOB_SIGN. */
bool store_sign_user(struct store *store, const struct store_job *job, char *user, size_t user_size, char *display_name,
                     size_t display_name_size, struct err *err) PULMO_MUST_USE;

/* ---- outbox ------------------------------------------------------------------------------------------ */

struct store_outgoing {
    int64_t id;           /* 0 = none due */
    char destination[64]; /* as it is known now: store_destination_now */
    char name[64], path[512], lease[40];
    int64_t result_id;
    uint32_t attempt;
};
/* Destinations by name, from the configuration; new results are queued for each. Call once after open. */
bool store_set_destinations(struct store *store, const char *const *names, size_t count,
                            struct err *err) PULMO_MUST_USE;
/* The name (AET@host:port) under which a destination of that name is known now: the same while the configuration has
 * it; else, since a PACS may move to another host or port while results wait for it, the only one of the same AE title
 * (two of one AE title could be two archives: neither is guessed); else name itself. Borrows from both. */
const char *store_destination_now(const struct store *store, const char *name);
bool store_outbox_take(struct store *store, int64_t now_ms, struct store_outgoing *out, struct err *err) PULMO_MUST_USE;
bool store_outbox_sent(struct store *store, const struct store_outgoing *outgoing, struct err *err) PULMO_MUST_USE;
/* Transient: again with exponential back-off up to an hour, for as long as it takes; permanent (the peer refused the
 * object): dead letter after attempts_max. */
bool store_outbox_failed(struct store *store, const struct store_outgoing *outgoing, bool transient, const char *why,
                         int64_t now_ms, struct err *err) PULMO_MUST_USE;
struct store_counts {
    int64_t studies, instances, jobs_queued, jobs_dead, outbox_waiting, outbox_dead, results;
};
bool store_counts(struct store *store, struct store_counts *out, struct err *err) PULMO_MUST_USE;

/* ---- backup: store/backup.c, store/restore.c --------------------------------------------------------- */

/* Progress in bytes, and a sentence for each file that is not what it should be. Both may be NULL. */
typedef void store_backup_progress(void *context, int64_t done_bytes, int64_t total_bytes);
typedef void store_backup_fault(void *context, const char *sentence);
struct store_backup_figures {
    int64_t made_ms; /* when the snapshot was taken */
    int64_t database_bytes, rows, audit_rows;
    int64_t contents, content_bytes; /* whole ones, in the backup */
    int64_t copied, copied_bytes;    /* of these, now; the others were there */
    int64_t files;                   /* keys, certificate, configuration */
    int64_t pruned;                  /* contents of former backups that no row names any more */
    int64_t damaged;                 /* contents that rows name and that are gone or changed */
};
struct store_backup_config {
    const char *folder;      /* made when absent; a former backup in it is brought up to date */
    const char *config_file; /* saved, too; NULL = none */
    const char *actor;       /* of the audit row */
    bool prune;              /* remove what the store has given up since: purged images */
    store_backup_progress *progress;
    store_backup_fault *fault;
    void *context;
};
/* Saves the store as it is at one moment, while it is in use. True with figures.damaged > 0 when contents were lost in
 * the store itself: those are named, the backup has the rest. ERR_NO_SPACE when the folder is full; the former backup
 * in it stays good until the end. */
bool store_backup(struct store *store, const struct store_backup_config *config, struct store_backup_figures *out,
                  struct err *err) PULMO_MUST_USE;
struct store_restore_config {
    const char *backup;
    const char *folder; /* absent or empty; NULL = only check the backup */
    store_backup_progress *progress;
    store_backup_fault *fault;
    void *context;
};
/* Checks every file of a backup by its digest, the database by integrity_check, row counts and audit chain, and every
 * content that a row names; makes a store of it when all is whole, and leaves the folder empty otherwise. */
bool store_restore(const struct store_restore_config *config, struct store_backup_figures *out,
                   struct err *err) PULMO_MUST_USE;

/* Puts the database back that was kept before an upgrade from `version`; the newer one stays beside it. ERR_BUSY while
 * the store is in use, ERR_CONFLICT when instances or results came after the upgrade and discard is false. */
struct store_put_back_figures {
    int64_t version;            /* of the newer one */
    char kept_as[64];           /* its name in the folder */
    int64_t instances, results; /* that are in it alone */
};
bool store_put_back(const char *folder, int version, bool discard, struct store_put_back_figures *out,
                    struct err *err) PULMO_MUST_USE;

/* What `pulmo doctor` asks of a store that may be in use, damaged or of another version: nothing is made, migrated or
 * mended. found = false when there is no database. */
struct store_inspection {
    bool found;
    int64_t version, version_known, last_audit_ms;
    char integrity[200]; /* "ok" or the first fault */
    struct store_audit_verdict audit;
    int64_t contents, contents_bad; /* of the newest studies and of all models, read and digested */
    char content_fault[200];        /* the first */
    int64_t jobs_dead, outbox_dead, outbox_waiting, administrators;
    int64_t models;        /* installed */
    char active_model[65]; /* the promoted one; "" = none */
};
bool store_inspect(const char *folder, int64_t studies, struct store_inspection *out, struct err *err) PULMO_MUST_USE;
/* The files of an installed model, likewise (model_files_free). */
bool store_inspect_model(const char *folder, const char *sha256, struct model_files *out,
                         struct err *err) PULMO_MUST_USE;

/* ---- confirmation by the PACS, retention ------------------------------------------------------------- */

/* Destinations that are asked to confirm what they got; none at first. */
bool store_set_confirming(struct store *store, const char *const *names, size_t count, struct err *err) PULMO_MUST_USE;
/* A signed result that a destination got as a whole, and that it is to confirm. */
struct store_confirmation {
    char study_uid[DICOM_UID_SIZE], destination[64]; /* "" = none due */
    int64_t study_revision, outbox_id;               /* the state of the study that is asked for */
    uint32_t attempt;
};
/* The next due question; asked again after the lease time unless it is answered before. */
bool store_confirmation_take(struct store *store, int64_t now_ms, struct store_confirmation *out,
                             struct err *err) PULMO_MUST_USE;
struct store_object {
    bool is_result; /* then only the path is known */
    char sop_class_uid[DICOM_UID_SIZE], sop_instance_uid[DICOM_UID_SIZE], series_uid[DICOM_UID_SIZE];
    char path[512];
};
/* What the destination should have: the objects of the result and, when asked for, the images. Owned: free(*out). */
bool store_confirmation_objects(struct store *store, const struct store_confirmation *confirmation, bool images,
                                struct store_object **out, size_t *count, struct err *err) PULMO_MUST_USE;
/* Audited; nothing when the study has another state by now. how: for the audit. */
bool store_confirmation_confirmed(struct store *store, const struct store_confirmation *confirmation, const char *how,
                                  int64_t now_ms, struct err *err) PULMO_MUST_USE;
struct store_denial {
    const char *why;
    bool transient;      /* nobody answered; otherwise the answer was no, and is asked for at longer intervals */
    bool result_missing; /* objects of the result are not there: they are sent again */
};
bool store_confirmation_failed(struct store *store, const struct store_confirmation *confirmation,
                               const struct store_denial *denial, int64_t now_ms, struct err *err) PULMO_MUST_USE;
/* A Storage Commitment request, noted before it is sent: its report may be the faster one. */
struct store_commitment {
    const char *transaction_uid, *references_sha256; /* of the sorted SOP Instance UIDs, a line each */
    int64_t wait_ms;                                 /* for the first request's report; doubled for each further one */
};
bool store_commitment_asked(struct store *store, const struct store_confirmation *confirmation,
                            const struct store_commitment *commitment, int64_t now_ms, struct err *err) PULMO_MUST_USE;
/* What a report is about. ERR_NOT_FOUND: never asked, or confirmed meanwhile. */
bool store_commitment_find(struct store *store, const char *transaction_uid, struct store_confirmation *out,
                           char references_sha256[65], struct err *err) PULMO_MUST_USE;

/* Keeps a study's images whatever the settings say, until it is released (ERR_NOT_FOUND when it is not held). */
bool store_study_hold(struct store *store, const char *study_uid, const char *reason, const char *actor,
                      struct err *err) PULMO_MUST_USE;
bool store_study_release(struct store *store, const char *study_uid, const char *actor, struct err *err) PULMO_MUST_USE;

struct store_purge_rule {
    int64_t confirmed_before_ms; /* and received before; INT64_MAX = whatever is confirmed */
    const char *why;             /* for the audit */
};
struct store_purged {
    char study_uid[DICOM_UID_SIZE]; /* "" = no study may be purged */
    int64_t images, bytes;
};
/* Gives up the images of one study, the one received first of those that are signed, not held, not in work, without a
 * conflict, and confirmed by every confirming destination that got the result (by one at least). Marks and audit row
 * are one commit; the files go by store_retention_remove. */
bool store_retention_purge(struct store *store, const struct store_purge_rule *rule, struct store_purged *out,
                           struct err *err) PULMO_MUST_USE;
/* Removes the files of what was purged, also what a killed process left. Does nothing while a copier holds
 * <folder>/purge.lock. */
bool store_retention_remove(struct store *store, int64_t *removed, struct err *err) PULMO_MUST_USE;
/* Removes files that no row names and that are older than age_s (-1 = an hour), at most 64 of the part-th of 256 parts.
 */
bool store_orphans_remove(struct store *store, unsigned part, int64_t age_s, int64_t *removed,
                          struct err *err) PULMO_MUST_USE;
struct store_retention_counts { /* studies with images, by what keeps them; and those without */
    int64_t eligible, held, unsigned_results, in_work, in_conflict, unconfirmed, purged;
};
bool store_retention_counts(struct store *store, struct store_retention_counts *out, struct err *err) PULMO_MUST_USE;

/* How full the disk of the store is, as df counts: what is used of what may be used. */
bool store_disk_used_percent(struct store *store, double *percent, struct err *err) PULMO_MUST_USE;

/* A sentence for the administrator on a subject ("disk"); "" = nothing to say. *changed: it was not said already. */
bool store_notice_put(struct store *store, const char *subject, const char *text, bool *changed,
                      struct err *err) PULMO_MUST_USE;
bool store_notice_get(struct store *store, const char *subject, char *out, size_t size, struct err *err) PULMO_MUST_USE;

/* ---- users and sessions ------------------------------------------------------------------------------ */

/* Roles: "viewer", "radiologist", "administrator", "auditor". Passwords: Argon2id (RFC 9106), at least 10 characters.
 */
bool store_user_add(struct store *store, const char *name, const char *display_name, const char *role,
                    const char *password, struct err *err) PULMO_MUST_USE;
bool store_user_password(struct store *store, const char *name, const char *password, struct err *err) PULMO_MUST_USE;
bool store_user_disable(struct store *store, const char *name, struct err *err) PULMO_MUST_USE;
struct store_user {
    char name[64], display_name[128], role[16];
    bool disabled;
};
bool store_user_list(struct store *store, struct store_user **out, size_t *count, struct err *err) PULMO_MUST_USE;
/* Checks a password, in constant time for unknown users too; 5 failures lock the account for 15 minutes. Audited.
 * ERR_DENIED with a sentence that does not tell which part was wrong; ERR_BUSY when locked. */
bool store_user_check(struct store *store, const char *name, const char *password, const char *address, int64_t now_ms,
                      struct store_user *out, struct err *err) PULMO_MUST_USE;
/* Sessions: a random token for the cookie (its SHA-256 is what is stored), 30 minutes idle, 12 hours at most. */
bool store_session_new(struct store *store, const char *user, int64_t now_ms, char token[65],
                       struct err *err) PULMO_MUST_USE;
bool store_session_check(struct store *store, const char *token, int64_t now_ms, struct store_user *out,
                         struct err *err) PULMO_MUST_USE;
bool store_session_end(struct store *store, const char *token, struct err *err) PULMO_MUST_USE;

#endif
