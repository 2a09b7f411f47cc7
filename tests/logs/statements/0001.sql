INSERT INTO keys (
    tenant, id, "user", role, scopes, prefix, digest, title, created_at, expires_at, revoked_at,
    used_at
) VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
    $11, $12
)

SELECT digest, answer FROM answers WHERE tenant = $1 AND scope = $2 AND at > $3

SELECT tenant, call, session, run, status, name, arguments, digest, asked_at, expires_at, principal,
    reason, answered_at
FROM approvals WHERE tenant = $1 AND session = $2 AND call = $3

SELECT tenant, call, session, run, status, name, arguments, digest, asked_at, expires_at, principal,
    reason, answered_at
FROM approvals
WHERE tenant = $1
    AND session IN (SELECT session FROM seen WHERE tenant = $1 AND "user" = $2)
    AND session = $3
    AND status = $4
    AND call > $5
ORDER BY call LIMIT $6

SELECT min(seq) FROM audit WHERE tenant = $1 AND at >= $2

SELECT hash FROM audit WHERE tenant = $1 AND seq = $2

SELECT seq, hash FROM audit WHERE tenant = $1 ORDER BY seq DESC LIMIT 1

SELECT
    tenant, seq, at, action, principal, "user", kind, object, outcome, status, request, address,
    details, previous, hash
FROM audit
WHERE tenant = $1
    AND seq < $2
    AND at >= $3
    AND at < $4
    AND action = $5
    AND principal = $6
ORDER BY seq DESC LIMIT $7

SELECT DISTINCT ON (tenant) tenant, at < $1 FROM audit ORDER BY tenant, seq

SELECT
    tenant, seq, at, action, principal, "user", kind, object, outcome, status, request, address,
    details, previous, hash
FROM audit WHERE tenant = $1 AND seq > $2 ORDER BY seq LIMIT $3

SELECT DISTINCT tenant FROM audit ORDER BY tenant

UPDATE tenants SET title = $1, settings = $2 WHERE tenant = $3

SELECT count(*) FROM heads
WHERE tenant = $1 AND status IN ('queued', 'running') AND status <> 'idle'

SELECT count(DISTINCT session) FROM seen WHERE tenant = $1 AND "user" = $2

SELECT count(*) FROM sessions WHERE tenant = $1

SELECT count(*) FROM webhooks WHERE tenant = $1

INSERT INTO shares (digest, tenant, id, session, principal, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)

INSERT INTO tenants (tenant, title, created_at, settings)
VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING

SELECT tenant, count(*) - $1::bigint FROM heads
WHERE true
    AND tenant = $2
    AND NOT tenant = ANY($3)
GROUP BY tenant HAVING count(*) > $1

SELECT tenant, id, wrapped, wrapped_by FROM data_keys ORDER BY tenant, id

SELECT pg_database_size(current_database())

DELETE FROM audit WHERE tenant = $1 AND seq <= $2

DELETE FROM events WHERE tenant = $1 AND session = $2 AND seq > $3

WITH feedback AS (
    DELETE FROM feedback WHERE tenant = $1 AND run IN
        (SELECT id FROM agent_runs WHERE tenant = $1 AND session = $2)
), tools AS (
    DELETE FROM tool_runs WHERE tenant = $1 AND run IN
        (SELECT id FROM agent_runs WHERE tenant = $1 AND session = $2)
), calls AS (
    DELETE FROM llm_calls WHERE tenant = $1 AND run IN
        (SELECT id FROM agent_runs WHERE tenant = $1 AND session = $2)
)
DELETE FROM agent_runs WHERE tenant = $1 AND session = $2

DELETE FROM answers WHERE at <= $1

DELETE FROM commits WHERE at <= $1

DELETE FROM shares WHERE expires_at <= $1

