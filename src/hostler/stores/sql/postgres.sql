-- Every statement of stores/postgres.py and its writer, by name.  `:name` is a value.  A line that
-- ends in `-- if NAME` is left out when that is not asked for.
--
-- Those that begin with `write_` or `make_` are parts: a commit is one statement of the parts that
-- have rows, so that it is one message each way.  The columns after such a name are those of its
-- rows, sent as one array each; `{columns}`, `{values}` and `{rows}` are made of them (`int::boolean`:
-- sent as the one, written as the other).  Of a `make_` part each row has to be written, or nothing is.

-- name: write_commit
INSERT INTO commits (id, at) VALUES (:commit, :at)

-- name: make_sessions (id text, agent text, principal text, title text, metadata text, created_at bigint, client_tools text, lineage text)
-- Not where forks still read what a session of this id had said.
INSERT INTO sessions (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}
WHERE NOT EXISTS (SELECT 1 FROM forks f WHERE f.tenant = :tenant AND f.origin = r.id)
ON CONFLICT DO NOTHING RETURNING 1

-- name: make_first_heads (session text, made bigint, seq bigint, head text, status text, active text, updated_at bigint, due bigint)
INSERT INTO heads (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}
ON CONFLICT DO NOTHING RETURNING 1

-- name: make_heads (session text, made bigint, was bigint, seq bigint, head text, status text, active text, updated_at bigint, due bigint)
-- A head that is not what it was when this was thought of is not written.
UPDATE heads h SET
    seq = r.seq, head = r.head, status = r.status, active = r.active,
    updated_at = r.updated_at, due = r.due
FROM {rows}
WHERE h.tenant = :tenant AND h.session = r.session AND h.made = r.made AND h.seq = r.was
RETURNING 1

-- name: make_answers (scope text, digest text, answer bytea, at bigint)
INSERT INTO answers AS a (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}
ON CONFLICT (tenant, scope) DO UPDATE SET
    digest = excluded.digest, answer = excluded.answer, at = excluded.at
WHERE a.at <= :answered_since
RETURNING 1

-- name: write_forks (origin text, session text, upto bigint)
INSERT INTO forks (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}

-- name: write_events (session text, seq bigint, at bigint, kind text, fact text)
INSERT INTO events (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}

-- name: write_client_tools (session text, client_tools text)
UPDATE sessions s SET client_tools = r.client_tools FROM {rows}
WHERE s.tenant = :tenant AND s.id = r.session

-- name: write_approvals (call text, session text, run text, status text, name text, arguments text, digest text, asked_at bigint, expires_at bigint, principal text, reason text, answered_at bigint)
INSERT INTO approvals AS a (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}
ON CONFLICT (tenant, session, call) DO UPDATE SET
    status = excluded.status,
    principal = coalesce(excluded.principal, a.principal),
    reason = coalesce(excluded.reason, a.reason),
    answered_at = coalesce(excluded.answered_at, a.answered_at)

-- name: write_scheduled (session text, input text, seq bigint, at bigint)
INSERT INTO scheduled (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}

-- name: write_unscheduled (session text, input text)
DELETE FROM scheduled s USING {rows}
WHERE s.tenant = :tenant AND s.session = r.session AND s.input = r.input

-- name: pick_said (session text, seq bigint, words text)
-- `words`: digests, with spaces between them.
SELECT nextval('said_ids') AS id, r.session, r.seq, r.words
FROM (SELECT * FROM {rows} ORDER BY session, seq) r

-- name: write_said
INSERT INTO said (id, tenant, session, seq)
SELECT id, :tenant::text, session, seq FROM pick_said

-- name: write_said_words
INSERT INTO said_words (id, words)
SELECT id, array_to_tsvector(string_to_array(words, ' ')) FROM pick_said

-- name: head
SELECT head FROM heads WHERE tenant = :tenant AND session = :session

-- name: heads
-- With what a writer has to know of their sessions.
SELECT h.session, h.made, h.head, s.agent, s.principal
FROM heads h JOIN sessions s ON s.tenant = h.tenant AND s.id = h.session
WHERE h.tenant = :tenant AND h.session = ANY(:sessions)

-- name: lock_head
SELECT 1 FROM heads WHERE tenant = :tenant AND session = :session FOR UPDATE

-- name: session
SELECT s.id, s.agent, s.principal, s.title, s.metadata, s.created_at, s.client_tools, s.lineage,
    h.updated_at, h.head
FROM sessions s JOIN heads h ON h.tenant = s.tenant AND h.session = s.id
WHERE s.tenant = :tenant AND s.id = :session

-- name: sessions
SELECT s.id, s.agent, s.principal, s.title, s.metadata, s.created_at, s.client_tools, s.lineage,
    h.updated_at, h.head
