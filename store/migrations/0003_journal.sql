-- Version 3. Contents of instances that still lie in journal/ and not yet in blobs/ (store/journal.h). Ids are never
-- used again, so that "everything up to this one" has an end.
CREATE TABLE journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    blob_sha256 TEXT NOT NULL UNIQUE,
    blob_size INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    position INTEGER NOT NULL
) STRICT;
