-- Version 4. Installed models, by the digest of their model.json, which names the digests of the other files. The files
-- are contents like those of results: backup, restore and the checks of the disk know them by these rows. Nothing of a
-- model changes or goes, so that a result of years ago finds the model that made it.
CREATE TABLE model (
    model_sha256 TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    actor TEXT NOT NULL,
    installed_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER model_no_update BEFORE UPDATE ON model BEGIN SELECT RAISE(ABORT, 'models are immutable'); END;
CREATE TRIGGER model_no_delete BEFORE DELETE ON model BEGIN SELECT RAISE(ABORT, 'models are immutable'); END;

CREATE TABLE model_file (
    model_sha256 TEXT NOT NULL REFERENCES model,
    name TEXT NOT NULL,
    blob_sha256 TEXT NOT NULL,
    blob_size INTEGER NOT NULL,
    PRIMARY KEY (model_sha256, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX model_file_blob ON model_file (blob_sha256);
CREATE TRIGGER model_file_no_update BEFORE UPDATE ON model_file BEGIN SELECT RAISE(ABORT, 'models are immutable'); END;
CREATE TRIGGER model_file_no_delete BEFORE DELETE ON model_file BEGIN SELECT RAISE(ABORT, 'models are immutable'); END;

-- A stack: in use is the last one that was not rolled back; none = the model of the configuration.
CREATE TABLE model_promotion (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    model_sha256 TEXT NOT NULL REFERENCES model,
    actor TEXT NOT NULL,
    promoted_ms INTEGER NOT NULL,
    rolled_back_ms INTEGER
) STRICT;
