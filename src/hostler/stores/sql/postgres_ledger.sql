-- Statements on runs as data: rows are merged from changes, without being read (entries.py).

-- name: write_agent_runs (id text, session text, agent text, owner text, principal text, purpose text, status text, reason text, input text, first_seq bigint, last_seq bigint, created_at bigint, started_at bigint, ended_at bigint, steps bigint, input_tokens bigint, output_tokens bigint, cache_read_tokens bigint, cache_write_tokens bigint, reasoning_tokens bigint, cost text::numeric, price_version text, unpriced_calls bigint, error_type text, error_message text, input_summary text, output_summary text)
-- What a run began with stays; counts are added; an error of '' is one that is over; a cost is
-- known when that of every call is.
INSERT INTO agent_runs AS a (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}
ON CONFLICT (tenant, id) DO UPDATE SET
    status = excluded.status,
    reason = coalesce(excluded.reason, a.reason),
    last_seq = coalesce(excluded.last_seq, a.last_seq),
    started_at = coalesce(a.started_at, excluded.started_at),
    ended_at = coalesce(excluded.ended_at, a.ended_at),
    steps = a.steps + excluded.steps,
    input_tokens = a.input_tokens + excluded.input_tokens,
    output_tokens = a.output_tokens + excluded.output_tokens,
    cache_read_tokens = a.cache_read_tokens + excluded.cache_read_tokens,
    cache_write_tokens = a.cache_write_tokens + excluded.cache_write_tokens,
    reasoning_tokens = a.reasoning_tokens + excluded.reasoning_tokens,
    cost = CASE WHEN a.unpriced_calls + excluded.unpriced_calls = 0
        THEN coalesce(excluded.cost, a.cost) END,
    price_version = coalesce(excluded.price_version, a.price_version),
    unpriced_calls = a.unpriced_calls + excluded.unpriced_calls,
    error_type = nullif(coalesce(excluded.error_type, a.error_type), ''),
    error_message = nullif(coalesce(excluded.error_message, a.error_message), ''),
    output_summary = coalesce(excluded.output_summary, a.output_summary)

-- name: write_llm_calls (run text, id text, session text, step bigint, number bigint, provider text, model text, status text, error_type text, error_message text, input_tokens bigint, output_tokens bigint, cache_read_tokens bigint, cache_write_tokens bigint, reasoning_tokens bigint, cost text::numeric, price_version text, unpriced int::boolean, asked_at bigint, ended_at bigint, first_token_us bigint)
-- There are two changes at most: it was asked, and how it ended.
INSERT INTO llm_calls (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}
ON CONFLICT (tenant, run, id) DO UPDATE SET
    status = excluded.status,
    error_type = excluded.error_type,
    error_message = excluded.error_message,
    input_tokens = excluded.input_tokens,
    output_tokens = excluded.output_tokens,
    cache_read_tokens = excluded.cache_read_tokens,
    cache_write_tokens = excluded.cache_write_tokens,
    reasoning_tokens = excluded.reasoning_tokens,
    cost = excluded.cost,
    price_version = excluded.price_version,
    unpriced = excluded.unpriced,
    ended_at = excluded.ended_at,
    first_token_us = excluded.first_token_us

-- name: write_tool_runs (run text, id text, session text, step bigint, name text, status text, asked_at bigint, started_at bigint, ended_at bigint, parameters text, parameters_cut int::boolean, result text, result_cut int::boolean)
INSERT INTO tool_runs AS t (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}
ON CONFLICT (tenant, run, id) DO UPDATE SET
    name = coalesce(excluded.name, t.name),
    status = excluded.status,
    started_at = coalesce(excluded.started_at, t.started_at),
    ended_at = coalesce(excluded.ended_at, t.ended_at),
    parameters = coalesce(excluded.parameters, t.parameters),
    parameters_cut = CASE WHEN excluded.parameters IS NULL
        THEN t.parameters_cut ELSE excluded.parameters_cut END,
    result = coalesce(excluded.result, t.result),
    result_cut = t.result_cut OR excluded.result_cut

