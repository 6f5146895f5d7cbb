-- Queries that another database has in its own words.

-- name: last_ids
-- The last number given out of each kind of id that people see.
SELECT name, seq AS number FROM sqlite_sequence
WHERE name IN ('delivery', 'deploy', 'notice', 'action')

-- name: raise_last_id
-- Give out numbers above :number from now on.
UPDATE sqlite_sequence SET seq = max(seq, :number) WHERE name = :kind
