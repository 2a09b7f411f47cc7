-- Statements on webhooks and what is to be told there.

-- name: write_notices (id text, type text, body text, at bigint)
-- One for each webhook that is enabled and wants it.
INSERT INTO deliveries
    (tenant, webhook, id, type, body, created_at, status, tries, step, replays, next_at)
SELECT :tenant::text, w.id, r.id, r.type, r.body, r.at, 'pending', 0, 0, 0, r.at
FROM {rows} JOIN webhooks w ON w.tenant = :tenant AND w.disabled_at IS NULL
    AND (w.events IS NULL OR w.events::jsonb ? r.type)
ON CONFLICT DO NOTHING

-- name: wanted_notices
-- A row if anybody wants any, and the messages of sessions from the first ones of runs on: some are
-- of other runs.
SELECT NULL AS id, NULL AS seq, NULL AS fact
WHERE EXISTS (SELECT 1 FROM webhooks WHERE tenant = :tenant AND disabled_at IS NULL)
UNION ALL
(SELECT r.id, e.seq, e.fact FROM agent_runs r
JOIN events e ON e.tenant = r.tenant AND e.session = r.session AND e.seq >= r.first_seq
WHERE r.tenant = :tenant AND r.id = ANY(:runs::text[]) AND e.kind = 'user_spoke'
    AND EXISTS (SELECT 1 FROM webhooks WHERE tenant = :tenant AND disabled_at IS NULL)
ORDER BY e.seq)

-- name: response_so_far
SELECT seq, at, fact FROM events
WHERE tenant = :tenant AND session = :session AND seq >= :since AND kind IN (
    'user_spoke', 'model_replied', 'cancel_requested', 'run_ended',
    'approval_asked', 'approval_given', 'tool_started', 'tool_finished'
)
ORDER BY seq

-- name: lock_webhooks
-- One process at a time counts a tenant's webhooks and adds one.
SELECT pg_advisory_xact_lock(hashtextextended(:tenant::text, 8422))

-- name: count_webhooks
SELECT count(*) FROM webhooks WHERE tenant = :tenant

-- name: put_webhook
INSERT INTO webhooks (
    tenant, id, url, secret, created_at, updated_at, events, description, old_secret, old_until,
    disabled_at, disabled_because, failures, failing_since
) VALUES (
    :tenant, :id, :url, :secret, :created_at, :updated_at, :events, :description, :old_secret, :old_until, :disabled_at, :disabled_because, :failures, :failing_since
) ON CONFLICT (tenant, id) DO UPDATE SET
    url = excluded.url, secret = excluded.secret, created_at = excluded.created_at, updated_at = excluded.updated_at, events = excluded.events, description = excluded.description, old_secret = excluded.old_secret, old_until = excluded.old_until, disabled_at = excluded.disabled_at, disabled_because = excluded.disabled_because, failures = excluded.failures, failing_since = excluded.failing_since

-- name: webhook
SELECT tenant, id, url, secret, created_at, updated_at, events, description, old_secret, old_until,
    disabled_at, disabled_because, failures, failing_since
FROM webhooks WHERE tenant = :tenant AND id = :id

-- name: lock_webhook
SELECT tenant, id, url, secret, created_at, updated_at, events, description, old_secret, old_until,
    disabled_at, disabled_because, failures, failing_since
FROM webhooks WHERE tenant = :tenant AND id = :id FOR UPDATE

-- name: webhooks
SELECT tenant, id, url, secret, created_at, updated_at, events, description, old_secret, old_until,
    disabled_at, disabled_because, failures, failing_since
FROM webhooks
WHERE tenant = :tenant
    AND id < :after -- if after
ORDER BY id DESC LIMIT :limit

-- name: rotated_webhooks
SELECT tenant, id, url, secret, created_at, updated_at, events, description, old_secret, old_until,
    disabled_at, disabled_because, failures, failing_since
FROM webhooks WHERE old_until <= :before

-- name: delete_webhook
WITH gone AS (
    DELETE FROM deliveries WHERE tenant = :tenant AND webhook = :id
)
DELETE FROM webhooks WHERE tenant = :tenant AND id = :id

