-- Every statement of stores/sqlite.py, by name.  `{rows}` stands for the rows of one batch:
-- many rows in one statement let go of Python's interpreter lock once instead of once a row.
-- A line that ends in `-- if NAME` is left out when that is not asked for: a condition that is
-- there and says nothing keeps SQLite from using an index.

-- name: create_session
INSERT INTO sessions
    (tenant, id, agent, principal, title, metadata, created_at, client_tools, lineage)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: set_client_tools
UPDATE sessions SET client_tools = ? WHERE tenant = ? AND id = ?

-- name: insert_heads (tenant, session, head, status, active, updated_at, due)
INSERT INTO heads VALUES {rows}
ON CONFLICT (tenant, session) DO UPDATE SET
    head = excluded.head, status = excluded.status, active = excluded.active,
    updated_at = excluded.updated_at, due = excluded.due

-- name: insert_forks (tenant, origin, session, upto)
INSERT INTO forks VALUES {rows}

-- name: insert_events (tenant, session, seq, at, kind, fact)
INSERT INTO events VALUES {rows}

-- name: upsert_approvals (tenant, call, session, run, status, name, arguments, digest, asked_at, expires_at, principal, reason, answered_at)
INSERT INTO approvals VALUES {rows}
ON CONFLICT (tenant, session, call) DO UPDATE SET
    status = excluded.status,
    principal = coalesce(excluded.principal, principal),
    reason = coalesce(excluded.reason, reason),
    answered_at = coalesce(excluded.answered_at, answered_at)

-- name: insert_answers (tenant, scope, digest, answer, at)
INSERT OR REPLACE INTO answers VALUES {rows}

-- name: insert_said (id, tenant, session, seq)
INSERT INTO said VALUES {rows}

-- name: insert_said_words (id, text)
INSERT INTO said_words (rowid, text) VALUES {rows}

-- name: last_said
SELECT coalesce(max(id), 0) FROM said

-- name: head
SELECT head FROM heads WHERE tenant = ? AND session = ?

-- name: head_and_agent
SELECT h.head, s.agent, s.client_tools, s.lineage, s.principal FROM heads h JOIN sessions s ON s.tenant = h.tenant AND s.id = h.session
WHERE h.tenant = ? AND h.session = ?

-- name: session
SELECT s.id, s.agent, s.principal, s.title, s.metadata, s.created_at, s.client_tools, s.lineage,
    h.updated_at, h.head
FROM sessions s JOIN heads h ON h.tenant = s.tenant AND h.session = s.id
WHERE s.tenant = ? AND s.id = ?

-- name: sessions
-- Newest first, past the session `after`.  The order of tables is what a CROSS JOIN keeps.
SELECT s.id, s.agent, s.principal, s.title, s.metadata, s.created_at, s.client_tools, s.lineage,
    h.updated_at, h.head
FROM
    (SELECT DISTINCT session FROM seen WHERE tenant = :tenant AND user = :seen_by) m CROSS JOIN -- if seen_by
    sessions s CROSS JOIN heads h ON h.tenant = s.tenant AND h.session = s.id
WHERE s.tenant = :tenant
    AND s.id = m.session -- if seen_by
    AND s.agent = :agent -- if agent
    AND h.status = :status -- if status
    AND (s.created_at, s.id) < (SELECT created_at, id FROM sessions WHERE tenant = :tenant AND id = :after) -- if after
ORDER BY s.created_at DESC, s.id DESC LIMIT :limit

-- name: busy_sessions
-- As `sessions`, for a status other than idle: those are few, and are found first.
SELECT s.id, s.agent, s.principal, s.title, s.metadata, s.created_at, s.client_tools, s.lineage,
    h.updated_at, h.head
FROM heads h INDEXED BY heads_busy CROSS JOIN sessions s ON s.tenant = h.tenant AND s.id = h.session
WHERE h.tenant = :tenant AND h.status = :status AND h.status <> 'idle'
    AND s.id IN (SELECT session FROM seen WHERE tenant = :tenant AND user = :seen_by) -- if seen_by
    AND s.agent = :agent -- if agent
    AND (s.created_at, s.id) < (SELECT created_at, id FROM sessions WHERE tenant = :tenant AND id = :after) -- if after
