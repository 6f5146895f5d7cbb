-- name: nothing
-- Answer that the ledger can be read.
SELECT 1 AS one