WITH gone AS (
    DELETE FROM said WHERE tenant = $1 AND session = $2 RETURNING id
), words AS (
    DELETE FROM said_words w USING gone WHERE w.id = gone.id
), approvals AS (
    DELETE FROM approvals WHERE tenant = $1 AND session = $2
), shares AS (
    DELETE FROM shares WHERE tenant = $1 AND session = $2
), grants AS (
    DELETE FROM grants WHERE tenant = $1 AND session = $2
), forks AS (
    DELETE FROM forks WHERE tenant = $1 AND session = $2
), stale AS (
    DELETE FROM stale WHERE tenant = $1 AND session = $2
), heads AS (
    DELETE FROM heads WHERE tenant = $1 AND session = $2
)
DELETE FROM sessions WHERE tenant = $1 AND id = $2

WITH gone AS (
    DELETE FROM deliveries WHERE tenant = $1 AND webhook = $2
)
DELETE FROM webhooks WHERE tenant = $1 AND id = $2

SELECT tenant, webhook, id, type, body, created_at, status, tries, step, replays, tried_at, code, error,
    next_at
FROM deliveries
WHERE tenant = $1 AND webhook = $2
    AND status = $3
    AND id < $4
ORDER BY id DESC LIMIT $5

SELECT tenant, webhook, id, type, body, created_at, status, tries, step, replays, tried_at, code, error,
    next_at
FROM deliveries WHERE tenant = $1 AND webhook = $2 AND id = $3

SELECT pg_try_advisory_lock(8420, -1)

DELETE FROM endpoints WHERE tenant = $1 AND provider = $2

UPDATE direct_calls SET status = 'dropped', unpriced = true, ended_at = greatest($1, asked_at)
WHERE status = 'open' AND NOT EXISTS (
    SELECT 1 FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.classid = 8420 AND l.objid::bigint = holder AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
)

DELETE FROM secrets WHERE tenant = $1 AND name = $2

SELECT w.tenant, w.id, w.url, w.secret, w.created_at, w.updated_at, w.events, w.description, w.old_secret, w.old_until, w.disabled_at, w.disabled_because, w.failures, w.failing_since,
    d.tenant, d.webhook, d.id, d.type, d.body, d.created_at, d.status, d.tries, d.step, d.replays, d.tried_at, d.code, d.error, d.next_at
FROM webhooks w CROSS JOIN LATERAL (
    SELECT * FROM deliveries x
    WHERE x.tenant = w.tenant AND x.webhook = w.id AND x.next_at <= $1
    ORDER BY x.next_at LIMIT $2
) d
ORDER BY d.next_at

SELECT tenant, provider, base_url, created_at, updated_at FROM endpoints ORDER BY tenant, provider

SELECT run, principal, key, score, comment, at FROM feedback
WHERE tenant = $1 AND run = $2 ORDER BY at, principal, key

DELETE FROM direct_calls WHERE tenant = $1 AND id IN
    (SELECT id FROM direct_calls
    WHERE tenant = $1 AND asked_at < $2 AND status <> 'open'
    ORDER BY asked_at LIMIT $3)

SELECT coalesce(max(upto), 0) FROM forks WHERE tenant = $1 AND origin = $2

DELETE FROM stale WHERE tenant = $1 AND session = $2

INSERT INTO grants (tenant, session, "user", role, by_whom, at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (tenant, session, "user") DO UPDATE SET
    role = excluded.role, by_whom = excluded.by_whom, at = excluded.at

SELECT tenant, session, "user", role, by_whom, at FROM grants
WHERE tenant = $1 AND session = $2 ORDER BY "user"

SELECT id FROM agent_runs WHERE tenant = $1 AND id = ANY($2) LIMIT 1

SELECT head FROM heads WHERE tenant = $1 AND session = $2

SELECT h.session, h.made, h.head, s.agent, s.principal
FROM heads h JOIN sessions s ON s.tenant = h.tenant AND s.id = h.session
WHERE h.tenant = $1 AND h.session = ANY($2)

SELECT pg_advisory_lock(8420, $1::integer)

UPDATE deliveries SET next_at = NULL
WHERE tenant = $1 AND webhook = $2 AND next_at IS NOT NULL

SELECT updated_at, tenant, session FROM heads WHERE active IS NULL AND tenant = $1
ORDER BY updated_at LIMIT $2

SELECT updated_at, tenant, session FROM heads WHERE active IS NULL AND updated_at < $1
    AND tenant = $2
    AND NOT tenant = ANY($3)
ORDER BY updated_at LIMIT $4

INSERT INTO audit (
    tenant, seq, at, action, principal, "user", kind, object, outcome, status, request, address,
    details, previous, hash
) VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
    $12, $13, $14, $15
)

