-- Questions that clients ask models themselves, of no session and no run.

CREATE TABLE direct_calls (
    tenant             TEXT NOT NULL,
    id                 TEXT NOT NULL,
    principal          TEXT NOT NULL,
    purpose            TEXT,
    provider           TEXT NOT NULL,
    model              TEXT NOT NULL,
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
    asked_at           INTEGER NOT NULL,
    ended_at           INTEGER,
    first_token_us     INTEGER,
    latency_us         INTEGER GENERATED ALWAYS AS (ended_at - asked_at) VIRTUAL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX direct_calls_by_time ON direct_calls (tenant, asked_at);
CREATE INDEX direct_calls_open ON direct_calls (tenant, id) WHERE status = 'open';