FROM sessions s JOIN heads h ON h.tenant = s.tenant AND h.session = s.id
WHERE s.tenant = :tenant
    AND s.id IN (SELECT session FROM seen WHERE tenant = :tenant AND "user" = :seen_by) -- if seen_by
    AND s.agent = :agent -- if agent
    AND h.status = :status -- if status
    AND (s.created_at, s.id) < (SELECT created_at, id FROM sessions WHERE tenant = :tenant AND id = :after) -- if after
ORDER BY s.created_at DESC, s.id DESC LIMIT :limit

-- name: relabel
UPDATE sessions SET
    title = CASE WHEN :retitles THEN :title ELSE title END,
    metadata = coalesce(:metadata, metadata)
WHERE tenant = :tenant AND id = :session

-- name: touch
UPDATE heads SET updated_at = :at WHERE tenant = :tenant AND session = :session

-- name: page
-- The session's own events past a position, up to another, ending with the one with which they have
-- so many bytes; a row without events if there are none, no row if there is no session.
SELECT s.lineage, p.seqs, p.ats, p.facts FROM sessions s LEFT JOIN LATERAL (
    SELECT string_agg(seq::text, ',' ORDER BY seq) AS seqs,
        string_agg(at::text, ',' ORDER BY seq) AS ats, string_agg(fact, ',' ORDER BY seq) AS facts
    FROM (
        SELECT seq, at, fact, sum(octet_length(fact)) OVER (ORDER BY seq) - octet_length(fact) AS size
        FROM events
        WHERE tenant = :tenant AND session = :session AND seq > :after AND seq <= :upto
    ) e WHERE size < :most
) p ON true
WHERE s.tenant = :tenant AND s.id = :session

-- name: segment
-- As `page`, of what is left of a session for its forks, too.
SELECT string_agg(seq::text, ',' ORDER BY seq), string_agg(at::text, ',' ORDER BY seq),
    string_agg(fact, ',' ORDER BY seq)
FROM (
    SELECT seq, at, fact, sum(octet_length(fact)) OVER (ORDER BY seq) - octet_length(fact) AS size
    FROM events WHERE tenant = :tenant AND session = :session AND seq > :after AND seq <= :upto
) e WHERE size < :most

-- name: recall
SELECT h.head, s.agent, s.client_tools, s.lineage, p.seqs, p.facts, e.seqs, e.ats, e.facts
FROM heads h JOIN sessions s ON s.tenant = h.tenant AND s.id = h.session
CROSS JOIN LATERAL
    (SELECT greatest(coalesce((h.head::json ->> 'base')::bigint, 0) - 1, 0) AS upto) b
CROSS JOIN LATERAL (
    SELECT string_agg(seq::text, ',' ORDER BY seq) AS seqs, string_agg(fact, ',' ORDER BY seq) AS facts
    FROM events
    WHERE tenant = :tenant AND session = :session AND seq <= b.upto AND kind = ANY(:kinds)
) p
CROSS JOIN LATERAL (
    SELECT string_agg(seq::text, ',' ORDER BY seq) AS seqs,
        string_agg(at::text, ',' ORDER BY seq) AS ats, string_agg(fact, ',' ORDER BY seq) AS facts
    FROM events
    WHERE tenant = :tenant AND session = :session AND seq > b.upto AND seq <= h.seq
) e
WHERE h.tenant = :tenant AND h.session = :session

-- name: past
SELECT string_agg(seq::text, ',' ORDER BY seq), string_agg(fact, ',' ORDER BY seq) FROM events
WHERE tenant = :tenant AND session = :session AND seq > :after AND seq <= :upto
    AND kind = ANY(:kinds)

-- name: unfinished
(SELECT tenant, session, active, coalesce(head::jsonb -> 'low' ? active, false) AS is_low FROM heads
    WHERE due <= :now ORDER BY due, tenant, session)
UNION ALL
(SELECT tenant, session, input, false FROM scheduled WHERE at <= :soon ORDER BY at, tenant, session)

-- name: scheduled
SELECT input, seq, at FROM scheduled WHERE tenant = :tenant AND session = :session
ORDER BY at, input

-- name: idle_since
-- Idle sessions that were not touched since a time, oldest first.
SELECT updated_at, tenant, session FROM heads WHERE active IS NULL AND updated_at < :before
    AND tenant = :of -- if of
    AND NOT tenant = ANY(:but) -- if but
ORDER BY updated_at LIMIT :limit

-- name: crowded
-- Tenants with more sessions than may be kept.
SELECT tenant, count(*) - :keep::bigint FROM heads
WHERE true
    AND tenant = :of -- if of
    AND NOT tenant = ANY(:but) -- if but
GROUP BY tenant HAVING count(*) > :keep

-- name: idle_of
SELECT updated_at, tenant, session FROM heads WHERE active IS NULL AND tenant = :tenant
ORDER BY updated_at LIMIT :limit