ORDER BY s.created_at DESC, s.id DESC LIMIT :limit

-- name: relabel
-- What is not named stays as it is, whatever else was written since it was read.
UPDATE sessions SET
    title = iif(:retitles, :title, title),
    metadata = coalesce(:metadata, metadata)
WHERE tenant = :tenant AND id = :id

-- name: touch
UPDATE heads SET updated_at = ? WHERE tenant = ? AND session = ?

-- name: read
-- One row for the whole answer, for the reason given at the top.  The primary key is scanned in
-- order, so the three lists agree.
SELECT group_concat(seq), group_concat(at), group_concat(fact) FROM events
WHERE tenant = ? AND session = ? AND seq > ? AND seq <= ?

-- name: read_own
-- As `read`, and nothing of a deleted session: what is left of it is for its forks.
SELECT group_concat(seq), group_concat(at), group_concat(fact) FROM events
WHERE tenant = ? AND session = ? AND seq > ? AND seq <= ?
    AND EXISTS (SELECT 1 FROM sessions WHERE tenant = ? AND id = ?)

-- name: page_end
-- Where a page past a position ends: with the event with which it has so many characters, if that
-- is before another position.
WITH RECURSIVE page (seq, size) AS (
    SELECT ?3, 0
    UNION ALL
    SELECT e.seq, page.size + length(e.fact)
    FROM page CROSS JOIN events e ON e.tenant = ?1 AND e.session = ?2 AND e.seq = page.seq + 1
    WHERE page.size < ?5 AND e.seq <= ?4
)
SELECT max(seq) FROM page

-- name: past
SELECT group_concat(seq), group_concat(fact) FROM events
WHERE tenant = ? AND session = ? AND seq > ? AND seq <= ? AND kind IN (?, ?, ?, ?, ?, ?, ?, ?)

-- name: unfinished
SELECT tenant, session, active,
    EXISTS (SELECT 1 FROM json_each(head, '$.low') AS low WHERE low.value = active)
FROM heads WHERE due <= :now
UNION ALL SELECT tenant, session, input, 0 FROM scheduled WHERE at <= :soon

-- name: insert_scheduled (tenant, session, input, seq, at)
INSERT INTO scheduled VALUES {rows}

-- name: end_scheduled
DELETE FROM scheduled WHERE tenant = ? AND session = ? AND input = ?

-- name: scheduled
SELECT input, seq, at FROM scheduled WHERE tenant = ? AND session = ? ORDER BY at, input

-- name: lineage
SELECT lineage FROM sessions WHERE tenant = ? AND id = ?

-- name: idle_since
-- Idle sessions that were not touched since a time, oldest first.
SELECT updated_at, tenant, session FROM heads WHERE active IS NULL AND updated_at < :before
    AND tenant = :of -- if of
    AND tenant NOT IN (SELECT value FROM json_each(:but)) -- if but
ORDER BY updated_at LIMIT :limit

-- name: crowded
-- Tenants with more sessions than may be kept.
SELECT tenant, count(*) - :keep FROM heads
WHERE tenant IS NOT NULL
    AND tenant = :of -- if of
    AND tenant NOT IN (SELECT value FROM json_each(:but)) -- if but
GROUP BY tenant HAVING count(*) > :keep

-- name: idle_of
SELECT updated_at, tenant, session FROM heads WHERE active IS NULL AND tenant = ?
ORDER BY updated_at LIMIT ?

-- name: count_sessions
SELECT count(*) FROM sessions WHERE tenant = ?

-- name: count_active
SELECT count(*) FROM heads INDEXED BY heads_busy
WHERE tenant = ? AND status IN ('queued', 'running') AND status <> 'idle'

-- name: count_seen
SELECT count(DISTINCT session) FROM seen WHERE tenant = ? AND user = ?