-- name: hold_deliveries
UPDATE deliveries SET next_at = NULL
WHERE tenant = :tenant AND webhook = :id AND next_at IS NOT NULL

-- name: release_deliveries
UPDATE deliveries SET next_at = :at
WHERE tenant = :tenant AND webhook = :id AND next_at IS NULL AND status = 'pending'

-- name: put_delivery
INSERT INTO deliveries (
    tenant, webhook, id, type, body, created_at, status, tries, step, replays, tried_at, code, error,
    next_at
) VALUES (
    :tenant, :webhook, :id, :type, :body, :created_at, :status, :tries, :step, :replays, :tried_at, :code, :error, :next_at
) ON CONFLICT (tenant, webhook, id) DO UPDATE SET
    type = excluded.type, body = excluded.body, created_at = excluded.created_at, status = excluded.status, tries = excluded.tries, step = excluded.step, replays = excluded.replays, tried_at = excluded.tried_at, code = excluded.code, error = excluded.error, next_at = excluded.next_at

-- name: delivery
SELECT tenant, webhook, id, type, body, created_at, status, tries, step, replays, tried_at, code, error,
    next_at
FROM deliveries WHERE tenant = :tenant AND webhook = :webhook AND id = :id

-- name: deliveries
SELECT tenant, webhook, id, type, body, created_at, status, tries, step, replays, tried_at, code, error,
    next_at
FROM deliveries
WHERE tenant = :tenant AND webhook = :webhook
    AND status = :status -- if status
    AND id < :after -- if after
ORDER BY id DESC LIMIT :limit

-- name: due_deliveries
-- Of each webhook a few, so that one of which thousands are due keeps nobody from theirs.  Those
-- that another process has taken count among the few: it sends them.
SELECT w.tenant, w.id, w.url, w.secret, w.created_at, w.updated_at, w.events, w.description, w.old_secret, w.old_until, w.disabled_at, w.disabled_because, w.failures, w.failing_since,
    d.tenant, d.webhook, d.id, d.type, d.body, d.created_at, d.status, d.tries, d.step, d.replays, d.tried_at, d.code, d.error, d.next_at
FROM webhooks w CROSS JOIN LATERAL (
    SELECT * FROM deliveries x
    WHERE x.tenant = w.tenant AND x.webhook = w.id AND x.next_at <= :now
    ORDER BY x.next_at LIMIT :each
) d
WHERE d.taken_until IS NULL OR d.taken_until <= :now OR d.taken_by = :me
ORDER BY d.next_at

-- name: next_delivery
-- When something is due after now, or free again that is due.
SELECT least(
    (SELECT min(next_at) FROM deliveries WHERE next_at > :now),
    (SELECT min(taken_until) FROM deliveries
        WHERE next_at <= :now AND taken_until > :now AND taken_by <> :me)
)

-- name: take_deliveries
-- What somebody else is taking, or writing, is theirs: nobody waits for anybody here.
UPDATE deliveries d SET taken_by = :me, taken_until = :until
FROM (
    SELECT x.tenant, x.webhook, x.id FROM deliveries x
    JOIN unnest(:tenants::text[], :webhooks::text[], :ids::text[]) AS r (tenant, webhook, id)
        ON x.tenant = r.tenant AND x.webhook = r.webhook AND x.id = r.id
    WHERE x.next_at <= :now
        AND (x.taken_until IS NULL OR x.taken_until <= :now OR x.taken_by = :me)
    FOR UPDATE OF x SKIP LOCKED
) free
WHERE d.tenant = free.tenant AND d.webhook = free.webhook AND d.id = free.id
RETURNING d.tenant, d.webhook, d.id

-- name: leave_delivery
UPDATE deliveries SET taken_by = NULL, taken_until = NULL
WHERE tenant = :tenant AND webhook = :webhook AND id = :id AND taken_by = :me

-- name: tidy_deliveries
DELETE FROM deliveries WHERE (tenant, webhook, id) IN (
    SELECT tenant, webhook, id FROM deliveries
    WHERE next_at IS NULL
        AND created_at < CASE status WHEN 'delivered' THEN :delivered::bigint ELSE :others::bigint END
        AND created_at < greatest(:delivered::bigint, :others::bigint)
    ORDER BY created_at LIMIT :limit
)
