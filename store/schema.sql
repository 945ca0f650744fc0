-- Version 1 of the store. Later versions are migrations/NNNN_name.sql, applied in order on top of this file.
-- Times are milliseconds since the Unix epoch. Digests are SHA-256 as 64 hexadecimal digits.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The chain: digest = SHA-256(digest of the row before || content). Ids count from 1 without a gap.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    content TEXT NOT NULL,
    digest TEXT NOT NULL
) STRICT;
-- Where the chain ends, so that rows cut off its end are missed.
CREATE TABLE audit_head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    row_count INTEGER NOT NULL,
    digest TEXT NOT NULL
) STRICT;
INSERT INTO audit_head VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are immutable'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are immutable'); END;

-- revision counts the changes of the set of current instances; queued_revision is the last one that jobs were made of.
CREATE TABLE study (
    study_uid TEXT PRIMARY KEY,
    patient_name TEXT NOT NULL,
    patient_id TEXT NOT NULL,
    accession_number TEXT NOT NULL,
    study_date TEXT NOT NULL,
    study_time TEXT NOT NULL,
    description TEXT NOT NULL,
    first_received_ms INTEGER NOT NULL,
    last_received_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0,
    queued_revision INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX study_incomplete ON study (last_received_ms) WHERE revision > queued_revision;

-- Who sent to a study: a second sender is audited.
CREATE TABLE study_source (
    study_uid TEXT NOT NULL REFERENCES study,
    calling_aet TEXT NOT NULL,
    peer_address TEXT NOT NULL,
    first_received_ms INTEGER NOT NULL,
    PRIMARY KEY (study_uid, calling_aet, peer_address)
) STRICT, WITHOUT ROWID;

-- Open associations only; what a closed one did is in the audit.
CREATE TABLE association (
    association_id INTEGER PRIMARY KEY,
    calling_aet TEXT NOT NULL,
    peer_address TEXT NOT NULL,
    opened_ms INTEGER NOT NULL,
    last_study_uid TEXT REFERENCES study
) STRICT;
CREATE TABLE association_study (
    association_id INTEGER NOT NULL REFERENCES association ON DELETE CASCADE,
    study_uid TEXT NOT NULL REFERENCES study,
    instances INTEGER NOT NULL,
    PRIMARY KEY (association_id, study_uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX association_study_uid ON association_study (study_uid);

-- Instances that were not stored (no room, disk error): the sender will try again, so their study is not complete.
CREATE TABLE instance_refused (
    sop_instance_uid TEXT PRIMARY KEY,
    study_uid TEXT NOT NULL REFERENCES study,
    refused_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX instance_refused_study ON instance_refused (study_uid);

-- Every version of every instance; at most one of a SOP instance is current (used for analysis).
CREATE TABLE instance (
    sop_instance_uid TEXT NOT NULL,
    blob_sha256 TEXT NOT NULL,
    blob_size INTEGER NOT NULL,
    study_uid TEXT NOT NULL REFERENCES study,
    series_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    instance_number INTEGER NOT NULL,
    series_description TEXT NOT NULL,
    modality TEXT NOT NULL,
    calling_aet TEXT NOT NULL,
    called_aet TEXT NOT NULL,
    peer_address TEXT NOT NULL,
    received_ms INTEGER NOT NULL,
    attributes_sha256 TEXT NOT NULL,
    version TEXT NOT NULL CHECK (version IN ('first', 'transcoded', 'corrected', 'conflict', 'foreign')),
    current INTEGER NOT NULL CHECK (current IN (0, 1)),
    PRIMARY KEY (sop_instance_uid, blob_sha256)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX instance_current ON instance (sop_instance_uid) WHERE current = 1;
CREATE INDEX instance_study ON instance (study_uid, current);
CREATE INDEX instance_blob ON instance (blob_sha256);

-- kind: 1 analyse, 2 decode, 3 sign (enum store_job_kind). revision: of the study when the job was last taken.
CREATE TABLE job (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
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
CREATE UNIQUE INDEX job_queued ON job (study_uid, kind) WHERE state = 'queued' AND kind IN (1, 2);
CREATE UNIQUE INDEX job_signing ON job (result_id) WHERE state IN ('queued', 'leased') AND kind = 3;
CREATE INDEX job_open ON job (kind, id) WHERE state IN ('queued', 'leased');
CREATE INDEX job_study ON job (study_uid, kind, id);

-- Immutable but for superseded_by, which is set once.
CREATE TABLE result (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL UNIQUE REFERENCES job,
    study_uid TEXT NOT NULL REFERENCES study,
    study_revision INTEGER NOT NULL,
    series_uid TEXT NOT NULL,
    status INTEGER NOT NULL CHECK (status IN (1, 2, 3)),
    reason TEXT NOT NULL,
    summary_json TEXT NOT NULL,
    model_sha256 TEXT NOT NULL,
    backend TEXT NOT NULL,
    findings_reported INTEGER NOT NULL,
    probability_max REAL NOT NULL,
    review INTEGER NOT NULL CHECK (review IN (0, 1)),
    created_ms INTEGER NOT NULL,
    superseded_by INTEGER REFERENCES result DEFERRABLE INITIALLY DEFERRED
) STRICT;
CREATE UNIQUE INDEX result_current ON result (study_uid) WHERE superseded_by IS NULL;
CREATE TRIGGER result_no_delete BEFORE DELETE ON result BEGIN SELECT RAISE(ABORT, 'results are immutable'); END;
CREATE TRIGGER result_no_update BEFORE UPDATE ON result
WHEN OLD.superseded_by IS NOT NULL OR NEW.superseded_by IS NULL
    OR (NEW.id, NEW.job_id, NEW.study_uid, NEW.study_revision, NEW.series_uid, NEW.status, NEW.reason, NEW.summary_json,
        NEW.model_sha256, NEW.backend, NEW.findings_reported, NEW.probability_max, NEW.review, NEW.created_ms)
    IS NOT (OLD.id, OLD.job_id, OLD.study_uid, OLD.study_revision, OLD.series_uid, OLD.status, OLD.reason, OLD.summary_json,
        OLD.model_sha256, OLD.backend, OLD.findings_reported, OLD.probability_max, OLD.review, OLD.created_ms)
BEGIN SELECT RAISE(ABORT, 'results are immutable'); END;

-- Files of a result; made by its analysis or by its signing.
CREATE TABLE artifact (
    result_id INTEGER NOT NULL REFERENCES result,
    name TEXT NOT NULL,
    media_type TEXT NOT NULL,
    blob_sha256 TEXT NOT NULL,
    blob_size INTEGER NOT NULL,
    job_id INTEGER NOT NULL REFERENCES job,
    PRIMARY KEY (result_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX artifact_blob ON artifact (blob_sha256);
CREATE TRIGGER artifact_no_update BEFORE UPDATE ON artifact BEGIN SELECT RAISE(ABORT, 'artifacts are immutable'); END;
CREATE TRIGGER artifact_no_delete BEFORE DELETE ON artifact BEGIN SELECT RAISE(ABORT, 'artifacts are immutable'); END;

-- Files made from the instances alone; they could be made again, so they may be purged, but not changed.
CREATE TABLE study_artifact (
    study_uid TEXT NOT NULL REFERENCES study,
    job_id INTEGER NOT NULL REFERENCES job,
    name TEXT NOT NULL,
    media_type TEXT NOT NULL,
    blob_sha256 TEXT NOT NULL,
    blob_size INTEGER NOT NULL,
    PRIMARY KEY (study_uid, job_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX study_artifact_blob ON study_artifact (blob_sha256);
CREATE TRIGGER study_artifact_no_update BEFORE UPDATE ON study_artifact
BEGIN SELECT RAISE(ABORT, 'artifacts are immutable'); END;

CREATE TABLE verdict (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    result_id INTEGER NOT NULL REFERENCES result,
    finding_id INTEGER NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('accepted', 'rejected', 'none', 'added', 'removed')),
    x_mm REAL NOT NULL,
    y_mm REAL NOT NULL,
    z_mm REAL NOT NULL,
    diameter_mm REAL NOT NULL,
    user TEXT NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX verdict_finding ON verdict (result_id, finding_id, id);
CREATE TRIGGER verdict_no_update BEFORE UPDATE ON verdict BEGIN SELECT RAISE(ABORT, 'verdicts are immutable'); END;
CREATE TRIGGER verdict_no_delete BEFORE DELETE ON verdict BEGIN SELECT RAISE(ABORT, 'verdicts are immutable'); END;

CREATE TABLE signature (
    result_id INTEGER PRIMARY KEY REFERENCES result,
    job_id INTEGER NOT NULL REFERENCES job,
    user TEXT NOT NULL,
    signed_ms INTEGER NOT NULL
) STRICT;
CREATE TRIGGER signature_no_update BEFORE UPDATE ON signature BEGIN SELECT RAISE(ABORT, 'signatures are immutable'); END;
CREATE TRIGGER signature_no_delete BEFORE DELETE ON signature BEGIN SELECT RAISE(ABORT, 'signatures are immutable'); END;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    result_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'leased', 'sent', 'dead')),
    attempt INTEGER NOT NULL DEFAULT 0,
    refusals INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL,
    lease TEXT,
    leased_until_ms INTEGER,
    reason TEXT,
    created_ms INTEGER NOT NULL,
    sent_ms INTEGER,
    UNIQUE (result_id, name, destination),
    FOREIGN KEY (result_id, name) REFERENCES artifact
) STRICT;
CREATE INDEX outbox_open ON outbox (due_ms, id) WHERE state IN ('queued', 'leased');
-- A destination that is down: nothing is tried before due_ms.
CREATE TABLE destination_pause (
    destination TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    due_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE user (
    name TEXT PRIMARY KEY,
    display_name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'radiologist', 'administrator', 'auditor')),
    password TEXT NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Also of names that are no user, so that the lock-out does not tell them apart.
CREATE TABLE login_failure (
    name TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    locked_until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX login_failure_last ON login_failure (last_ms);
CREATE TABLE session (
    token_sha256 TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES user,
    created_ms INTEGER NOT NULL,
    used_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_user ON session (user);

-- The worklist's row. A failed job counts only while nothing newer of the study came.
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
    CASE WHEN job.state IN ('queued', 'leased', 'dead') THEN coalesce(job.reason, '')
        ELSE coalesce(result.reason, '') END AS reason,
    first_received_ms,
    (SELECT count(*) FROM instance WHERE instance.study_uid = study.study_uid AND current = 1) AS instances,
    coalesce(result.id, 0) AS result_id,
    coalesce(result.findings_reported, 0) AS findings_reported,
    coalesce(result.probability_max, 0.0) AS probability_max,
    coalesce(result.review, 0) AS review
FROM study
LEFT JOIN result ON result.study_uid = study.study_uid AND result.superseded_by IS NULL
LEFT JOIN signature ON signature.result_id = result.id
LEFT JOIN job ON job.id = (SELECT max(id) FROM job AS latest WHERE latest.study_uid = study.study_uid AND latest.kind = 1);
