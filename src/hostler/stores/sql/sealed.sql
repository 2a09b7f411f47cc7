-- Statements of stores/sqlite_sealed.py and stores/sqlite_scrub.py, by name.

-- name: secrets
SELECT tenant, name, kind, sealed, data_key, created_at, updated_at FROM secrets
ORDER BY tenant, name

-- name: data_keys
SELECT tenant, id, wrapped, wrapped_by FROM data_keys ORDER BY tenant, id

-- name: put_secret
INSERT INTO secrets (tenant, name, kind, sealed, data_key, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, name) DO UPDATE SET
    kind = excluded.kind, sealed = excluded.sealed, data_key = excluded.data_key,
    updated_at = excluded.updated_at

-- name: put_data_key
INSERT INTO data_keys (tenant, id, wrapped, wrapped_by) VALUES (?, ?, ?, ?)

-- name: drop_secret
DELETE FROM secrets WHERE tenant = ? AND name = ?

-- name: rewrap_data_key
UPDATE data_keys SET wrapped = ?, wrapped_by = ? WHERE tenant = ? AND id = ?

-- name: put_scrub
INSERT INTO scrubs (tenant, id, at, record) VALUES (?, ?, ?, ?)

-- name: scrub_facts
SELECT session, seq, fact FROM events
WHERE tenant = ? AND (session, seq) > (?, ?) ORDER BY session, seq LIMIT ?

-- name: scrub_fact
UPDATE events SET fact = ? WHERE tenant = ? AND session = ? AND seq = ?

-- name: scrub_said
SELECT id FROM said WHERE tenant = ? AND session = ? AND seq = ?

-- name: scrub_index
-- What a contentless index held stays in its older segments until they are joined.
INSERT INTO said_words (said_words) VALUES ('optimize')

-- name: scrub_log
PRAGMA wal_checkpoint(TRUNCATE)
