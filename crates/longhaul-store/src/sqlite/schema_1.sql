-- Every append writes its session's row, and a page for each index that knows a column it sets. So
-- there is no index by `updated`: lists go through all rows, and `state`, the longest, stands last.
CREATE TABLE sessions (
    id           BLOB PRIMARY KEY NOT NULL,
    head         INTEGER NOT NULL,
    head_hash    BLOB NOT NULL,
    status       TEXT NOT NULL,
    archived     INTEGER NOT NULL,
    name         TEXT,
    claimable_at INTEGER,
    owner        BLOB,
    epoch        INTEGER NOT NULL,
    place        TEXT NOT NULL,
    parent       BLOB REFERENCES sessions (id),
    parent_at    INTEGER,
    depth        INTEGER NOT NULL,
    created      INTEGER NOT NULL,
    updated      INTEGER NOT NULL,
    labels       TEXT NOT NULL,
    state        BLOB NOT NULL,
    CHECK ((parent IS NULL) = (parent_at IS NULL))
) STRICT;
CREATE INDEX sessions_claimable ON sessions (place, claimable_at) WHERE claimable_at IS NOT NULL;
CREATE INDEX sessions_parent ON sessions (parent) WHERE parent IS NOT NULL;

-- A position is never used twice, even after a delete, so that "everything after 42" is a
-- question with one answer. Not WITHOUT ROWID: entries are too long for it.
CREATE TABLE entries (
    position INTEGER PRIMARY KEY,
    session  BLOB NOT NULL REFERENCES sessions (id),
    n        INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    at       INTEGER NOT NULL,
    record   BLOB NOT NULL,
    content  BLOB,
    encoding INTEGER NOT NULL, -- of content: 0 as it is, 1 deflated (zlib), 2 digest of an artifact
    hash     BLOB NOT NULL,
    request  TEXT              -- on the last entry of what the request did
) STRICT;
CREATE UNIQUE INDEX entries_n ON entries (session, n);
CREATE UNIQUE INDEX entries_request ON entries (session, request) WHERE request IS NOT NULL;

-- One row: the newest position there was when a session was last deleted. AUTOINCREMENT would write its
-- counter at every append.
CREATE TABLE given_up (
    position INTEGER NOT NULL
) STRICT;
INSERT INTO given_up VALUES (0);

CREATE TABLE artifacts (
    digest   BLOB PRIMARY KEY NOT NULL,
    bytes    BLOB NOT NULL,
    encoding INTEGER NOT NULL  -- of bytes: 0 or 1
) STRICT;

-- An artifact stays while somebody uses it: an entry's content, or (n = 0) the session itself.
CREATE TABLE artifact_uses (
    session BLOB NOT NULL REFERENCES sessions (id),
    n       INTEGER NOT NULL,
    digest  BLOB NOT NULL,
    PRIMARY KEY (session, n, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX artifact_uses_digest ON artifact_uses (digest);

CREATE TABLE workers (
    id      BLOB PRIMARY KEY NOT NULL,
    place   TEXT NOT NULL,
    host    TEXT NOT NULL,
    pid     INTEGER NOT NULL,
    version TEXT NOT NULL,
    address TEXT,
    started INTEGER NOT NULL,
    capacity INTEGER NOT NULL
) STRICT;
