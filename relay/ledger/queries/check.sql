-- What `deploy-relay ledger check` tells of a ledger.

-- name: count_rows
SELECT 'deliveries' AS name, count(*) AS number FROM delivery
UNION ALL SELECT 'refs', count(*) FROM ref
UNION ALL SELECT 'deploys', count(*) FROM deploy
UNION ALL SELECT 'open deploys', count(*) FROM deploy WHERE next_at IS NOT NULL
UNION ALL SELECT 'attempts', count(*) FROM attempt
UNION ALL SELECT 'payloads', count(*) FROM payload
UNION ALL SELECT 'actions', count(*) FROM action
