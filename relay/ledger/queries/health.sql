-- name: nothing
-- Answer that the ledger can be read.
SELECT 1 AS one

-- name: write_probe
-- Find out whether the ledger can be written.
INSERT INTO ledger (name, value) VALUES ('probe', :now)
ON CONFLICT (name) DO UPDATE SET value = excluded.value
