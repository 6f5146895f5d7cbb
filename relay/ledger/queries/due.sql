-- What is due: the sweep's questions, and who sweeps.

-- name: due_deliveries
SELECT id FROM delivery INDEXED BY delivery_due
WHERE next_at IS NOT NULL AND next_at <= :now ORDER BY next_at LIMIT :most

-- name: due_deploys
-- Deploys whose time has come, and those whose claim has run out.
SELECT id FROM deploy INDEXED BY deploy_due
WHERE next_at IS NOT NULL AND next_at <= :now ORDER BY next_at LIMIT :most

-- name: due_notices
SELECT id FROM notice INDEXED BY notice_due
WHERE next_at IS NOT NULL AND next_at <= :now ORDER BY next_at LIMIT :most

-- name: take_duty
-- Take or keep a duty, unless another process has it.
INSERT INTO duty (name, owner, until, note) VALUES (:name, :owner, :until, :note)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until, note = excluded.note
WHERE duty.owner = excluded.owner OR duty.until < :now

-- name: duty
SELECT owner, until, note FROM duty WHERE name = :name

-- name: give_up_duty
-- The note stays for the next one.
UPDATE duty SET until = 0 WHERE name = :name AND owner = :owner
