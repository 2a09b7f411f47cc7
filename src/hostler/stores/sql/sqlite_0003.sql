-- Tenants, keys, and with whom sessions are shared.

-- `settings` is core.directory.TenantSettings as JSON.
CREATE TABLE tenants (
    tenant     TEXT NOT NULL PRIMARY KEY,
    title      TEXT,
    created_at INTEGER NOT NULL,
    settings   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO tenants VALUES ('default', NULL, CAST(strftime('%s', 'now') AS INTEGER) * 1000000, '{}');

-- `scopes` is JSON, NULL for all that the role has.
CREATE TABLE keys (
    tenant     TEXT NOT NULL,
    id         TEXT NOT NULL,
    user       TEXT,
    role       TEXT NOT NULL,
    scopes     TEXT,
    prefix     TEXT NOT NULL,
    digest     TEXT NOT NULL,
    title      TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    used_at    INTEGER,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX keys_of_digest ON keys (digest);

-- `by_whom` and not `by`, which is a word of SQL.
CREATE TABLE grants (
    tenant  TEXT NOT NULL,
    session TEXT NOT NULL,
    user    TEXT NOT NULL,
    role    TEXT NOT NULL,
    by_whom TEXT NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (tenant, session, user)
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_of ON grants (tenant, user, session);

-- Lists of what one member may see are found from here: what they made, and what is shared with them.
CREATE INDEX sessions_of_principal ON sessions (tenant, principal, id);
CREATE VIEW seen AS
    SELECT tenant, principal AS user, id AS session FROM sessions
    UNION ALL
    SELECT tenant, user, session FROM grants;

-- What may go by retention is looked for tenant by tenant, too.
CREATE INDEX heads_oldest_of ON heads (tenant, updated_at) WHERE active IS NULL;
