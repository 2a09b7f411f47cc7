-- Who did what: one chain of rows per tenant, in which each seals the one before it.

CREATE TABLE audit (
    tenant    TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    action    TEXT NOT NULL,
    principal TEXT NOT NULL,
    user      TEXT NOT NULL,
    kind      TEXT NOT NULL,
    object    TEXT NOT NULL,
    outcome   TEXT NOT NULL,
    status    INTEGER NOT NULL,
    request   TEXT NOT NULL,
    address   TEXT NOT NULL,
    details   TEXT NOT NULL,
    previous  TEXT NOT NULL,
    hash      TEXT NOT NULL,
    PRIMARY KEY (tenant, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_of_action ON audit (tenant, action, seq);
CREATE INDEX audit_of_principal ON audit (tenant, principal, seq);
