-- The log and the tables kept from it.  Times are Unix microseconds.

-- What a session is called; never written by a run.
CREATE TABLE sessions (
    tenant     TEXT NOT NULL,
    id         TEXT NOT NULL,
    agent      TEXT NOT NULL,
    principal  TEXT NOT NULL,
    title      TEXT,
    metadata   TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_newest ON sessions (tenant, created_at, id);

-- Apart from the labels, because each append rewrites it.  `head` is core.state.Head as JSON;
-- `status` and `active` repeat what lists and the reconciler look for.
CREATE TABLE heads (
    tenant     TEXT NOT NULL,
    session    TEXT NOT NULL,
    head       TEXT NOT NULL,
    status     TEXT NOT NULL,
    active     TEXT,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, session)
) STRICT, WITHOUT ROWID;
CREATE INDEX heads_active ON heads (active) WHERE active IS NOT NULL;

-- The only truth.  `fact` is last, so that a scan by kind does not touch it.
CREATE TABLE events (
    tenant  TEXT NOT NULL,
    session TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    fact    TEXT NOT NULL,
    PRIMARY KEY (tenant, session, seq)
) STRICT, WITHOUT ROWID;

-- Columns other than the keys may be NULL: rows are merged from changes (see upsert_runs).
CREATE TABLE runs (
    tenant     TEXT NOT NULL,
    id         TEXT NOT NULL,
    session    TEXT NOT NULL,
    status     TEXT NOT NULL,
    agent      TEXT,
    input      TEXT,
    first_seq  INTEGER,
    last_seq   INTEGER,
    created_at INTEGER,
    started_at INTEGER,
    ended_at   INTEGER,
    reason     TEXT,
    usage      TEXT,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_of_session ON runs (tenant, session, id);

-- Where each entry of the full-text index comes from; newer entries have higher ids.
CREATE TABLE said (
    id      INTEGER PRIMARY KEY,
    tenant  TEXT NOT NULL,
    session TEXT NOT NULL,
    seq     INTEGER NOT NULL
) STRICT;
CREATE INDEX said_where ON said (tenant, session, seq);

-- Contentless: the words are indexed, the text stays in the log alone.
CREATE VIRTUAL TABLE said_words USING fts5 (
    text, content = '', tokenize = "unicode61 remove_diacritics 2"
);
