-- phase: expand
-- The log and the tables kept from it, as in SQLite: the same names, but for what is said here.
-- Times are Unix microseconds.  Text is compared byte by byte (COLLATE "C"), as ids and cursors are.
-- A character that PostgreSQL cannot hold is written otherwise: see postgres_wire.py.

-- Raises what a writer takes for "somebody else wrote first": the whole statement is undone.
CREATE FUNCTION insist(holds boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF holds IS NOT TRUE THEN
        RAISE EXCEPTION 'somebody else wrote first' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN true;
END $$;

-- One row for each commit, written by it: whoever lost the connection meanwhile asks here.
CREATE TABLE commits (
    id text COLLATE "C" PRIMARY KEY,
    at bigint NOT NULL
);
CREATE INDEX commits_oldest ON commits (at);

-- What a session is called; never written by a run.
CREATE TABLE sessions (
    tenant       text COLLATE "C" NOT NULL,
    id           text COLLATE "C" NOT NULL,
    agent        text COLLATE "C" NOT NULL,
    principal    text COLLATE "C" NOT NULL,
    title        text COLLATE "C",
    metadata     text COLLATE "C" NOT NULL,
    created_at   bigint NOT NULL,
    client_tools text COLLATE "C",
    lineage      text COLLATE "C",
    PRIMARY KEY (tenant, id)
);
CREATE INDEX sessions_newest ON sessions (tenant, created_at, id);
CREATE INDEX sessions_of_agent ON sessions (tenant, agent, created_at, id);
CREATE INDEX sessions_of_principal ON sessions (tenant, principal, id);

-- Apart from the labels, because each append rewrites it.  `head` is core.head.Head as JSON; `made`
-- tells a session from another that had its id before.
CREATE TABLE heads (
    tenant     text COLLATE "C" NOT NULL,
    session    text COLLATE "C" NOT NULL,
    made       bigint NOT NULL,
    seq        bigint NOT NULL,
    head       text COLLATE "C" NOT NULL,
    status     text COLLATE "C" NOT NULL,
    active     text COLLATE "C",
    updated_at bigint NOT NULL,
    due        bigint,
    PRIMARY KEY (tenant, session)
) WITH (fillfactor = 50);
CREATE INDEX heads_due ON heads (due) WHERE due IS NOT NULL;
CREATE INDEX heads_oldest ON heads (updated_at) WHERE active IS NULL;
CREATE INDEX heads_oldest_of ON heads (tenant, updated_at) WHERE active IS NULL;
CREATE INDEX heads_busy ON heads (tenant, status, session) WHERE status <> 'idle';

-- The only truth.  `fact` is JSON and stays text: its bytes are what readers are sent.
CREATE TABLE events (
    tenant  text COLLATE "C" NOT NULL,
    session text COLLATE "C" NOT NULL,
    seq     bigint NOT NULL,
    at      bigint NOT NULL,
    kind    text COLLATE "C" NOT NULL,
    fact    text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, session, seq)
);

-- Who reads whose history: one row per segment of a fork's lineage.
CREATE TABLE forks (
    tenant  text COLLATE "C" NOT NULL,
    origin  text COLLATE "C" NOT NULL,
    session text COLLATE "C" NOT NULL,
    upto    bigint NOT NULL,
    PRIMARY KEY (tenant, origin, session)
);
CREATE INDEX forks_of ON forks (tenant, session);

-- Columns other than the keys may be NULL: rows are merged from changes.
CREATE TABLE approvals (
    tenant      text COLLATE "C" NOT NULL,
    call        text COLLATE "C" NOT NULL,
    session     text COLLATE "C" NOT NULL,
    run         text COLLATE "C" NOT NULL,
    status      text COLLATE "C" NOT NULL,
    name        text COLLATE "C",
    arguments   text COLLATE "C",
    digest      text COLLATE "C",
    asked_at    bigint,
    expires_at  bigint,
    principal   text COLLATE "C",
    reason      text COLLATE "C",
    answered_at bigint,
    PRIMARY KEY (tenant, session, call)
);
CREATE INDEX approvals_open ON approvals (tenant, status, call);

