-- Runs, model calls and tool calls as rows for everybody who asks in SQL, kept with each append.
-- docs/reference/tables.md says what each column means; sqlite_entries.py fills them anew.
-- Times are Unix microseconds, costs US dollars as exact decimals.

-- Columns other than the keys may be NULL: rows are merged from changes (see ledger.sql).
CREATE TABLE agent_runs (
    tenant             TEXT NOT NULL,
    id                 TEXT NOT NULL,
    session            TEXT NOT NULL,
    agent              TEXT,
    owner              TEXT,
    principal          TEXT,
    purpose            TEXT,
    status             TEXT NOT NULL,
    reason             TEXT,
    input              TEXT,
    first_seq          INTEGER,
    last_seq           INTEGER,
    created_at         INTEGER,
    started_at         INTEGER,
    ended_at           INTEGER,
    steps              INTEGER NOT NULL,
    input_tokens       INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    cache_read_tokens  INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens   INTEGER NOT NULL,
    cost               TEXT,
    price_version      TEXT,
    unpriced_calls     INTEGER NOT NULL,
    error_type         TEXT,
    error_message      TEXT,
    input_summary      TEXT,
    output_summary     TEXT,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
-- One for each way to ask, newest first.
CREATE INDEX agent_runs_by_time ON agent_runs (tenant, created_at, id);
CREATE INDEX agent_runs_of_session ON agent_runs (tenant, session, created_at, id);
CREATE INDEX agent_runs_of_agent ON agent_runs (tenant, agent, created_at, id);
CREATE INDEX agent_runs_of_principal ON agent_runs (tenant, principal, created_at, id);
CREATE INDEX agent_runs_by_status ON agent_runs (tenant, status, created_at, id);
CREATE INDEX agent_runs_by_purpose ON agent_runs (tenant, purpose, created_at, id)
    WHERE purpose IS NOT NULL;

CREATE TABLE llm_calls (
    tenant             TEXT NOT NULL,
    run                TEXT NOT NULL,
    id                 TEXT NOT NULL,
    session            TEXT NOT NULL,
    step               INTEGER NOT NULL,
    number             INTEGER,
    provider           TEXT,
    model              TEXT,
    status             TEXT NOT NULL,
    error_type         TEXT,
    error_message      TEXT,
    input_tokens       INTEGER,
    output_tokens      INTEGER,
    cache_read_tokens  INTEGER,
    cache_write_tokens INTEGER,
    reasoning_tokens   INTEGER,
    cost               TEXT,
    price_version      TEXT,
    unpriced           INTEGER NOT NULL,
    asked_at           INTEGER,
    ended_at           INTEGER,
    first_token_us     INTEGER,
    latency_us         INTEGER GENERATED ALWAYS AS (ended_at - asked_at) VIRTUAL,
    PRIMARY KEY (tenant, run, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX llm_calls_by_time ON llm_calls (tenant, asked_at);

CREATE TABLE tool_runs (
    tenant         TEXT NOT NULL,
    run            TEXT NOT NULL,
    id             TEXT NOT NULL,
    session        TEXT NOT NULL,
    step           INTEGER NOT NULL,
    name           TEXT,
    status         TEXT NOT NULL,
    asked_at       INTEGER,
    started_at     INTEGER,
    ended_at       INTEGER,
    parameters     TEXT,
    parameters_cut INTEGER NOT NULL,
    result         TEXT,
    result_cut     INTEGER NOT NULL,
    latency_us     INTEGER GENERATED ALWAYS AS (ended_at - started_at) VIRTUAL,
    PRIMARY KEY (tenant, run, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE feedback (
    tenant    TEXT NOT NULL,
    run       TEXT NOT NULL,
    principal TEXT NOT NULL,
    key       TEXT NOT NULL,
    session   TEXT NOT NULL,
    score     REAL NOT NULL,
    comment   TEXT,
    at        INTEGER NOT NULL,
    PRIMARY KEY (tenant, run, principal, key)
) STRICT, WITHOUT ROWID;

-- Sessions whose rows are to be made anew from their logs, before anybody reads them.
CREATE TABLE stale (
    tenant  TEXT NOT NULL,
    session TEXT NOT NULL,
    PRIMARY KEY (tenant, session)
) STRICT, WITHOUT ROWID;
INSERT INTO stale SELECT tenant, id FROM sessions;

DROP TABLE runs;
