-- Messages that are to be said at a time: gone once they were, or were withdrawn.  What they say is
-- in the log, at `seq`.

CREATE TABLE scheduled (
    tenant  TEXT NOT NULL,
    session TEXT NOT NULL,
    input   TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (tenant, session, input)
) STRICT, WITHOUT ROWID;
CREATE INDEX scheduled_next ON scheduled (at);