-- name: count_sessions
SELECT count(*) FROM sessions WHERE tenant = :tenant

-- name: count_active
SELECT count(*) FROM heads
WHERE tenant = :tenant AND status IN ('queued', 'running') AND status <> 'idle'

-- name: count_seen
SELECT count(DISTINCT session) FROM seen WHERE tenant = :tenant AND "user" = :seen_by

-- name: storage
-- By who said it: what is kept of a deleted session for its forks stands under its id.
SELECT e.session, count(*), sum(octet_length(e.fact))::bigint FROM events e
WHERE e.tenant = :tenant
    AND e.session IN (SELECT session FROM seen WHERE tenant = :tenant AND "user" = :seen_by) -- if seen_by
GROUP BY e.session ORDER BY 3 DESC, 1

-- name: database_bytes
SELECT pg_database_size(current_database())

-- name: is_idle
SELECT 1 FROM heads
WHERE tenant = :tenant AND session = :session AND active IS NULL AND updated_at < :since

-- name: answer
SELECT digest, answer FROM answers WHERE tenant = :tenant AND scope = :scope AND at > :since

-- name: delete_old_answers
DELETE FROM answers WHERE at <= :since

-- name: delete_old_shares
DELETE FROM shares WHERE expires_at <= :now

-- name: delete_old_commits
DELETE FROM commits WHERE at <= :since

-- name: approval
SELECT tenant, call, session, run, status, name, arguments, digest, asked_at, expires_at, principal,
    reason, answered_at
FROM approvals WHERE tenant = :tenant AND session = :session AND call = :call

-- name: approvals
SELECT tenant, call, session, run, status, name, arguments, digest, asked_at, expires_at, principal,
    reason, answered_at
FROM approvals
WHERE tenant = :tenant
    AND session IN (SELECT session FROM seen WHERE tenant = :tenant AND "user" = :seen_by) -- if seen_by
    AND session = :session -- if session
    AND status = :status -- if status
    AND call > :after -- if after
ORDER BY call LIMIT :limit

-- name: create_share
INSERT INTO shares (digest, tenant, id, session, principal, created_at, expires_at)
VALUES (:digest, :tenant, :id, :session, :principal, :created_at, :expires_at)

-- name: shares
SELECT tenant, id, session, digest, principal, created_at, expires_at FROM shares
WHERE tenant = :tenant AND session = :session ORDER BY id

-- name: unshare
DELETE FROM shares WHERE tenant = :tenant AND session = :session AND id = :share

-- name: shared
SELECT tenant, id, session, digest, principal, created_at, expires_at FROM shares
WHERE digest = :digest AND expires_at > :now

-- name: search
SELECT s.session, s.seq, e.kind, e.fact
FROM said_words w
JOIN said s ON s.id = w.id
JOIN events e ON e.tenant = s.tenant AND e.session = s.session AND e.seq = s.seq
WHERE w.words @@ :match::text::tsquery AND s.tenant = :tenant
    AND s.session IN (SELECT session FROM seen WHERE tenant = :tenant AND "user" = :seen_by) -- if seen_by
ORDER BY w.id DESC LIMIT :limit

-- name: forked_upto
-- How far forks read a session, 0 for not at all.
SELECT coalesce(max(upto), 0) FROM forks WHERE tenant = :tenant AND origin = :session

-- name: lock_history
-- Nobody takes a history away, or begins a fork with it, until this transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended(:tenant::text || '/' || :session::text, 8420))

-- name: origins
SELECT origin FROM forks WHERE tenant = :tenant AND session = :session

-- name: is_there
SELECT 1 FROM sessions WHERE tenant = :tenant AND id = :session

-- name: delete_events
DELETE FROM events WHERE tenant = :tenant AND session = :session AND seq > :upto

-- name: delete_session
-- All that is kept of a session but its events.  Calls are found by their runs.
WITH gone AS (
    DELETE FROM said WHERE tenant = :tenant AND session = :session RETURNING id
), words AS (
    DELETE FROM said_words w USING gone WHERE w.id = gone.id
), approvals AS (
    DELETE FROM approvals WHERE tenant = :tenant AND session = :session
), scheduled AS (
    DELETE FROM scheduled WHERE tenant = :tenant AND session = :session
), shares AS (
    DELETE FROM shares WHERE tenant = :tenant AND session = :session
), grants AS (
    DELETE FROM grants WHERE tenant = :tenant AND session = :session
), forks AS (
    DELETE FROM forks WHERE tenant = :tenant AND session = :session
), stale AS (
    DELETE FROM stale WHERE tenant = :tenant AND session = :session
), heads AS (
    DELETE FROM heads WHERE tenant = :tenant AND session = :session
)
DELETE FROM sessions WHERE tenant = :tenant AND id = :session
