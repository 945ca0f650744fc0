-- Version 6. What the reception journal acknowledges before its rows are here (store/journal.h). number: every record up
-- to it has its rows. in_use = 0: reception ended in order, and no record waits for its rows. key: what the digest in a
-- record begins with, so that a content cannot pass for one.
CREATE TABLE journal_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    key TEXT NOT NULL,
    number INTEGER NOT NULL,
    in_use INTEGER NOT NULL
) STRICT;
INSERT INTO journal_state VALUES (1, lower(hex(randomblob(32))), 0, 0);
