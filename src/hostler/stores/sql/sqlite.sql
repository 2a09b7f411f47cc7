-- Every statement of stores/sqlite.py, by name.  `{rows}` stands for the rows of one batch:
-- many rows in one statement let go of Python's interpreter lock once instead of once a row.

-- name: create_session
INSERT INTO sessions (tenant, id, agent, principal, title, metadata, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: insert_heads (tenant, session, head, status, active, updated_at)
INSERT INTO heads VALUES {rows}
ON CONFLICT (tenant, session) DO UPDATE SET
    head = excluded.head, status = excluded.status,
    active = excluded.active, updated_at = excluded.updated_at

-- name: insert_events (tenant, session, seq, at, kind, fact)
INSERT INTO events VALUES {rows}

-- name: upsert_runs (tenant, id, session, status, agent, input, first_seq, last_seq, created_at, started_at, ended_at, reason, usage)
INSERT INTO runs VALUES {rows}
ON CONFLICT (tenant, id) DO UPDATE SET
    status = excluded.status,
    last_seq = coalesce(excluded.last_seq, last_seq),
    started_at = coalesce(started_at, excluded.started_at),
    ended_at = coalesce(excluded.ended_at, ended_at),
    reason = coalesce(excluded.reason, reason),
    usage = coalesce(excluded.usage, usage)

-- name: insert_said (id, tenant, session, seq)
INSERT INTO said VALUES {rows}

-- name: insert_said_words (id, text)
INSERT INTO said_words (rowid, text) VALUES {rows}

-- name: last_said
SELECT coalesce(max(id), 0) FROM said

-- name: head
SELECT head FROM heads WHERE tenant = ? AND session = ?

-- name: head_and_agent
SELECT h.head, s.agent FROM heads h JOIN sessions s ON s.tenant = h.tenant AND s.id = h.session
WHERE h.tenant = ? AND h.session = ?

-- name: session
SELECT s.id, s.agent, s.principal, s.title, s.metadata, s.created_at, h.updated_at, h.head
FROM sessions s JOIN heads h ON h.tenant = s.tenant AND h.session = s.id
WHERE s.tenant = ? AND s.id = ?

-- name: sessions
-- Newest first, past the session `after`.
SELECT s.id, s.agent, s.principal, s.title, s.metadata, s.created_at, h.updated_at, h.head
FROM sessions s JOIN heads h ON h.tenant = s.tenant AND h.session = s.id
WHERE s.tenant = :tenant
    AND (:agent IS NULL OR s.agent = :agent)
    AND (:status IS NULL OR h.status = :status)
    AND (:after = '' OR (s.created_at, s.id) < (
        SELECT created_at, id FROM sessions WHERE tenant = :tenant AND id = :after
    ))
ORDER BY s.created_at DESC, s.id DESC LIMIT :limit

-- name: relabel
UPDATE sessions SET title = ?, metadata = ?
WHERE tenant = ? AND id = ?

-- name: touch
UPDATE heads SET updated_at = ? WHERE tenant = ? AND session = ?

-- name: read
-- One row for the whole answer, for the reason given at the top.  The primary key is scanned in
-- order, so the three lists agree.
SELECT group_concat(seq), group_concat(at), group_concat(fact) FROM events
WHERE tenant = ? AND session = ? AND seq > ? AND seq <= ?

-- name: past
SELECT group_concat(seq), group_concat(fact) FROM events
WHERE tenant = ? AND session = ? AND seq < ? AND kind IN (?, ?, ?, ?)

-- name: unfinished
SELECT tenant, session, active FROM heads WHERE active IS NOT NULL

-- name: run
SELECT * FROM runs WHERE tenant = ? AND id = ?

-- name: runs
SELECT * FROM runs
WHERE tenant = :tenant
    AND (:session IS NULL OR session = :session)
    AND (:status IS NULL OR status = :status)
    AND (:after = '' OR id < :after)
ORDER BY id DESC LIMIT :limit

-- name: search
SELECT s.session, s.seq, e.kind, e.fact
FROM said_words w
JOIN said s ON s.id = w.rowid
JOIN events e ON e.tenant = s.tenant AND e.session = s.session AND e.seq = s.seq
WHERE said_words MATCH ? AND s.tenant = ?
ORDER BY w.rowid DESC LIMIT ?

-- name: unsay
-- A contentless index is told what it held.
INSERT INTO said_words (said_words, rowid, text) VALUES ('delete', ?, ?)

-- name: said_of_session
SELECT s.id, e.fact FROM said s
JOIN events e ON e.tenant = s.tenant AND e.session = s.session AND e.seq = s.seq
WHERE s.tenant = ? AND s.session = ?

-- name: delete_said
DELETE FROM said WHERE tenant = ? AND session = ?

-- name: delete_events
DELETE FROM events WHERE tenant = ? AND session = ?

-- name: delete_runs
DELETE FROM runs WHERE tenant = ? AND session = ?

-- name: delete_head
DELETE FROM heads WHERE tenant = ? AND session = ?

-- name: delete_session
DELETE FROM sessions WHERE tenant = ? AND id = ?
