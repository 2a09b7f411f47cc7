-- Every statement of stores/sqlite_webhooks.py and stores/sqlite_notices.py, by name.

-- name: wanted_notices
SELECT tenant, id, events FROM webhooks WHERE disabled_at IS NULL

-- name: insert_notices (tenant, webhook, id, type, body, created_at, status, tries, step, replays, tried_at, code, error, next_at)
INSERT INTO deliveries VALUES {rows} ON CONFLICT DO NOTHING

-- name: messages_of_run
-- The messages of a session from a run's first one on, up to a position: some are of other runs.
SELECT e.seq, e.fact FROM agent_runs r
JOIN events e ON e.tenant = r.tenant AND e.session = r.session AND e.seq >= r.first_seq
WHERE r.tenant = ? AND r.id = ? AND e.seq <= ? AND e.kind = 'user_spoke'
ORDER BY e.seq

-- name: response_so_far
SELECT seq, at, fact FROM events
WHERE tenant = ? AND session = ? AND seq >= ? AND seq <= ? AND kind IN (
    'user_spoke', 'model_replied', 'cancel_requested', 'run_ended',
    'approval_asked', 'approval_given', 'tool_started', 'tool_finished'
)
ORDER BY seq

-- name: count_webhooks
SELECT count(*) FROM webhooks WHERE tenant = ?

-- name: put_webhook
INSERT OR REPLACE INTO webhooks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: webhook
SELECT * FROM webhooks WHERE tenant = ? AND id = ?

-- name: webhooks
SELECT * FROM webhooks
WHERE tenant = :tenant
    AND id < :after -- if after
ORDER BY id DESC LIMIT :limit

-- name: rotated_webhooks
SELECT * FROM webhooks WHERE old_until <= ?

-- name: delete_webhook
DELETE FROM webhooks WHERE tenant = ? AND id = ?

-- name: delete_deliveries
DELETE FROM deliveries WHERE tenant = ? AND webhook = ?

-- name: hold_deliveries
UPDATE deliveries SET next_at = NULL WHERE tenant = ? AND webhook = ? AND next_at IS NOT NULL

-- name: release_deliveries
UPDATE deliveries SET next_at = ?
WHERE tenant = ? AND webhook = ? AND next_at IS NULL AND status = 'pending'

-- name: put_delivery
INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: delivery
SELECT * FROM deliveries WHERE tenant = ? AND webhook = ? AND id = ?

-- name: deliveries
SELECT * FROM deliveries
WHERE tenant = :tenant AND webhook = :webhook
    AND status = :status -- if status
    AND id < :after -- if after
ORDER BY id DESC LIMIT :limit

-- name: due_deliveries
-- Of each webhook a few, so that one of which thousands are due keeps nobody from theirs.
SELECT w.*, d.* FROM webhooks w
CROSS JOIN deliveries d -- in this order
WHERE d.tenant = w.tenant AND d.webhook = w.id AND d.id IN (
    SELECT x.id FROM deliveries x
    WHERE x.tenant = w.tenant AND x.webhook = w.id AND x.next_at <= :now
    ORDER BY x.next_at LIMIT :each
)
ORDER BY d.next_at

-- name: next_delivery
SELECT min(next_at) FROM deliveries WHERE next_at > ?

-- name: tidy_deliveries
DELETE FROM deliveries WHERE rowid IN (
    SELECT rowid FROM deliveries
    WHERE next_at IS NULL
        AND created_at < CASE status WHEN 'delivered' THEN :delivered ELSE :others END
        AND created_at < max(:delivered, :others)
    ORDER BY created_at LIMIT :limit
)