-- Answers to writes that must happen once.
CREATE TABLE answers (
    tenant text COLLATE "C" NOT NULL,
    scope  text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    answer bytea NOT NULL,
    at     bigint NOT NULL,
    PRIMARY KEY (tenant, scope)
);
CREATE INDEX answers_oldest ON answers (at);

CREATE TABLE shares (
    digest     text COLLATE "C" NOT NULL PRIMARY KEY,
    tenant     text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    session    text COLLATE "C" NOT NULL,
    principal  text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
);
CREATE INDEX shares_of ON shares (tenant, session);

-- Where each entry of the full-text index comes from; newer entries have higher ids.
CREATE SEQUENCE said_ids;
CREATE TABLE said (
    id      bigint PRIMARY KEY,
    tenant  text COLLATE "C" NOT NULL,
    session text COLLATE "C" NOT NULL,
    seq     bigint NOT NULL
);
CREATE INDEX said_where ON said (tenant, session, seq);

-- The words of an entry, each as a digest of tenant and word, and nothing that says whose they are:
-- what row-level security guards cannot be found by an index for full text (`@@` is not
-- "leakproof"), so the guard is on `said`, and a search without its tenant's words finds nothing.
CREATE TABLE said_words (
    id    bigint PRIMARY KEY,
    words tsvector NOT NULL
);
CREATE INDEX said_words_found ON said_words USING gin (words);

-- Runs, model calls and tool calls as rows for everybody who asks in SQL, kept with each append.
-- docs/reference/tables.md says what each column means.  Costs are US dollars.
CREATE TABLE agent_runs (
    tenant             text COLLATE "C" NOT NULL,
    id                 text COLLATE "C" NOT NULL,
    session            text COLLATE "C" NOT NULL,
    agent              text COLLATE "C",
    owner              text COLLATE "C",
    principal          text COLLATE "C",
    purpose            text COLLATE "C",
    status             text COLLATE "C" NOT NULL,
    reason             text COLLATE "C",
    input              text COLLATE "C",
    first_seq          bigint,
    last_seq           bigint,
    created_at         bigint,
    started_at         bigint,
    ended_at           bigint,
    steps              bigint NOT NULL,
    input_tokens       bigint NOT NULL,
    output_tokens      bigint NOT NULL,
    cache_read_tokens  bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    reasoning_tokens   bigint NOT NULL,
    cost               numeric,
    price_version      text COLLATE "C",
    unpriced_calls     bigint NOT NULL,
    error_type         text COLLATE "C",
    error_message      text COLLATE "C",
    input_summary      text COLLATE "C",
    output_summary     text COLLATE "C",
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 70);
CREATE INDEX agent_runs_by_time ON agent_runs (tenant, created_at, id);
CREATE INDEX agent_runs_of_session ON agent_runs (tenant, session, created_at, id);
CREATE INDEX agent_runs_of_agent ON agent_runs (tenant, agent, created_at, id);
CREATE INDEX agent_runs_of_principal ON agent_runs (tenant, principal, created_at, id);
CREATE INDEX agent_runs_by_status ON agent_runs (tenant, status, created_at, id);
CREATE INDEX agent_runs_by_purpose ON agent_runs (tenant, purpose, created_at, id)
    WHERE purpose IS NOT NULL;

CREATE TABLE llm_calls (
    tenant             text COLLATE "C" NOT NULL,
    run                text COLLATE "C" NOT NULL,
    id                 text COLLATE "C" NOT NULL,
    session            text COLLATE "C" NOT NULL,
    step               bigint NOT NULL,
    number             bigint,
    provider           text COLLATE "C",
    model              text COLLATE "C",
    status             text COLLATE "C" NOT NULL,
    error_type         text COLLATE "C",
    error_message      text COLLATE "C",
    input_tokens       bigint,
    output_tokens      bigint,
    cache_read_tokens  bigint,
    cache_write_tokens bigint,
    reasoning_tokens   bigint,
    cost               numeric,
    price_version      text COLLATE "C",
    unpriced           boolean NOT NULL,
    asked_at           bigint,
    ended_at           bigint,
    first_token_us     bigint,
    latency_us         bigint GENERATED ALWAYS AS (ended_at - asked_at) STORED,
    PRIMARY KEY (tenant, run, id)
) WITH (fillfactor = 70);
CREATE INDEX llm_calls_by_time ON llm_calls (tenant, asked_at);