SELECT 1 FROM heads
WHERE tenant = $1 AND session = $2 AND active IS NULL AND updated_at < $3

SELECT 1 FROM sessions WHERE tenant = $1 AND id = $2

SELECT tenant, id, "user", role, scopes, prefix, digest, title, created_at, expires_at, revoked_at,
    used_at
FROM keys WHERE tenant = $1 AND id = $2

SELECT tenant, id, "user", role, scopes, prefix, digest, title, created_at, expires_at, revoked_at,
    used_at
FROM keys WHERE digest = $1

SELECT tenant, id, "user", role, scopes, prefix, digest, title, created_at, expires_at, revoked_at,
    used_at
FROM keys
WHERE tenant = $1
    AND "user" = $2
    AND id < $3
ORDER BY id DESC LIMIT $4

SELECT
    tenant, run, id, session, step, number, provider, model, status, error_type, error_message,
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost,
    price_version, unpriced, asked_at, ended_at, first_token_us
FROM llm_calls WHERE tenant = $1 AND run = $2 ORDER BY asked_at, step, number, id

SELECT pg_advisory_xact_lock(hashtextextended($1::text, 8421))

SELECT 1 FROM heads WHERE tenant = $1 AND session = $2 FOR UPDATE

SELECT pg_advisory_xact_lock(hashtextextended($1::text || '/' || $2::text, 8420))

SELECT tenant, title, created_at, settings FROM tenants WHERE tenant = $1 FOR UPDATE

SELECT tenant, id, url, secret, created_at, updated_at, events, description, old_secret, old_until,
    disabled_at, disabled_because, failures, failing_since
FROM webhooks WHERE tenant = $1 AND id = $2 FOR UPDATE

SELECT pg_advisory_xact_lock(hashtextextended($1::text, 8422))

SELECT seq, at, fact FROM events WHERE tenant = $1 AND session = $2 ORDER BY seq

INSERT INTO stale SELECT $1::text, unnest($2::text[]) ON CONFLICT DO NOTHING

INSERT INTO stale SELECT tenant, id FROM sessions ON CONFLICT DO NOTHING

SELECT min(next_at) FROM deliveries WHERE next_at > $1

SELECT origin FROM forks WHERE tenant = $1 AND session = $2

SELECT s.lineage, p.seqs, p.ats, p.facts FROM sessions s LEFT JOIN LATERAL (
    SELECT string_agg(seq::text, ',' ORDER BY seq) AS seqs,
        string_agg(at::text, ',' ORDER BY seq) AS ats, string_agg(fact, ',' ORDER BY seq) AS facts
    FROM (
        SELECT seq, at, fact, sum(octet_length(fact)) OVER (ORDER BY seq) - octet_length(fact) AS size
        FROM events
        WHERE tenant = $1 AND session = $2 AND seq > $3 AND seq <= $4
    ) e WHERE size < $5
) p ON true
WHERE s.tenant = $1 AND s.id = $2

SELECT string_agg(seq::text, ',' ORDER BY seq), string_agg(fact, ',' ORDER BY seq) FROM events
WHERE tenant = $1 AND session = $2 AND seq > $3 AND seq <= $4
    AND kind = ANY($5)

INSERT INTO data_keys (tenant, id, wrapped, wrapped_by) VALUES ($1, $2, $3, $4)

