-- The audit log: see sqlite_0006.sql.

-- name: audit_head
SELECT seq, hash FROM audit WHERE tenant = ? ORDER BY seq DESC LIMIT 1

-- name: insert_audit
INSERT INTO audit (
    tenant, seq, at, action, principal, user, kind, object, outcome, status, request, address,
    details, previous, hash
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: audit_newest
SELECT
    tenant, seq, at, action, principal, user, kind, object, outcome, status, request, address,
    details, previous, hash
FROM audit
WHERE tenant = :tenant
    AND seq < :after -- if after
    AND at >= :since -- if since
    AND at < :until -- if until
    AND action = :action -- if action
    AND principal = :principal -- if principal
ORDER BY seq DESC LIMIT :limit

-- name: audit_rows
SELECT
    tenant, seq, at, action, principal, user, kind, object, outcome, status, request, address,
    details, previous, hash
FROM audit WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?

-- name: audit_old
-- Chains whose first row is older than that.
SELECT tenant FROM audit GROUP BY tenant HAVING min(seq) = min(seq) FILTER (WHERE at < ?)

-- name: audit_tenants
SELECT DISTINCT tenant FROM audit ORDER BY tenant

-- name: audit_first_kept
-- The first row that is not older than that; NULL if all are.
SELECT min(seq) FROM audit WHERE tenant = ? AND at >= ?

-- name: audit_hash
SELECT hash FROM audit WHERE tenant = ? AND seq = ?

-- name: delete_audit
DELETE FROM audit WHERE tenant = ? AND seq <= ?