CREATE TABLE tool_runs (
    tenant         text COLLATE "C" NOT NULL,
    run            text COLLATE "C" NOT NULL,
    id             text COLLATE "C" NOT NULL,
    session        text COLLATE "C" NOT NULL,
    step           bigint NOT NULL,
    name           text COLLATE "C",
    status         text COLLATE "C" NOT NULL,
    asked_at       bigint,
    started_at     bigint,
    ended_at       bigint,
    parameters     text COLLATE "C",
    parameters_cut boolean NOT NULL,
    result         text COLLATE "C",
    result_cut     boolean NOT NULL,
    latency_us     bigint GENERATED ALWAYS AS (ended_at - started_at) STORED,
    PRIMARY KEY (tenant, run, id)
) WITH (fillfactor = 70);

CREATE TABLE feedback (
    tenant    text COLLATE "C" NOT NULL,
    run       text COLLATE "C" NOT NULL,
    principal text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    session   text COLLATE "C" NOT NULL,
    score     double precision NOT NULL,
    comment   text COLLATE "C",
    at        bigint NOT NULL,
    PRIMARY KEY (tenant, run, principal, key)
);

-- Questions that clients ask models themselves, of no session and no run.  `holder` names the
-- process that asks; see `recover` in postgres_rebuild.py.
CREATE TABLE direct_calls (
    tenant             text COLLATE "C" NOT NULL,
    id                 text COLLATE "C" NOT NULL,
    principal          text COLLATE "C" NOT NULL,
    purpose            text COLLATE "C",
    provider           text COLLATE "C" NOT NULL,
    model              text COLLATE "C" NOT NULL,
    status             text COLLATE "C" NOT NULL,
    error_type         text COLLATE "C",
    error_message      text COLLATE "C",
    input_tokens       bigint,
    output_tokens      bigint,
    cache_read_tokens  bigint,
    cache_write_tokens bigint,
    reasoning_tokens   bigint,
    cost               numeric,
    price_version      text COLLATE "C",
    unpriced           boolean NOT NULL,
    asked_at           bigint NOT NULL,
    ended_at           bigint,
    first_token_us     bigint,
    holder             bigint NOT NULL,
    latency_us         bigint GENERATED ALWAYS AS (ended_at - asked_at) STORED,
    PRIMARY KEY (tenant, id)
) WITH (fillfactor = 70);
CREATE INDEX direct_calls_by_time ON direct_calls (tenant, asked_at);
CREATE INDEX direct_calls_open ON direct_calls (tenant, id) WHERE status = 'open';

-- Sessions whose rows are to be made anew from their logs.
CREATE TABLE stale (
    tenant  text COLLATE "C" NOT NULL,
    session text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, session)
);

-- `settings` is core.directory.TenantSettings as JSON.
CREATE TABLE tenants (
    tenant     text COLLATE "C" NOT NULL PRIMARY KEY,
    title      text COLLATE "C",
    created_at bigint NOT NULL,
    settings   text COLLATE "C" NOT NULL
);
INSERT INTO tenants (tenant, title, created_at, settings)
VALUES ('default', NULL, extract(epoch FROM now())::bigint * 1000000, '{}');

-- `scopes` is JSON, NULL for all that the role has.
CREATE TABLE keys (
    tenant     text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    "user"     text COLLATE "C",
    role       text COLLATE "C" NOT NULL,
    scopes     text COLLATE "C",
    prefix     text COLLATE "C" NOT NULL,
    digest     text COLLATE "C" NOT NULL,
    title      text COLLATE "C",
    created_at bigint NOT NULL,
    expires_at bigint,
    revoked_at bigint,
    used_at    bigint,
    PRIMARY KEY (tenant, id)
);
CREATE UNIQUE INDEX keys_of_digest ON keys (digest);

CREATE TABLE grants (
    tenant  text COLLATE "C" NOT NULL,
    session text COLLATE "C" NOT NULL,
    "user"  text COLLATE "C" NOT NULL,
    role    text COLLATE "C" NOT NULL,
    by_whom text COLLATE "C" NOT NULL,
    at      bigint NOT NULL,
    PRIMARY KEY (tenant, session, "user")
);
CREATE INDEX grants_of ON grants (tenant, "user", session);