INSERT INTO deliveries (
    tenant, webhook, id, type, body, created_at, status, tries, step, replays, tried_at, code, error,
    next_at
) VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
) ON CONFLICT (tenant, webhook, id) DO UPDATE SET
    type = excluded.type, body = excluded.body, created_at = excluded.created_at, status = excluded.status, tries = excluded.tries, step = excluded.step, replays = excluded.replays, tried_at = excluded.tried_at, code = excluded.code, error = excluded.error, next_at = excluded.next_at

INSERT INTO endpoints (tenant, provider, base_url, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, provider) DO UPDATE SET
    base_url = excluded.base_url, updated_at = excluded.updated_at

INSERT INTO scrubs (tenant, id, at, record) VALUES ($1, $2, $3, $4)

INSERT INTO secrets (tenant, name, kind, sealed, data_key, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (tenant, name) DO UPDATE SET
    kind = excluded.kind, sealed = excluded.sealed, data_key = excluded.data_key,
    updated_at = excluded.updated_at

INSERT INTO webhooks (
    tenant, id, url, secret, created_at, updated_at, events, description, old_secret, old_until,
    disabled_at, disabled_because, failures, failing_since
) VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
) ON CONFLICT (tenant, id) DO UPDATE SET
    url = excluded.url, secret = excluded.secret, created_at = excluded.created_at, updated_at = excluded.updated_at, events = excluded.events, description = excluded.description, old_secret = excluded.old_secret, old_until = excluded.old_until, disabled_at = excluded.disabled_at, disabled_because = excluded.disabled_because, failures = excluded.failures, failing_since = excluded.failing_since

SELECT h.head, s.agent, s.client_tools, s.lineage, p.seqs, p.facts, e.seqs, e.ats, e.facts
FROM heads h JOIN sessions s ON s.tenant = h.tenant AND s.id = h.session
CROSS JOIN LATERAL
    (SELECT greatest(coalesce((h.head::json ->> 'base')::bigint, 0) - 1, 0) AS upto) b
CROSS JOIN LATERAL (
    SELECT string_agg(seq::text, ',' ORDER BY seq) AS seqs, string_agg(fact, ',' ORDER BY seq) AS facts
    FROM events
    WHERE tenant = $1 AND session = $2 AND seq <= b.upto AND kind = ANY($3)
) p
CROSS JOIN LATERAL (
    SELECT string_agg(seq::text, ',' ORDER BY seq) AS seqs,
        string_agg(at::text, ',' ORDER BY seq) AS ats, string_agg(fact, ',' ORDER BY seq) AS facts
    FROM events
    WHERE tenant = $1 AND session = $2 AND seq > b.upto AND seq <= h.seq
) e
WHERE h.tenant = $1 AND h.session = $2

UPDATE sessions SET
    title = CASE WHEN $1 THEN $2 ELSE title END,
    metadata = coalesce($3, metadata)
WHERE tenant = $4 AND id = $5

UPDATE deliveries SET next_at = $1
WHERE tenant = $2 AND webhook = $3 AND next_at IS NULL AND status = 'pending'

UPDATE keys SET revoked_at = coalesce(revoked_at, $1) WHERE tenant = $2 AND id = $3

UPDATE data_keys SET wrapped = $1, wrapped_by = $2
WHERE tenant = $3 AND id = $4

SELECT tenant, id, url, secret, created_at, updated_at, events, description, old_secret, old_until,
    disabled_at, disabled_because, failures, failing_since
FROM webhooks WHERE old_until <= $1

SELECT
    tenant, id, session, agent, owner, principal, purpose, status, reason, input, first_seq,
    last_seq, created_at, started_at, ended_at, steps, input_tokens, output_tokens,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version,
    unpriced_calls, error_type, error_message, input_summary, output_summary
FROM agent_runs WHERE tenant = $1 AND id = $2

SELECT
    tenant, id, session, agent, owner, principal, purpose, status, reason, input, first_seq,
    last_seq, created_at, started_at, ended_at, steps, input_tokens, output_tokens,
    cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version,
    unpriced_calls, error_type, error_message, input_summary, output_summary
