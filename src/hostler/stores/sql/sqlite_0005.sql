-- Secrets, sealed; the keys that seal them, wrapped; and what scrubs have changed.

CREATE TABLE data_keys (
    tenant     TEXT NOT NULL,
    id         TEXT NOT NULL,
    wrapped    BLOB NOT NULL,
    wrapped_by TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE secrets (
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    kind       TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    data_key   TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE scrubs (
    tenant TEXT NOT NULL,
    id     TEXT NOT NULL,
    at     INTEGER NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
