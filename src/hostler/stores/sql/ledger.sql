-- Statements on runs as data: rows are merged from changes, without being read (entries.py).

-- name: upsert_agent_runs
-- What a run began with stays; counts are added; an error of '' is one that is over; a cost is
-- known when that of every call is.
INSERT INTO agent_runs VALUES {rows}
ON CONFLICT (tenant, id) DO UPDATE SET
    status = excluded.status,
    reason = coalesce(excluded.reason, reason),
    last_seq = coalesce(excluded.last_seq, last_seq),
    started_at = coalesce(started_at, excluded.started_at),
    ended_at = coalesce(excluded.ended_at, ended_at),
    steps = steps + excluded.steps,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,
    cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
    reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
    cost = CASE WHEN unpriced_calls + excluded.unpriced_calls = 0
        THEN coalesce(excluded.cost, cost) END,
    price_version = coalesce(excluded.price_version, price_version),
    unpriced_calls = unpriced_calls + excluded.unpriced_calls,
    error_type = nullif(coalesce(excluded.error_type, error_type), ''),
    error_message = nullif(coalesce(excluded.error_message, error_message), ''),
    output_summary = coalesce(excluded.output_summary, output_summary)

-- name: upsert_llm_calls
-- There are two changes at most: it was asked, and how it ended.
INSERT INTO llm_calls VALUES {rows}
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

-- name: upsert_tool_runs
INSERT INTO tool_runs VALUES {rows}
ON CONFLICT (tenant, run, id) DO UPDATE SET
    name = coalesce(excluded.name, name),
    status = excluded.status,
    started_at = coalesce(excluded.started_at, started_at),
    ended_at = coalesce(excluded.ended_at, ended_at),
    parameters = coalesce(excluded.parameters, parameters),
    parameters_cut = CASE WHEN excluded.parameters IS NULL
        THEN parameters_cut ELSE excluded.parameters_cut END,
    result = coalesce(excluded.result, result),
    result_cut = max(result_cut, excluded.result_cut)

-- name: upsert_feedback
INSERT INTO feedback VALUES {rows}
ON CONFLICT (tenant, run, principal, key) DO UPDATE SET
    score = excluded.score, comment = excluded.comment, at = excluded.at

-- name: upsert_direct_calls
-- A later row of a call says all of it.
INSERT INTO direct_calls VALUES {rows}
ON CONFLICT (tenant, id) DO UPDATE SET
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

-- name: drop_open_direct_calls
UPDATE direct_calls INDEXED BY direct_calls_open
SET status = 'dropped', unpriced = 1, ended_at = max(?, asked_at) WHERE status = 'open'

-- name: forget_direct_calls
-- Some, oldest first; what is open has an end to come.
DELETE FROM direct_calls WHERE (tenant, id) IN
    (SELECT tenant, id FROM direct_calls INDEXED BY direct_calls_by_time
    WHERE tenant = ? AND asked_at < ? AND status <> 'open' ORDER BY asked_at LIMIT ?)

-- name: has_run
SELECT 1 FROM agent_runs WHERE tenant = ? AND id = ?

-- name: run
SELECT
    tenant, id, session, agent, owner, principal, purpose, status, reason, input, first_seq,
    last_seq, created_at, started_at, ended_at, steps, input_tokens, output_tokens,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version,
    unpriced_calls, error_type, error_message, input_summary, output_summary
FROM agent_runs WHERE tenant = ? AND id = ?

-- name: runs
-- `{index}` is that of the rarest thing that is asked for: without it, none may be used.
SELECT
    tenant, id, session, agent, owner, principal, purpose, status, reason, input, first_seq,
    last_seq, created_at, started_at, ended_at, steps, input_tokens, output_tokens,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version,
    unpriced_calls, error_type, error_message, input_summary, output_summary
FROM
    (SELECT DISTINCT session AS one FROM seen WHERE tenant = :tenant AND user = :seen_by) m CROSS JOIN -- if seen_by
    agent_runs INDEXED BY {index}