FROM agent_runs
WHERE tenant = $1
    AND session IN (SELECT session FROM seen WHERE tenant = $1 AND "user" = $2)
    AND session = $3
    AND principal = $4
    AND purpose = $5
    AND agent = $6
    AND status = $7
    AND created_at >= $8
    AND created_at < $9
    AND (created_at, id) < (SELECT created_at, id FROM agent_runs WHERE tenant = $1 AND id = $10)
ORDER BY created_at DESC, id DESC LIMIT $11

UPDATE events SET fact = $1 WHERE tenant = $2 AND session = $3 AND seq = $4

SELECT session, seq, fact FROM events
WHERE tenant = $1 AND (session, seq) > ($2, $3) ORDER BY session, seq LIMIT $4

UPDATE said_words w SET words = array_to_tsvector(string_to_array($1, ' '))
FROM said s WHERE s.id = w.id AND s.tenant = $2 AND s.session = $3 AND s.seq = $4

SELECT s.session, s.seq, e.kind, e.fact
FROM said_words w
JOIN said s ON s.id = w.id
JOIN events e ON e.tenant = s.tenant AND e.session = s.session AND e.seq = s.seq
WHERE w.words @@ $1::text::tsquery AND s.tenant = $2
    AND s.session IN (SELECT session FROM seen WHERE tenant = $2 AND "user" = $3)
ORDER BY w.id DESC LIMIT $4

SELECT tenant, name, kind, sealed, data_key, created_at, updated_at FROM secrets
ORDER BY tenant, name

SELECT string_agg(seq::text, ',' ORDER BY seq), string_agg(at::text, ',' ORDER BY seq),
    string_agg(fact, ',' ORDER BY seq)
FROM (
    SELECT seq, at, fact, sum(octet_length(fact)) OVER (ORDER BY seq) - octet_length(fact) AS size
    FROM events WHERE tenant = $1 AND session = $2 AND seq > $3 AND seq <= $4
) e WHERE size < $5

SELECT s.id, s.agent, s.principal, s.title, s.metadata, s.created_at, s.client_tools, s.lineage,
    h.updated_at, h.head
FROM sessions s JOIN heads h ON h.tenant = s.tenant AND h.session = s.id
WHERE s.tenant = $1 AND s.id = $2

SELECT s.id, s.agent, s.principal, s.title, s.metadata, s.created_at, s.client_tools, s.lineage,
    h.updated_at, h.head
FROM sessions s JOIN heads h ON h.tenant = s.tenant AND h.session = s.id
WHERE s.tenant = $1
    AND s.id IN (SELECT session FROM seen WHERE tenant = $1 AND "user" = $2)
    AND s.agent = $3
    AND h.status = $4
    AND (s.created_at, s.id) < (SELECT created_at, id FROM sessions WHERE tenant = $1 AND id = $5)
ORDER BY s.created_at DESC, s.id DESC LIMIT $6

UPDATE heads SET head = $1, made = $2 WHERE tenant = $3 AND session = $4

SELECT tenant, id, session, digest, principal, created_at, expires_at FROM shares
WHERE digest = $1 AND expires_at > $2

SELECT tenant, id, session, digest, principal, created_at, expires_at FROM shares
WHERE tenant = $1 AND session = $2 ORDER BY id

SELECT tenant, session FROM stale LIMIT $1 FOR UPDATE SKIP LOCKED

SELECT s.principal, g.role FROM sessions s
LEFT JOIN grants g ON g.tenant = s.tenant AND g.session = s.id AND g."user" = $1
WHERE s.tenant = $2 AND s.id = $3

SELECT e.session, count(*), sum(octet_length(e.fact))::bigint FROM events e
WHERE e.tenant = $1
    AND e.session IN (SELECT session FROM seen WHERE tenant = $1 AND "user" = $2)
