-- phase: expand
-- Several processes send: a delivery is taken by one of them, until then.
ALTER TABLE deliveries ADD COLUMN taken_by text COLLATE "C", ADD COLUMN taken_until bigint;

-- How often each kind of what processes remember was changed, by whichever of them: what a transaction
-- changes it counts, so who sees the number sees the change.
CREATE TABLE changes (
    what   text COLLATE "C" PRIMARY KEY,
    number bigint NOT NULL
);
CREATE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO changes AS c (what, number) VALUES (TG_ARGV[0], 1)
    ON CONFLICT (what) DO UPDATE SET number = c.number + 1;
    RETURN NULL;
END $$;
CREATE TRIGGER counted AFTER INSERT OR UPDATE OR DELETE ON tenants
    FOR EACH STATEMENT EXECUTE FUNCTION count_change('tenants');
CREATE TRIGGER counted AFTER INSERT OR UPDATE OR DELETE ON endpoints
    FOR EACH STATEMENT EXECUTE FUNCTION count_change('endpoints');
CREATE TRIGGER counted AFTER INSERT OR UPDATE OR DELETE ON secrets
    FOR EACH STATEMENT EXECUTE FUNCTION count_change('secrets');
CREATE TRIGGER counted AFTER INSERT OR UPDATE OR DELETE ON data_keys
    FOR EACH STATEMENT EXECUTE FUNCTION count_change('secrets');
-- Not of `used_at`, which is written every minute.
CREATE TRIGGER counted AFTER UPDATE OF revoked_at OR DELETE ON keys
    FOR EACH STATEMENT EXECUTE FUNCTION count_change('keys');

-- Tickets for sockets, which any process takes.
CREATE TABLE tickets (
    tenant     text COLLATE "C" NOT NULL,
    digest     text COLLATE "C" PRIMARY KEY,
    holder     text COLLATE "C" NOT NULL,
    good_until bigint NOT NULL
);
CREATE INDEX tickets_oldest ON tickets (good_until);
SELECT guard('tickets'::regclass);
