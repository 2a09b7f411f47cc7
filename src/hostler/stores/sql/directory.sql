-- Every statement of stores/sqlite_directory.py, by name, and what else reads or writes its tables.

-- name: create_tenant
INSERT INTO tenants VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: tenant
SELECT * FROM tenants WHERE tenant = ?

-- name: tenants
SELECT * FROM tenants WHERE tenant > ? ORDER BY tenant LIMIT ?

-- name: change_tenant
UPDATE tenants SET title = ?, settings = ? WHERE tenant = ?

-- name: add_key
INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: keys
SELECT * FROM keys
WHERE tenant = :tenant
    AND user = :user -- if user
    AND id < :after -- if after
ORDER BY id DESC LIMIT :limit

-- name: key
SELECT * FROM keys WHERE tenant = ? AND id = ?

-- name: key_of_digest
SELECT * FROM keys WHERE digest = ?

-- name: revoke_key
UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE tenant = ? AND id = ?

-- name: touch_key
UPDATE keys SET used_at = max(coalesce(used_at, 0), ?) WHERE tenant = ? AND id = ?

-- name: endpoints
SELECT * FROM endpoints ORDER BY tenant, provider

-- name: put_endpoint
INSERT INTO endpoints VALUES (?, ?, ?, ?, ?)
ON CONFLICT (tenant, provider) DO UPDATE SET
    base_url = excluded.base_url, updated_at = excluded.updated_at

-- name: drop_endpoint
DELETE FROM endpoints WHERE tenant = ? AND provider = ?

-- name: grant
INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, session, user) DO UPDATE SET
    role = excluded.role, by_whom = excluded.by_whom, at = excluded.at

-- name: ungrant
DELETE FROM grants WHERE tenant = ? AND session = ? AND user = ?

-- name: grants
SELECT * FROM grants WHERE tenant = ? AND session = ? ORDER BY user

-- name: delete_grants
DELETE FROM grants WHERE tenant = ? AND session = ?

-- name: standing
SELECT s.principal, g.role FROM sessions s
LEFT JOIN grants g ON g.tenant = s.tenant AND g.session = s.id AND g.user = ?
WHERE s.tenant = ? AND s.id = ?
