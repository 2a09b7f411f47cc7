-- phase: expand
-- Messages that are to be said at a time: gone once they were, or were withdrawn.  What they say is
-- in the log, at `seq`.
CREATE TABLE scheduled (
    tenant  text COLLATE "C" NOT NULL,
    session text COLLATE "C" NOT NULL,
    input   text COLLATE "C" NOT NULL,
    seq     bigint NOT NULL,
    at      bigint NOT NULL,
    PRIMARY KEY (tenant, session, input)
);
CREATE INDEX scheduled_next ON scheduled (at);
SELECT guard('scheduled'::regclass);