GROUP BY e.session ORDER BY 3 DESC, 1

SELECT tenant, title, created_at, settings FROM tenants WHERE tenant = $1

SELECT tenant, title, created_at, settings FROM tenants
WHERE tenant > $1 ORDER BY tenant LIMIT $2

DELETE FROM deliveries WHERE (tenant, webhook, id) IN (
    SELECT tenant, webhook, id FROM deliveries
    WHERE next_at IS NULL
        AND created_at < CASE status WHEN 'delivered' THEN $1::bigint ELSE $2::bigint END
        AND created_at < greatest($1::bigint, $2::bigint)
    ORDER BY created_at LIMIT $3
)

SELECT
    tenant, run, id, session, step, name, status, asked_at, started_at, ended_at, parameters,
    parameters_cut, result, result_cut
FROM tool_runs WHERE tenant = $1 AND run = $2 ORDER BY asked_at, step, id

UPDATE heads SET updated_at = $1 WHERE tenant = $2 AND session = $3

UPDATE keys k SET used_at = greatest(k.used_at, r.at)
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS r (tenant, id, at)
WHERE k.tenant = r.tenant AND k.id = r.id

SELECT tenant, session, active FROM heads WHERE due <= $1 ORDER BY due, tenant, session

DELETE FROM grants WHERE tenant = $1 AND session = $2 AND "user" = $3

DELETE FROM shares WHERE tenant = $1 AND session = $2 AND id = $3

SELECT c.tenant, count(DISTINCT c.run), count(*), count(*) FILTER (WHERE c.status = 'failed'),
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
    WHERE c.tenant = $1 AND c.asked_at >= $2 AND c.asked_at < $3
        AND EXISTS (SELECT 1 FROM seen s WHERE s.tenant = $1 AND s."user" = $4 AND s.session = r.session)
    UNION ALL
    SELECT d.tenant, NULL, d.principal, '',
        d.provider, d.model, d.status, d.input_tokens, d.output_tokens, d.cache_read_tokens,
        d.cache_write_tokens, d.reasoning_tokens, d.cost, d.unpriced, d.asked_at
    FROM direct_calls d
    WHERE d.tenant = $1 AND d.asked_at >= $2 AND d.asked_at < $3
        AND d.principal = $4
) c
GROUP BY c.tenant
ORDER BY c.tenant LIMIT $5

SELECT NULL AS id, NULL AS fact
WHERE EXISTS (SELECT 1 FROM webhooks WHERE tenant = $1 AND disabled_at IS NULL)
UNION ALL
SELECT r.id, e.fact FROM agent_runs r
JOIN events e ON e.tenant = r.tenant AND e.session = r.session AND e.seq = r.first_seq
WHERE r.tenant = $1 AND r.id = ANY($2::text[])
    AND EXISTS (SELECT 1 FROM webhooks WHERE tenant = $1 AND disabled_at IS NULL)

SELECT tenant, id, url, secret, created_at, updated_at, events, description, old_secret, old_until,
    disabled_at, disabled_because, failures, failing_since
FROM webhooks WHERE tenant = $1 AND id = $2

SELECT tenant, id, url, secret, created_at, updated_at, events, description, old_secret, old_until,
    disabled_at, disabled_because, failures, failing_since
FROM webhooks
WHERE tenant = $1
    AND id < $2
ORDER BY id DESC LIMIT $3

WITH make_answers AS (
INSERT INTO answers AS a (tenant, scope, digest, answer, at) SELECT $5::text, r.scope, r.digest, r.answer, r.at FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[]) AS r (scope, digest, answer, at)
ON CONFLICT (tenant, scope) DO UPDATE SET
    digest = excluded.digest, answer = excluded.answer, at = excluded.at
WHERE a.at <= $6
RETURNING 1
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($7, $8)
)
SELECT insist((SELECT count(*) FROM make_answers) = cardinality($1))

