-- Retention: what is held, what the PACS has confirmed, whose images were given up. Rows of instances stay for ever: a
-- purged one keeps the digests of its data set and pixels, so that the same image is known when it is sent again.

ALTER TABLE study ADD COLUMN purged_ms INTEGER;
ALTER TABLE instance ADD COLUMN purged_ms INTEGER;
ALTER TABLE instance ADD COLUMN dataset_sha256 TEXT;
ALTER TABLE instance ADD COLUMN pixels_sha256 TEXT;
CREATE INDEX instance_purged ON instance (study_uid) WHERE purged_ms IS NOT NULL;
CREATE INDEX study_unpurged ON study (last_received_ms) WHERE purged_ms IS NULL;
CREATE INDEX result_superseded ON result (superseded_by) WHERE superseded_by IS NOT NULL;

-- Content that lost its last row: written with the marks, removed with the file. A crash in between is made good from here.
CREATE TABLE blob_purge (blob_sha256 TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

-- Studies whose images are kept whatever the settings say: a legal matter, a teaching file. The history is in the audit.
CREATE TABLE hold (
    study_uid TEXT PRIMARY KEY REFERENCES study,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a destination was asked, or is to be asked, to confirm: the objects of the study's signed result up to outbox_id,
-- and the images of study_revision. Of other numbers than the study's present ones it confirms nothing any more.
CREATE TABLE confirmation (
    study_uid TEXT NOT NULL REFERENCES study,
    destination TEXT NOT NULL,
    study_revision INTEGER NOT NULL,
    outbox_id INTEGER NOT NULL REFERENCES outbox,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'confirmed')),
    attempt INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL,
    reason TEXT,
    confirmed_ms INTEGER,
    PRIMARY KEY (study_uid, destination)
) STRICT, WITHOUT ROWID;
CREATE INDEX confirmation_due ON confirmation (due_ms) WHERE state = 'queued';

-- Storage Commitment requests that were sent, by their Transaction UID (PS3.4 J.3.2): the answer may come hours later, on
-- another association, after a restart. references_sha256: of the sorted SOP Instance UIDs, a line each.
CREATE TABLE commitment (
    transaction_uid TEXT PRIMARY KEY,
    study_uid TEXT NOT NULL,
    destination TEXT NOT NULL,
    study_revision INTEGER NOT NULL,
    outbox_id INTEGER NOT NULL,
    references_sha256 TEXT NOT NULL,
    asked_ms INTEGER NOT NULL,
    FOREIGN KEY (study_uid, destination) REFERENCES confirmation ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX commitment_confirmation ON commitment (study_uid, destination);

-- Sentences for the administrator, by subject: why the disk stays full.
CREATE TABLE notice (
    subject TEXT PRIMARY KEY,
    text TEXT NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO confirmation (study_uid, destination, study_revision, outbox_id, due_ms)
SELECT result.study_uid, outbox.destination, result.study_revision, max(outbox.id), 0
FROM result JOIN signature ON signature.result_id = result.id JOIN outbox ON outbox.result_id = result.id
WHERE result.superseded_by IS NULL
GROUP BY result.id, outbox.destination HAVING sum(outbox.state <> 'sent') = 0;

-- Why a study's images are not purged, in the order of the reasons; 'signed' = nothing but the PACS is missing.
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

-- The worklist's row, version 1 with: purged images, the hold, the result that this one replaced.
DROP VIEW worklist;
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
