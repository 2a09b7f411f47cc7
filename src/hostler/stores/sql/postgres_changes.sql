-- Statements on what processes on one database tell each other by rows.

-- name: changes
SELECT what, number FROM changes

-- name: keep_ticket
INSERT INTO tickets (tenant, digest, holder, good_until)
VALUES (:tenant, :digest, :holder, :until)

-- name: take_ticket
DELETE FROM tickets WHERE digest = :digest RETURNING holder, good_until

-- name: delete_old_tickets
DELETE FROM tickets WHERE good_until <= :now