WHERE tenant = :tenant
    AND session = one -- if seen_by
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
FROM llm_calls WHERE tenant = ? AND run = ? ORDER BY asked_at, step, number, id

-- name: tool_runs
SELECT
    tenant, run, id, session, step, name, status, asked_at, started_at, ended_at, parameters,
    parameters_cut, result, result_cut
FROM tool_runs WHERE tenant = ? AND run = ? ORDER BY asked_at, step, id

-- name: feedback
SELECT run, principal, key, score, comment, at FROM feedback
WHERE tenant = ? AND run = ? ORDER BY at, principal, key

-- name: usage
-- Sums are of whole 10^-12 dollars, apart above and below 10^-6, so that none can overflow.
SELECT {groups}, count(DISTINCT c.run), count(*), sum(c.status = 'failed'),
    coalesce(sum(c.input_tokens), 0), coalesce(sum(c.output_tokens), 0),
    coalesce(sum(c.cache_read_tokens), 0), coalesce(sum(c.cache_write_tokens), 0),
    coalesce(sum(c.reasoning_tokens), 0),
    sum(CAST(round(c.cost * 1e12) AS INTEGER) / 1000000),
    sum(CAST(round(c.cost * 1e12) AS INTEGER) % 1000000),
    sum(c.unpriced)
FROM (
    SELECT c.tenant, c.run, coalesce(r.principal, '') AS user, coalesce(r.agent, '') AS agent,
        c.provider, c.model, c.status, c.input_tokens, c.output_tokens, c.cache_read_tokens,
        c.cache_write_tokens, c.reasoning_tokens, c.cost, c.unpriced, c.asked_at
    FROM llm_calls c INDEXED BY llm_calls_by_time
    CROSS JOIN agent_runs r ON r.tenant = c.tenant AND r.id = c.run
    WHERE c.tenant = :tenant AND c.asked_at >= :since AND c.asked_at < :before
        AND EXISTS (SELECT 1 FROM seen s WHERE s.tenant = :tenant AND s.user = :seen_by AND s.session = r.session) -- if seen_by
    UNION ALL
    SELECT d.tenant, NULL, d.principal, '',
        d.provider, d.model, d.status, d.input_tokens, d.output_tokens, d.cache_read_tokens,
        d.cache_write_tokens, d.reasoning_tokens, d.cost, d.unpriced, d.asked_at
    FROM direct_calls d INDEXED BY direct_calls_by_time
    WHERE d.tenant = :tenant AND d.asked_at >= :since AND d.asked_at < :before
        AND d.principal = :seen_by -- if seen_by
) c
GROUP BY {groups}
{past}
ORDER BY {groups} LIMIT :limit

-- name: log_rows
-- What a session said itself, row by row: a log may be large.
SELECT seq, at, fact FROM events WHERE tenant = ? AND session = ? ORDER BY seq

-- name: set_head
UPDATE heads SET head = ? WHERE tenant = ? AND session = ?

-- name: mark_stale
INSERT OR IGNORE INTO stale SELECT tenant, id FROM sessions

-- name: mark_one_stale
INSERT OR IGNORE INTO stale VALUES (?, ?)

-- name: stale
SELECT tenant, session FROM stale LIMIT ?

-- name: fresh
DELETE FROM stale WHERE tenant = ? AND session = ?

-- name: delete_agent_runs
DELETE FROM agent_runs WHERE tenant = ? AND session = ?

-- name: delete_llm_calls
-- Found by their runs: these stand in the primary key.
DELETE FROM llm_calls WHERE (tenant, run) IN
    (SELECT tenant, id FROM agent_runs WHERE tenant = ? AND session = ?)

-- name: delete_tool_runs
DELETE FROM tool_runs WHERE (tenant, run) IN
    (SELECT tenant, id FROM agent_runs WHERE tenant = ? AND session = ?)

-- name: delete_feedback
DELETE FROM feedback WHERE (tenant, run) IN
    (SELECT tenant, id FROM agent_runs WHERE tenant = ? AND session = ?)