CREATE TABLE endpoints (
    tenant     text COLLATE "C" NOT NULL,
    provider   text COLLATE "C" NOT NULL,
    base_url   text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (tenant, provider)
);

-- Secrets, sealed; the keys that seal them, wrapped; and what scrubs have changed.
CREATE TABLE data_keys (
    tenant     text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    wrapped    bytea NOT NULL,
    wrapped_by text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE secrets (
    tenant     text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    kind       text COLLATE "C" NOT NULL,
    sealed     bytea NOT NULL,
    data_key   text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE scrubs (
    tenant text COLLATE "C" NOT NULL,
    id     text COLLATE "C" NOT NULL,
    at     bigint NOT NULL,
    record text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, id)
);

-- Who did what: one chain of rows per tenant, in which each seals the one before it.
CREATE TABLE audit (
    tenant    text COLLATE "C" NOT NULL,
    seq       bigint NOT NULL,
    at        bigint NOT NULL,
    action    text COLLATE "C" NOT NULL,
    principal text COLLATE "C" NOT NULL,
    "user"    text COLLATE "C" NOT NULL,
    kind      text COLLATE "C" NOT NULL,
    object    text COLLATE "C" NOT NULL,
    outcome   text COLLATE "C" NOT NULL,
    status    bigint NOT NULL,
    request   text COLLATE "C" NOT NULL,
    address   text COLLATE "C" NOT NULL,
    details   text COLLATE "C" NOT NULL,
    previous  text COLLATE "C" NOT NULL,
    hash      text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, seq)
);
CREATE INDEX audit_of_action ON audit (tenant, action, seq);
CREATE INDEX audit_of_principal ON audit (tenant, principal, seq);

-- Where tenants are told what happened, and what is to be told there.

CREATE TABLE webhooks (
    tenant           text COLLATE "C" NOT NULL,
    id               text COLLATE "C" NOT NULL,
    url              text COLLATE "C" NOT NULL,
    secret           text COLLATE "C" NOT NULL,
    created_at       bigint NOT NULL,
    updated_at       bigint NOT NULL,
    events           text COLLATE "C",
    description      text COLLATE "C",
    old_secret       text COLLATE "C",
    old_until        bigint,
    disabled_at      bigint,
    disabled_because text COLLATE "C",
    failures         bigint NOT NULL,
    failing_since    bigint,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE deliveries (
    tenant     text COLLATE "C" NOT NULL,
    webhook    text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    type       text COLLATE "C" NOT NULL,
    body       text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    status     text COLLATE "C" NOT NULL,
    tries      bigint NOT NULL,
    step       bigint NOT NULL,
    replays    bigint NOT NULL,
    tried_at   bigint,
    code       bigint,
    error      text COLLATE "C",
    next_at    bigint,
    PRIMARY KEY (tenant, webhook, id)
);
CREATE INDEX deliveries_due ON deliveries (tenant, webhook, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_next ON deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_over ON deliveries (created_at) WHERE next_at IS NULL;

-- The second wall: a statement sees the rows of the tenant that its connection was given out for
-- (`hostler.tenant`), or of all where the whole house is looked after (`hostler.house`).  Without
-- either it sees nothing.  FORCE: the owner of the tables, too.
CREATE FUNCTION guard(guarded regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', guarded);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', guarded);
    EXECUTE format(
        'CREATE POLICY of_tenant ON %s USING (tenant = current_setting(''hostler.tenant'', true))',
        guarded
    );
    EXECUTE format(
        'CREATE POLICY of_house ON %s USING (current_setting(''hostler.house'', true) = ''on'')',
        guarded
    );
END $$;
SELECT guard(format('%I', table_name)::regclass) FROM information_schema.columns
WHERE table_schema = current_schema() AND column_name = 'tenant';

-- What one member may see: what they made, and what is shared with them.
CREATE VIEW seen AS
    SELECT tenant, principal AS "user", id AS session FROM sessions
    UNION ALL
    SELECT tenant, "user", session FROM grants;