WITH make_first_heads AS (
INSERT INTO heads (tenant, session, made, seq, head, status, active, updated_at, due) SELECT $9::text, r.session, r.made, r.seq, r.head, r.status, r.active, r.updated_at, r.due FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[]) AS r (session, made, seq, head, status, active, updated_at, due)
ON CONFLICT DO NOTHING RETURNING 1
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($10, $11)
)
SELECT insist((SELECT count(*) FROM make_first_heads) = cardinality($1))

WITH make_heads AS (
UPDATE heads h SET
    seq = r.seq, head = r.head, status = r.status, active = r.active,
    updated_at = r.updated_at, due = r.due
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[]) AS r (session, made, was, seq, head, status, active, updated_at, due)
WHERE h.tenant = $10 AND h.session = r.session AND h.made = r.made AND h.seq = r.was
RETURNING 1
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($11, $12)
)
SELECT insist((SELECT count(*) FROM make_heads) = cardinality($1))

WITH make_sessions AS (
INSERT INTO sessions (tenant, id, agent, principal, title, metadata, created_at, client_tools, lineage) SELECT $9::text, r.id, r.agent, r.principal, r.title, r.metadata, r.created_at, r.client_tools, r.lineage FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[]) AS r (id, agent, principal, title, metadata, created_at, client_tools, lineage)
WHERE NOT EXISTS (SELECT 1 FROM forks f WHERE f.tenant = $9 AND f.origin = r.id)
ON CONFLICT DO NOTHING RETURNING 1
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($10, $11)
)
SELECT insist((SELECT count(*) FROM make_sessions) = cardinality($1))

WITH write_agent_runs AS (
INSERT INTO agent_runs AS a (tenant, id, session, agent, owner, principal, purpose, status, reason, input, first_seq, last_seq, created_at, started_at, ended_at, steps, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version, unpriced_calls, error_type, error_message, input_summary, output_summary) SELECT $28::text, r.id, r.session, r.agent, r.owner, r.principal, r.purpose, r.status, r.reason, r.input, r.first_seq, r.last_seq, r.created_at, r.started_at, r.ended_at, r.steps, r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost::numeric, r.price_version, r.unpriced_calls, r.error_type, r.error_message, r.input_summary, r.output_summary FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::text[], $22::text[], $23::bigint[], $24::text[], $25::text[], $26::text[], $27::text[]) AS r (id, session, agent, owner, principal, purpose, status, reason, input, first_seq, last_seq, created_at, started_at, ended_at, steps, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version, unpriced_calls, error_type, error_message, input_summary, output_summary)
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
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($29, $30)
)
SELECT true

WITH write_approvals AS (
INSERT INTO approvals AS a (tenant, call, session, run, status, name, arguments, digest, asked_at, expires_at, principal, reason, answered_at) SELECT $13::text, r.call, r.session, r.run, r.status, r.name, r.arguments, r.digest, r.asked_at, r.expires_at, r.principal, r.reason, r.answered_at FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::bigint[]) AS r (call, session, run, status, name, arguments, digest, asked_at, expires_at, principal, reason, answered_at)
ON CONFLICT (tenant, session, call) DO UPDATE SET
    status = excluded.status,
    principal = coalesce(excluded.principal, a.principal),
    reason = coalesce(excluded.reason, a.reason),
    answered_at = coalesce(excluded.answered_at, a.answered_at)
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($14, $15)
)
SELECT true

WITH write_client_tools AS (
UPDATE sessions s SET client_tools = r.client_tools FROM unnest($1::text[], $2::text[]) AS r (session, client_tools)
WHERE s.tenant = $3 AND s.id = r.session
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($4, $5)
)
SELECT true

