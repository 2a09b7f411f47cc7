-- The queue of runs, in PgQueuer's tables (postgres_0002.sql).  PgQueuer takes jobs; here they are
-- written, kept and ended.  A job's key is `tenant/session/run`.

-- name: write_jobs (key text, delay float8, class int, place int)
-- Whose key is queued already is brought forward.  A job that is being handled keeps its time, by which
-- it is taken over if its worker dies; that it was rung, and for when, is noted in `headers`.  DO UPDATE
-- waits for whoever ends that job just now, and inserts if it has gone: no ring falls between.
-- The order is start-time fair queueing: a job's tag is that of the first one in the queue, or one more
-- than that of its tenant's last one, if that is more; `place` counts those of one statement.  Who has a
-- thousand in the queue is before nobody else's first.
INSERT INTO pgqueuer AS job (priority, entrypoint, payload, dedupe_key, execute_after, status)
SELECT r.class * 500000000 - LEAST(499999999, r.place + GREATEST(0, (
        SELECT r.class * 500000000 - q.priority FROM pgqueuer q
        WHERE q.entrypoint = 'run' AND q.status = 'queued' AND q.execute_after <= now()
            AND q.priority <= r.class * 500000000 AND q.priority > (r.class - 1) * 500000000
        ORDER BY q.priority DESC LIMIT 1
    ), (
        SELECT 1 + r.class * 500000000 - q.priority FROM pgqueuer q
        WHERE q.entrypoint = 'run' AND q.status = 'queued' AND q.execute_after <= now()
            AND split_part(q.dedupe_key, '/', 1) = split_part(r.key, '/', 1)
            AND q.priority <= r.class * 500000000 AND q.priority > (r.class - 1) * 500000000
        ORDER BY q.priority LIMIT 1
    ))), 'run', convert_to(r.key, 'UTF8'), r.key, now() + make_interval(secs => r.delay), 'queued'
FROM {rows}
ON CONFLICT (dedupe_key) WHERE status IN ('queued', 'picked') AND dedupe_key IS NOT NULL DO UPDATE SET
    priority = GREATEST(job.priority, excluded.priority),
    execute_after = CASE job.status WHEN 'picked' THEN job.execute_after
        ELSE LEAST(job.execute_after, excluded.execute_after) END,
    headers = CASE job.status WHEN 'picked' THEN jsonb_build_object('again', LEAST(
        (job.headers ->> 'again')::float8, extract(epoch FROM excluded.execute_after)::float8)) END

-- name: end_jobs
-- What is over: gone, or queued again, where that was asked for by its handler or by who rang meanwhile.
-- Jobs that another worker has taken over are left alone.
WITH ended AS (
    SELECT * FROM unnest(:ids::bigint[], :delays::float8[]) AS e (id, delay)
), held AS MATERIALIZED (
    SELECT q.id, LEAST(to_timestamp((q.headers ->> 'again')::float8),
        now() + make_interval(secs => ended.delay)) AS due
    FROM pgqueuer q JOIN ended USING (id)
    WHERE q.status = 'picked' AND q.queue_manager_id = :worker::uuid
    ORDER BY q.id FOR UPDATE OF q
), again AS (
    UPDATE pgqueuer q SET status = 'queued', queue_manager_id = NULL, headers = NULL,
        execute_after = held.due, updated = now()
    FROM held WHERE q.id = held.id AND held.due IS NOT NULL
), gone AS (
    DELETE FROM pgqueuer q USING held WHERE q.id = held.id AND held.due IS NULL
)
SELECT pg_notify(:channel, :news)
WHERE EXISTS (SELECT FROM held WHERE due < now() + make_interval(secs => :soon))

-- name: beat_jobs
-- Which jobs are this worker's still; they stay so.
UPDATE pgqueuer SET heartbeat = now()
WHERE id = ANY(:ids::bigint[]) AND status = 'picked' AND queue_manager_id = :worker::uuid RETURNING id

-- name: look_at_jobs
-- Whether a job is due, and in how many seconds the next one will be.
SELECT EXISTS (
    SELECT FROM pgqueuer WHERE entrypoint = 'run' AND status = 'queued' AND execute_after <= now()
), (SELECT extract(epoch FROM min(execute_after) - now())::float8 FROM pgqueuer
    WHERE entrypoint = 'run' AND status = 'queued' AND execute_after > now())

-- name: waiting_jobs
SELECT count(*), coalesce(extract(epoch FROM now() - min(execute_after)), 0)::float8 FROM pgqueuer
WHERE entrypoint = 'run' AND status = 'queued' AND execute_after <= now()

-- name: idle_jobs
-- Those keys that have no job.
SELECT k.key FROM unnest(:keys::text[]) AS k (key) WHERE NOT EXISTS (
    SELECT FROM pgqueuer q WHERE q.dedupe_key = k.key AND q.status IN ('queued', 'picked')
        AND q.dedupe_key IS NOT NULL
)
