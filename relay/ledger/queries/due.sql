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
-- Take or keep a duty, unless another process has it. One that has it for longer than any could
-- take it for has it by a clock that was set back since.
INSERT INTO duty (name, owner, until, note) VALUES (:name, :owner, :until, :note)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until, note = excluded.note
WHERE duty.owner = excluded.owner OR duty.until < :now OR duty.until > :furthest

-- name: duty
SELECT owner, until, note FROM duty WHERE name = :name

-- name: give_up_duty
-- The note stays for the next one, and so does the time, by which it sees whether the clock was set
-- back.
UPDATE duty SET until = :now - 1 WHERE name = :name AND owner = :owner

-- name: set_back_deploys
-- Have deploys due as much earlier as the clock was set back. The claims of this boot end by the
-- boot's clock as well, so that none ends too early; where there is none, a claim is left as it is.
UPDATE deploy SET next_at = max(:now, next_at - :step),
  waits_until = CASE WHEN waits = 'retry' THEN max(:now, next_at - :step) ELSE waits_until END
WHERE next_at > :now AND (status = 'waiting' OR claim_boot <> '')

-- name: set_back_deliveries
UPDATE delivery SET next_at = max(:now, next_at - :step) WHERE next_at > :now

-- name: set_back_notices
UPDATE notice SET next_at = max(:now, next_at - :step) WHERE status = 'waiting' AND next_at > :now

-- name: set_back_rate_calls
-- A rate would let no call through until the clock has come so far again.
UPDATE rate_call SET at = at - :step WHERE at > :now