WITH write_direct_calls AS (
INSERT INTO direct_calls (tenant, holder, id, principal, purpose, provider, model, status, error_type, error_message, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version, unpriced, asked_at, ended_at, first_token_us)
SELECT $20::text, $21::bigint, r.id, r.principal, r.purpose, r.provider, r.model, r.status, r.error_type, r.error_message, r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost::numeric, r.price_version, r.unpriced::boolean, r.asked_at, r.ended_at, r.first_token_us FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::text[], $15::text[], $16::int[], $17::bigint[], $18::bigint[], $19::bigint[]) AS r (id, principal, purpose, provider, model, status, error_type, error_message, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version, unpriced, asked_at, ended_at, first_token_us)
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
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($22, $23)
)
SELECT true

WITH write_events AS (
INSERT INTO events (tenant, session, seq, at, kind, fact) SELECT $6::text, r.session, r.seq, r.at, r.kind, r.fact FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[]) AS r (session, seq, at, kind, fact)
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($7, $8)
)
SELECT true

WITH write_feedback AS (
INSERT INTO feedback (tenant, run, principal, key, session, score, comment, at) SELECT $8::text, r.run, r.principal, r.key, r.session, r.score, r.comment, r.at FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::text[], $7::bigint[]) AS r (run, principal, key, session, score, comment, at)
ON CONFLICT (tenant, run, principal, key) DO UPDATE SET
    score = excluded.score, comment = excluded.comment, at = excluded.at
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($9, $10)
)
SELECT true

WITH write_forks AS (
INSERT INTO forks (tenant, origin, session, upto) SELECT $4::text, r.origin, r.session, r.upto FROM unnest($1::text[], $2::text[], $3::bigint[]) AS r (origin, session, upto)
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($5, $6)
)
SELECT true

WITH write_llm_calls AS (
INSERT INTO llm_calls (tenant, run, id, session, step, number, provider, model, status, error_type, error_message, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version, unpriced, asked_at, ended_at, first_token_us) SELECT $22::text, r.run, r.id, r.session, r.step, r.number, r.provider, r.model, r.status, r.error_type, r.error_message, r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens, r.reasoning_tokens, r.cost::numeric, r.price_version, r.unpriced::boolean, r.asked_at, r.ended_at, r.first_token_us FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::text[], $17::text[], $18::int[], $19::bigint[], $20::bigint[], $21::bigint[]) AS r (run, id, session, step, number, provider, model, status, error_type, error_message, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, cost, price_version, unpriced, asked_at, ended_at, first_token_us)
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
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($23, $24)
)
SELECT true

WITH write_notices AS (
INSERT INTO deliveries
    (tenant, webhook, id, type, body, created_at, status, tries, step, replays, next_at)
SELECT $5::text, w.id, r.id, r.type, r.body, r.at, 'pending', 0, 0, 0, r.at
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS r (id, type, body, at) JOIN webhooks w ON w.tenant = $5 AND w.disabled_at IS NULL
    AND (w.events IS NULL OR w.events::jsonb ? r.type)
ON CONFLICT DO NOTHING
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($6, $7)
)
SELECT true

WITH write_tool_runs AS (
INSERT INTO tool_runs AS t (tenant, run, id, session, step, name, status, asked_at, started_at, ended_at, parameters, parameters_cut, result, result_cut) SELECT $14::text, r.run, r.id, r.session, r.step, r.name, r.status, r.asked_at, r.started_at, r.ended_at, r.parameters, r.parameters_cut::boolean, r.result, r.result_cut::boolean FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::int[], $12::text[], $13::int[]) AS r (run, id, session, step, name, status, asked_at, started_at, ended_at, parameters, parameters_cut, result, result_cut)
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
),
write_commit AS (
INSERT INTO commits (id, at) VALUES ($15, $16)
)
SELECT true

WITH pick_said AS (
SELECT nextval('said_ids') AS id, r.session, r.seq, r.words
FROM (SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[]) AS r (session, seq, words) ORDER BY session, seq) r
),
write_said AS (
INSERT INTO said (id, tenant, session, seq)
SELECT id, $4::text, session, seq FROM pick_said
),
write_said_words AS (
INSERT INTO said_words (id, words)
SELECT id, array_to_tsvector(string_to_array(words, ' ')) FROM pick_said
)
SELECT true