-- name: write_feedback (run text, principal text, key text, session text, score float8, comment text, at bigint)
INSERT INTO feedback (tenant, {columns}) SELECT :tenant::text, {values} FROM {rows}
ON CONFLICT (tenant, run, principal, key) DO UPDATE SET
    score = excluded.score, comment = excluded.comment, at = excluded.at

-- name: write_direct_calls (id text, principal text, purpose text, provider text, model text, status text, error_type text, error_message text, input_tokens bigint, output_tokens bigint, cache_read_tokens bigint, cache_write_tokens bigint, reasoning_tokens bigint, cost text::numeric, price_version text, unpriced int::boolean, asked_at bigint, ended_at bigint, first_token_us bigint)
-- A later row of a call says all of it.
INSERT INTO direct_calls (tenant, holder, {columns})
SELECT :tenant::text, :holder::bigint, {values} FROM {rows}
ON CONFLICT (tenant, id) DO UPDATE SET
    holder = excluded.holder,
    principal = excluded.principal,
    purpose = excluded.purpose,
    provider = excluded.provider,
    model = excluded.model,
    status = excluded.status,
    error_type = excluded.error_type,
    error_message = excluded.error_message,
    input_tokens = excluded.input_tokens,
    output_tokens = excluded.output_tokens,
    cache_read_tokens = excluded.cache_read_tokens,
    cache_write_tokens = excluded.cache_write_tokens,
    reasoning_tokens = excluded.reasoning_tokens,
    cost = excluded.cost,
    price_version = excluded.price_version,
    unpriced = excluded.unpriced,
    asked_at = excluded.asked_at,
    ended_at = excluded.ended_at,
    first_token_us = excluded.first_token_us

-- name: hold
-- This process lives as long as this connection has the lock.
SELECT pg_advisory_lock(8420, :holder::integer)

-- name: drop_open_direct_calls
-- Of processes that live no more.
UPDATE direct_calls SET status = 'dropped', unpriced = true, ended_at = greatest(:now, asked_at)
WHERE status = 'open' AND NOT EXISTS (
    SELECT 1 FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.classid = 8420 AND l.objid::bigint = holder AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
)

-- name: forget_direct_calls
-- Some, oldest first; what is open has an end to come.
DELETE FROM direct_calls WHERE tenant = :tenant AND id IN
    (SELECT id FROM direct_calls
    WHERE tenant = :tenant AND asked_at < :before AND status <> 'open'
    ORDER BY asked_at LIMIT :limit)

-- name: has_run
SELECT id FROM agent_runs WHERE tenant = :tenant AND id = ANY(:runs) LIMIT 1

-- name: run
SELECT
    tenant, id, session, agent, owner, principal, purpose, status, reason, input, first_seq,
    last_seq, created_at, started_at, ended_at, steps, input_tokens, output_tokens,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version,
    unpriced_calls, error_type, error_message, input_summary, output_summary
FROM agent_runs WHERE tenant = :tenant AND id = :run

-- name: runs
SELECT
    tenant, id, session, agent, owner, principal, purpose, status, reason, input, first_seq,
    last_seq, created_at, started_at, ended_at, steps, input_tokens, output_tokens,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version,
    unpriced_calls, error_type, error_message, input_summary, output_summary
FROM agent_runs
WHERE tenant = :tenant
    AND session IN (SELECT session FROM seen WHERE tenant = :tenant AND "user" = :seen_by) -- if seen_by
    AND session = :session -- if session
    AND principal = :principal -- if principal
    AND purpose = :purpose -- if purpose
    AND agent = :agent -- if agent
    AND status = :status -- if status
    AND created_at >= :since -- if since
    AND created_at < :before -- if before
    AND (created_at, id) < (SELECT created_at, id FROM agent_runs WHERE tenant = :tenant AND id = :after) -- if after
ORDER BY created_at DESC, id DESC LIMIT :limit

-- name: llm_calls
SELECT
    tenant, run, id, session, step, number, provider, model, status, error_type, error_message,
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost,
    price_version, unpriced, asked_at, ended_at, first_token_us
