-- Where tenants have the models of a provider asked.

CREATE TABLE endpoints (
    tenant     TEXT NOT NULL,
    provider   TEXT NOT NULL,
    base_url   TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, provider)
) STRICT, WITHOUT ROWID;