-- name: storage
-- By who said it: what is kept of a deleted session for its forks stands under its id.
SELECT e.session, count(*), sum(length(CAST(e.fact AS BLOB))) FROM
    (SELECT DISTINCT session FROM seen WHERE tenant = :tenant AND user = :seen_by) m CROSS JOIN -- if seen_by
    events e
WHERE e.tenant = :tenant
    AND e.session = m.session -- if seen_by
GROUP BY e.session ORDER BY 3 DESC, 1

-- name: database_bytes
SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()

-- name: is_idle
-- Whether a session has no active run and was not touched since a time.
SELECT 1 FROM heads WHERE tenant = ? AND session = ? AND active IS NULL AND updated_at < ?

-- name: answer
SELECT digest, answer FROM answers WHERE tenant = ? AND scope = ? AND at > ?

-- name: delete_old_answers
DELETE FROM answers WHERE at <= ?

-- name: delete_old_shares
DELETE FROM shares WHERE expires_at <= ?

-- name: approval
SELECT * FROM approvals WHERE tenant = ? AND session = ? AND call = ?

-- name: approvals
SELECT a.* FROM
    (SELECT DISTINCT session FROM seen WHERE tenant = :tenant AND user = :seen_by) m CROSS JOIN -- if seen_by
    approvals a
WHERE a.tenant = :tenant
    AND a.session = m.session -- if seen_by
    AND a.session = :session -- if session
    AND a.status = :status -- if status
    AND a.call > :after -- if after
ORDER BY a.call LIMIT :limit

-- name: create_share
INSERT INTO shares (digest, tenant, id, session, principal, created_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: shares
SELECT tenant, id, session, digest, principal, created_at, expires_at FROM shares
WHERE tenant = ? AND session = ? ORDER BY id

-- name: unshare
DELETE FROM shares WHERE tenant = ? AND session = ? AND id = ?

-- name: shared
SELECT tenant, id, session, digest, principal, created_at, expires_at FROM shares
WHERE digest = ? AND expires_at > ?

-- name: search
SELECT s.session, s.seq, e.kind, e.fact
FROM said_words w
JOIN said s ON s.id = w.rowid
JOIN events e ON e.tenant = s.tenant AND e.session = s.session AND e.seq = s.seq
WHERE said_words MATCH :match AND s.tenant = :tenant
    AND s.session IN (SELECT session FROM seen WHERE tenant = :tenant AND user = :seen_by) -- if seen_by
ORDER BY w.rowid DESC LIMIT :limit

-- name: unsay
-- A contentless index is told what it held.
INSERT INTO said_words (said_words, rowid, text) VALUES ('delete', ?, ?)

-- name: said_of_session
SELECT s.id, e.fact FROM said s
JOIN events e ON e.tenant = s.tenant AND e.session = s.session AND e.seq = s.seq
WHERE s.tenant = ? AND s.session = ?

-- name: delete_said
DELETE FROM said WHERE tenant = ? AND session = ?

-- name: forked_upto
-- How far forks read a session, 0 for not at all.
SELECT coalesce(max(upto), 0) FROM forks WHERE tenant = ? AND origin = ?

-- name: origins
SELECT origin FROM forks WHERE tenant = ? AND session = ?

-- name: delete_forks
DELETE FROM forks WHERE tenant = ? AND session = ?

-- name: is_there
SELECT 1 FROM sessions WHERE tenant = ? AND id = ?

-- name: delete_events
DELETE FROM events WHERE tenant = ? AND session = ? AND seq > ?

-- name: delete_approvals
DELETE FROM approvals WHERE tenant = ? AND session = ?

-- name: delete_scheduled
DELETE FROM scheduled WHERE tenant = ? AND session = ?

-- name: delete_shares
DELETE FROM shares WHERE tenant = ? AND session = ?

-- name: delete_head
DELETE FROM heads WHERE tenant = ? AND session = ?

-- name: delete_session
DELETE FROM sessions WHERE tenant = ? AND id = ?