FROM llm_calls WHERE tenant = :tenant AND run = :run ORDER BY asked_at, step, number, id

-- name: tool_runs
SELECT
    tenant, run, id, session, step, name, status, asked_at, started_at, ended_at, parameters,
    parameters_cut, result, result_cut
FROM tool_runs WHERE tenant = :tenant AND run = :run ORDER BY asked_at, step, id

-- name: feedback
SELECT run, principal, key, score, comment, at FROM feedback
WHERE tenant = :tenant AND run = :run ORDER BY at, principal, key

-- name: usage
-- Sums are of whole 10^-12 dollars, and told apart above and below 10^-6.
SELECT {groups}, count(DISTINCT c.run), count(*), count(*) FILTER (WHERE c.status = 'failed'),
    coalesce(sum(c.input_tokens), 0)::bigint, coalesce(sum(c.output_tokens), 0)::bigint,
    coalesce(sum(c.cache_read_tokens), 0)::bigint, coalesce(sum(c.cache_write_tokens), 0)::bigint,
    coalesce(sum(c.reasoning_tokens), 0)::bigint,
    div(sum(round(c.cost, 12)) * 1000000000000, 1000000)::bigint,
    mod(sum(round(c.cost, 12)) * 1000000000000, 1000000)::bigint,
    count(*) FILTER (WHERE c.unpriced)
FROM (
    SELECT c.tenant, c.run, coalesce(r.principal, '') AS "user", coalesce(r.agent, '') AS agent,
        c.provider, c.model, c.status, c.input_tokens, c.output_tokens, c.cache_read_tokens,
        c.cache_write_tokens, c.reasoning_tokens, c.cost, c.unpriced, c.asked_at
    FROM llm_calls c JOIN agent_runs r ON r.tenant = c.tenant AND r.id = c.run
    WHERE c.tenant = :tenant AND c.asked_at >= :since AND c.asked_at < :before
        AND EXISTS (SELECT 1 FROM seen s WHERE s.tenant = :tenant AND s."user" = :seen_by AND s.session = r.session) -- if seen_by
    UNION ALL
    SELECT d.tenant, NULL, d.principal, '',
        d.provider, d.model, d.status, d.input_tokens, d.output_tokens, d.cache_read_tokens,
        d.cache_write_tokens, d.reasoning_tokens, d.cost, d.unpriced, d.asked_at
    FROM direct_calls d
    WHERE d.tenant = :tenant AND d.asked_at >= :since AND d.asked_at < :before
        AND d.principal = :seen_by -- if seen_by
) c
GROUP BY {groups}
{past}
ORDER BY {groups} LIMIT :limit

-- name: log_rows
-- What a session said itself.
SELECT seq, at, fact FROM events WHERE tenant = :tenant AND session = :session ORDER BY seq

-- name: set_head
-- As another session's: what others remember of it holds no more.
UPDATE heads SET head = :head, made = :made WHERE tenant = :tenant AND session = :session

-- name: mark_stale
INSERT INTO stale SELECT tenant, id FROM sessions ON CONFLICT DO NOTHING

-- name: mark_some_stale
INSERT INTO stale SELECT :tenant::text, unnest(:sessions::text[]) ON CONFLICT DO NOTHING

-- name: stale
SELECT tenant, session FROM stale LIMIT :limit FOR UPDATE SKIP LOCKED

-- name: fresh
DELETE FROM stale WHERE tenant = :tenant AND session = :session

-- name: delete_ledger
WITH feedback AS (
    DELETE FROM feedback WHERE tenant = :tenant AND run IN
        (SELECT id FROM agent_runs WHERE tenant = :tenant AND session = :session)
), tools AS (
    DELETE FROM tool_runs WHERE tenant = :tenant AND run IN
        (SELECT id FROM agent_runs WHERE tenant = :tenant AND session = :session)
), calls AS (
    DELETE FROM llm_calls WHERE tenant = :tenant AND run IN
        (SELECT id FROM agent_runs WHERE tenant = :tenant AND session = :session)
)
DELETE FROM agent_runs WHERE tenant = :tenant AND session = :session
