-- Where tenants are told what happened, and what is to be told there.

CREATE TABLE webhooks (
    tenant           TEXT NOT NULL,
    id               TEXT NOT NULL,
    url              TEXT NOT NULL,
    secret           TEXT NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    events           TEXT,
    description      TEXT,
    old_secret       TEXT,
    old_until        INTEGER,
    disabled_at      INTEGER,
    disabled_because TEXT,
    failures         INTEGER NOT NULL,
    failing_since    INTEGER,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE deliveries (
    tenant     TEXT NOT NULL,
    webhook    TEXT NOT NULL,
    id         TEXT NOT NULL,
    type       TEXT NOT NULL,
    body       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    status     TEXT NOT NULL,
    tries      INTEGER NOT NULL,
    step       INTEGER NOT NULL,
    replays    INTEGER NOT NULL,
    tried_at   INTEGER,
    code       INTEGER,
    error      TEXT,
    next_at    INTEGER,
    PRIMARY KEY (tenant, webhook, id)
) STRICT;
CREATE INDEX deliveries_due ON deliveries (tenant, webhook, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_next ON deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_over ON deliveries (created_at) WHERE next_at IS NULL;
