-- Statements on what is kept beside the logs: directory, secrets, scrubs and the audit log.

-- name: create_tenant
INSERT INTO tenants (tenant, title, created_at, settings)
VALUES (:tenant, :title, :created_at, :settings) ON CONFLICT DO NOTHING

-- name: tenant
SELECT tenant, title, created_at, settings FROM tenants WHERE tenant = :tenant

-- name: lock_tenant
SELECT tenant, title, created_at, settings FROM tenants WHERE tenant = :tenant FOR UPDATE

-- name: tenants
SELECT tenant, title, created_at, settings FROM tenants
WHERE tenant > :after ORDER BY tenant LIMIT :limit

-- name: change_tenant
UPDATE tenants SET title = :title, settings = :settings WHERE tenant = :tenant

-- name: add_key
INSERT INTO keys (
    tenant, id, "user", role, scopes, prefix, digest, title, created_at, expires_at, revoked_at,
    used_at
) VALUES (
    :tenant, :id, :user, :role, :scopes, :prefix, :digest, :title, :created_at, :expires_at,
    :revoked_at, :used_at
)

-- name: keys
SELECT tenant, id, "user", role, scopes, prefix, digest, title, created_at, expires_at, revoked_at,
    used_at
FROM keys
WHERE tenant = :tenant
    AND "user" = :user -- if user
    AND id < :after -- if after
ORDER BY id DESC LIMIT :limit

-- name: key
SELECT tenant, id, "user", role, scopes, prefix, digest, title, created_at, expires_at, revoked_at,
    used_at
FROM keys WHERE tenant = :tenant AND id = :id

-- name: key_of_digest
SELECT tenant, id, "user", role, scopes, prefix, digest, title, created_at, expires_at, revoked_at,
    used_at
FROM keys WHERE digest = :digest

-- name: revoke_key
UPDATE keys SET revoked_at = coalesce(revoked_at, :at) WHERE tenant = :tenant AND id = :id

-- name: touch_keys
UPDATE keys k SET used_at = greatest(k.used_at, r.at)
FROM unnest(:tenants::text[], :ids::text[], :ats::bigint[]) AS r (tenant, id, at)
WHERE k.tenant = r.tenant AND k.id = r.id

-- name: endpoints
SELECT tenant, provider, base_url, created_at, updated_at FROM endpoints ORDER BY tenant, provider

-- name: put_endpoint
INSERT INTO endpoints (tenant, provider, base_url, created_at, updated_at)
VALUES (:tenant, :provider, :base_url, :created_at, :updated_at)
ON CONFLICT (tenant, provider) DO UPDATE SET
    base_url = excluded.base_url, updated_at = excluded.updated_at

-- name: drop_endpoint
DELETE FROM endpoints WHERE tenant = :tenant AND provider = :provider

-- name: grant
INSERT INTO grants (tenant, session, "user", role, by_whom, at)
VALUES (:tenant, :session, :user, :role, :by_whom, :at)
ON CONFLICT (tenant, session, "user") DO UPDATE SET
    role = excluded.role, by_whom = excluded.by_whom, at = excluded.at

-- name: ungrant
DELETE FROM grants WHERE tenant = :tenant AND session = :session AND "user" = :user

-- name: grants
SELECT tenant, session, "user", role, by_whom, at FROM grants
WHERE tenant = :tenant AND session = :session ORDER BY "user"

-- name: standing
SELECT s.principal, g.role FROM sessions s
LEFT JOIN grants g ON g.tenant = s.tenant AND g.session = s.id AND g."user" = :user
WHERE s.tenant = :tenant AND s.id = :session

-- name: secrets
SELECT tenant, name, kind, sealed, data_key, created_at, updated_at FROM secrets
ORDER BY tenant, name

-- name: data_keys
SELECT tenant, id, wrapped, wrapped_by FROM data_keys ORDER BY tenant, id

-- name: put_secret
INSERT INTO secrets (tenant, name, kind, sealed, data_key, created_at, updated_at)
VALUES (:tenant, :name, :kind, :sealed, :data_key, :created_at, :updated_at)
ON CONFLICT (tenant, name) DO UPDATE SET
    kind = excluded.kind, sealed = excluded.sealed, data_key = excluded.data_key,
    updated_at = excluded.updated_at

-- name: put_data_key
INSERT INTO data_keys (tenant, id, wrapped, wrapped_by) VALUES (:tenant, :id, :wrapped, :wrapped_by)

-- name: drop_secret
DELETE FROM secrets WHERE tenant = :tenant AND name = :name

-- name: rewrap_data_key
UPDATE data_keys SET wrapped = :wrapped, wrapped_by = :wrapped_by
WHERE tenant = :tenant AND id = :id

-- name: put_scrub
INSERT INTO scrubs (tenant, id, at, record) VALUES (:tenant, :id, :at, :record)

-- name: scrub_facts
SELECT session, seq, fact FROM events
WHERE tenant = :tenant AND (session, seq) > (:session, :seq) ORDER BY session, seq LIMIT :limit

-- name: scrub_fact
UPDATE events SET fact = :fact WHERE tenant = :tenant AND session = :session AND seq = :seq

-- name: scrub_words
UPDATE said_words w SET words = array_to_tsvector(string_to_array(:words, ' '))
FROM said s WHERE s.id = w.id AND s.tenant = :tenant AND s.session = :session AND s.seq = :seq

-- name: lock_chain
-- One writer at a time puts rows at the end of a tenant's chain.
SELECT pg_advisory_xact_lock(hashtextextended(:tenant::text, 8421))

-- name: audit_head
SELECT seq, hash FROM audit WHERE tenant = :tenant ORDER BY seq DESC LIMIT 1

-- name: insert_audit
INSERT INTO audit (
    tenant, seq, at, action, principal, "user", kind, object, outcome, status, request, address,
    details, previous, hash
) VALUES (
    :tenant, :seq, :at, :action, :principal, :user, :kind, :object, :outcome, :status, :request,
    :address, :details, :previous, :hash
)

-- name: audit_newest
SELECT
    tenant, seq, at, action, principal, "user", kind, object, outcome, status, request, address,
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
    tenant, seq, at, action, principal, "user", kind, object, outcome, status, request, address,
    details, previous, hash
FROM audit WHERE tenant = :tenant AND seq > :after ORDER BY seq LIMIT :limit

-- name: audit_old
-- Chains whose first row is older than that.
SELECT DISTINCT ON (tenant) tenant, at < :before FROM audit ORDER BY tenant, seq

-- name: audit_first_kept
-- The first row that is not older than that; NULL if all are.
SELECT min(seq) FROM audit WHERE tenant = :tenant AND at >= :before

-- name: audit_hash
SELECT hash FROM audit WHERE tenant = :tenant AND seq = :seq

-- name: audit_tenants
SELECT DISTINCT tenant FROM audit ORDER BY tenant

-- name: delete_audit
DELETE FROM audit WHERE tenant = :tenant AND seq <= :through
