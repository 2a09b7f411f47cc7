-- Approvals, forks, links and kept answers.

-- What clients bring, and whose history a fork begins with: JSON, NULL for none.
ALTER TABLE sessions ADD COLUMN client_tools TEXT;
ALTER TABLE sessions ADD COLUMN lineage TEXT;

-- When an active run can go on: 0 at once, later when it waits for somebody, NULL without a run.
ALTER TABLE heads ADD COLUMN due INTEGER;
UPDATE heads SET due = 0 WHERE active IS NOT NULL;
DROP INDEX heads_active;
CREATE INDEX heads_due ON heads (due) WHERE due IS NOT NULL;
CREATE INDEX heads_oldest ON heads (updated_at) WHERE active IS NULL;

-- Lists of sessions: of one agent; and of those few that something is going on in.
CREATE INDEX sessions_of_agent ON sessions (tenant, agent, created_at, id);
CREATE INDEX heads_busy ON heads (tenant, status, session) WHERE status <> 'idle';

-- Who reads whose history: one row per segment of a fork's lineage.
CREATE TABLE forks (
    tenant  TEXT NOT NULL,
    origin  TEXT NOT NULL,
    session TEXT NOT NULL,
    upto    INTEGER NOT NULL,
    PRIMARY KEY (tenant, origin, session)
) STRICT, WITHOUT ROWID;
CREATE INDEX forks_of ON forks (tenant, session);

-- Columns other than the keys may be NULL: rows are merged from changes (see upsert_approvals).
CREATE TABLE approvals (
    tenant      TEXT NOT NULL,
    call        TEXT NOT NULL,
    session     TEXT NOT NULL,
    run         TEXT NOT NULL,
    status      TEXT NOT NULL,
    name        TEXT,
    arguments   TEXT,
    digest      TEXT,
    asked_at    INTEGER,
    expires_at  INTEGER,
    principal   TEXT,
    reason      TEXT,
    answered_at INTEGER,
    PRIMARY KEY (tenant, session, call)
) STRICT, WITHOUT ROWID;
CREATE INDEX approvals_open ON approvals (tenant, status, call);

-- Answers to writes that must happen once.
CREATE TABLE answers (
    tenant TEXT NOT NULL,
    scope  TEXT NOT NULL,
    digest TEXT NOT NULL,
    answer BLOB NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (tenant, scope)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_oldest ON answers (at);

CREATE TABLE shares (
    digest     TEXT NOT NULL PRIMARY KEY,
    tenant     TEXT NOT NULL,
    id         TEXT NOT NULL,
    session    TEXT NOT NULL,
    principal  TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX shares_of ON shares (tenant, session);
