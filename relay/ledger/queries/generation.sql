-- Whether the ledger went back in time: its generation, and what is noted while it is behind.

-- name: grow_generation
-- Count a commit of deliveries, deploys, calls or actions.
UPDATE ledger SET number = number + 1 WHERE name = 'generation'

-- name: instance_and_generation
SELECT i.value AS instance, g.number AS generation
FROM ledger i JOIN ledger g ON g.name = 'generation'
WHERE i.name = 'instance'

-- name: ledger_fact
SELECT value FROM ledger WHERE name = :name

-- name: write_ledger_fact
INSERT INTO ledger (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: delete_ledger_fact
DELETE FROM ledger WHERE name = :name

-- name: revoke_token
-- Take away a token that was revoked after the backup was made; its sessions end with it.
DELETE FROM token WHERE id = :token

-- name: newest_action
SELECT coalesce(max(at), 0) AS at FROM action

-- name: subjects_of_actions_at
SELECT DISTINCT subject FROM action WHERE at = :acted_at

-- name: open_deploys_until
-- Deploys that wait or whose claim ran out, of those that the ledger had when it was found behind.
SELECT id, target, ref, attempt, status FROM deploy INDEXED BY deploy_due
WHERE next_at IS NOT NULL AND id <= :deploy AND (status = 'waiting' OR next_at <= :now)
ORDER BY id

-- name: queued_deliveries_until
SELECT id FROM delivery INDEXED BY delivery_due
WHERE next_at IS NOT NULL AND id <= :delivery ORDER BY id

-- name: deliveries_after
SELECT id FROM delivery WHERE id > :delivery

-- name: deploys_after
SELECT id FROM deploy WHERE id > :deploy
