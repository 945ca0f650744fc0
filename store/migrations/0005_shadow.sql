-- Version 5. A second model that looks at the same studies, for comparison alone: its results have a table of their own,
-- so that nothing that shows or sends results can take one for another.

-- SQLite cannot widen a CHECK: the table of jobs is written again, with kind 4, shadow (enum store_job_kind). Views that
-- name it go first and come back as they were.
DROP VIEW retention;
DROP VIEW worklist;
CREATE TABLE job_again (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3, 4)),
    study_uid TEXT NOT NULL REFERENCES study,
    revision INTEGER NOT NULL,
    result_id INTEGER REFERENCES result,
    user TEXT,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'leased', 'done', 'dead', 'superseded')),
    attempt INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL,
    lease TEXT,
    leased_until_ms INTEGER,
    reason TEXT,
    created_ms INTEGER NOT NULL,
    finished_ms INTEGER
) STRICT;
INSERT INTO job_again (id, kind, study_uid, revision, result_id, user, state, attempt, due_ms, lease, leased_until_ms,
    reason, created_ms, finished_ms)
SELECT id, kind, study_uid, revision, result_id, user, state, attempt, due_ms, lease, leased_until_ms,
    reason, created_ms, finished_ms FROM job;
DROP TABLE job;
ALTER TABLE job_again RENAME TO job;
CREATE UNIQUE INDEX job_queued ON job (study_uid, kind) WHERE state = 'queued' AND kind IN (1, 2);
CREATE UNIQUE INDEX job_signing ON job (result_id) WHERE state IN ('queued', 'leased') AND kind = 3;
CREATE INDEX job_open ON job (kind, id) WHERE state IN ('queued', 'leased');
CREATE INDEX job_study ON job (study_uid, kind, id);

-- The model that looks on; no row = none does.
CREATE TABLE model_shadow (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    model_sha256 TEXT NOT NULL REFERENCES model,
    actor TEXT NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT;

-- What it said of the images of a result.
CREATE TABLE shadow_result (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL UNIQUE REFERENCES job,
    result_id INTEGER NOT NULL REFERENCES result,
    model_sha256 TEXT NOT NULL REFERENCES model,
    status INTEGER NOT NULL CHECK (status IN (1, 2, 3)),
    reason TEXT NOT NULL,
    document TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    UNIQUE (result_id, model_sha256)
) STRICT;
CREATE TRIGGER shadow_result_no_update BEFORE UPDATE ON shadow_result
BEGIN SELECT RAISE(ABORT, 'results are immutable'); END;
CREATE TRIGGER shadow_result_no_delete BEFORE DELETE ON shadow_result
BEGIN SELECT RAISE(ABORT, 'results are immutable'); END;

CREATE VIEW retention AS
SELECT study.study_uid, study.last_received_ms, study.revision, result.id AS result_id,
    CASE
        WHEN hold.study_uid IS NOT NULL THEN 'held'
        WHEN study.revision > study.queued_revision
            OR EXISTS (SELECT 1 FROM job WHERE job.study_uid = study.study_uid AND job.state IN ('queued', 'leased'))
            THEN 'in work'
        WHEN result.id IS NULL OR result.study_revision <> study.revision THEN 'without result'
        WHEN signature.result_id IS NULL THEN 'unsigned'
        WHEN EXISTS (SELECT 1 FROM instance WHERE instance.study_uid = study.study_uid
                AND instance.version IN ('conflict', 'foreign')) THEN 'in conflict'
        ELSE 'signed'
    END AS standing
FROM study
LEFT JOIN hold ON hold.study_uid = study.study_uid
LEFT JOIN result ON result.study_uid = study.study_uid AND result.superseded_by IS NULL
LEFT JOIN signature ON signature.result_id = result.id
WHERE study.purged_ms IS NULL;

CREATE VIEW worklist AS
SELECT study.study_uid, patient_name, patient_id, accession_number, study_date, description,
    CASE
        WHEN job.state = 'leased' THEN 'analysing'
        WHEN study.revision > study.queued_revision THEN 'receiving'
        WHEN job.state = 'queued' THEN 'queued'
        WHEN job.state = 'dead' THEN 'failed'
        WHEN signature.result_id IS NOT NULL THEN 'signed'
        WHEN result.status = 1 THEN 'analysed'
        WHEN result.status = 2 THEN 'refused'
        WHEN result.status = 3 THEN 'failed'
        ELSE 'receiving'
    END AS state,
    CASE
        WHEN study.revision > study.queued_revision AND study.purged_ms IS NOT NULL
            THEN 'Some images of this study were purged: send the whole study again, and it is analysed'
        WHEN job.state IN ('queued', 'leased', 'dead') THEN coalesce(job.reason, '')
        ELSE coalesce(result.reason, '')
    END AS reason,
    first_received_ms,
    (SELECT count(*) FROM instance WHERE instance.study_uid = study.study_uid AND current = 1) AS instances,
    coalesce(result.id, 0) AS result_id,
    coalesce(result.findings_reported, 0) AS findings_reported,
    coalesce(result.probability_max, 0.0) AS probability_max,
    coalesce(result.review, 0) AS review,
    coalesce(study.purged_ms, 0) AS purged_ms,
    coalesce(hold.since_ms, 0) AS held_ms,
    coalesce(hold.reason, '') AS hold_reason,
    coalesce((SELECT max(old.id) FROM result AS old WHERE old.superseded_by = result.id), 0) AS supersedes
FROM study
LEFT JOIN result ON result.study_uid = study.study_uid AND result.superseded_by IS NULL
LEFT JOIN signature ON signature.result_id = result.id
LEFT JOIN hold ON hold.study_uid = study.study_uid
LEFT JOIN job ON job.id = (SELECT max(id) FROM job AS latest WHERE latest.study_uid = study.study_uid AND latest.kind = 1);
