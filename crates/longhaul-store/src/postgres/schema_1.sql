-- Ids and hashes are bytea: they compare as bytes, as everywhere else.
-- No CHECK that a parent comes with its entry and an owner with a lease: the server reads the text of each,
-- and plans it, anew for every append.
CREATE TABLE sessions (
    id           bytea PRIMARY KEY,
    head         bigint NOT NULL,
    epoch        bigint NOT NULL,
    created      bigint NOT NULL,
    updated      bigint NOT NULL,
    claimable_at bigint,
    parent_at    bigint,
    -- Until when the owner counts as alive, by this server's clock.
    lease        timestamptz,
    -- The transaction that wrote it last: what has grown since a snapshot is found by it, whatever the order
    -- in which transactions ended.
    xact         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    -- Both again, in steps of 2^22 milliseconds (70 minutes) and 4,096 transactions. Only these have an index:
    -- an append seldom changes one, and then its row stays where all indexes find it (a HOT update).
    updated_step bigint NOT NULL,
    xact_step    bigint NOT NULL,
    depth        integer NOT NULL,
    archived     boolean NOT NULL,
    head_hash    bytea NOT NULL,
    owner        bytea,
    parent       bytea REFERENCES sessions (id),
    state        bytea NOT NULL,
    status       text NOT NULL,
    name         text,
    place        text NOT NULL,
    labels       text NOT NULL
) WITH (fillfactor = 75); -- each page has room for the next version of a row
CREATE INDEX sessions_updated ON sessions (updated_step);
CREATE INDEX sessions_claimable ON sessions (place, claimable_at) WHERE claimable_at IS NOT NULL;
CREATE INDEX sessions_parent ON sessions (parent) WHERE parent IS NOT NULL;
CREATE INDEX sessions_owner ON sessions (owner) WHERE owner IS NOT NULL;
CREATE INDEX sessions_xact ON sessions (xact_step);

-- No foreign key to sessions: entries are only written in the statement that moves the session's head.
CREATE TABLE entries (
    n        bigint NOT NULL,
    at       bigint NOT NULL,
    encoding smallint NOT NULL, -- of content: 0 as it is, 1 deflated (zlib), 2 digest of an artifact
    session  bytea NOT NULL,
    kind     text NOT NULL,
    hash     bytea NOT NULL,
    record   bytea NOT NULL,
    content  bytea,
    request  text,              -- on the last entry of what the request did
    PRIMARY KEY (session, n)
);
CREATE UNIQUE INDEX entries_request ON entries (session, request) WHERE request IS NOT NULL;

CREATE TABLE artifacts (
    digest   bytea PRIMARY KEY,
    bytes    bytea NOT NULL,
    encoding smallint NOT NULL  -- of bytes: 0 or 1
);

-- An artifact stays while somebody uses it: an entry's content, or (n = 0) the session itself. The foreign
-- key decides between one who begins to use it and one who removes it at the same time.
CREATE TABLE artifact_uses (
    session bytea NOT NULL,
    n       bigint NOT NULL,
    digest  bytea NOT NULL REFERENCES artifacts (digest),
    PRIMARY KEY (session, n, digest)
);
CREATE INDEX artifact_uses_digest ON artifact_uses (digest);

CREATE TABLE workers (
    id       bytea PRIMARY KEY,
    started  bigint NOT NULL,
    -- Until when it counts as alive, by this server's clock.
    lease    timestamptz NOT NULL,
    pid      bigint NOT NULL,
    capacity bigint NOT NULL,
    place    text NOT NULL,
    host     text NOT NULL,
    version  text NOT NULL,
    address  text
);
