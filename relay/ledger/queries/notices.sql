-- Notices: told by the owner of a claim, within the rate of their notifier.

-- name: insert_notice
INSERT INTO notice (notifier, kind, deploy, created_at, body, status, next_at)
VALUES (:notifier, :kind, :deploy, :now, :body, 'waiting', :now)
RETURNING id

-- name: notice
SELECT * FROM notice WHERE id = :notice

-- name: summing_notice
-- The notice of a notifier that waits for the rate and tells how many more came meanwhile.
SELECT id FROM notice INDEXED BY notice_waiting
WHERE notifier = :notifier AND next_at IS NOT NULL AND sums = 1
ORDER BY id LIMIT 1

-- name: postpone_notice
UPDATE notice SET status = 'waiting', sums = :sums, is_told = :is_told, reason = :reason,
  claim = NULL, next_at = :next_at, attempt = :attempt
WHERE id = :notice AND status IN ('waiting', 'calling')

-- name: look_again_at_notice
UPDATE notice SET next_at = :look WHERE id = :notice AND next_at <= :now

-- name: sum_up_notice
-- Have a notice be counted by the message of another one.
UPDATE notice SET status = 'summed', claim = NULL, next_at = NULL
WHERE id = :notice AND status IN ('waiting', 'calling')

-- name: claim_notice
UPDATE notice SET status = 'calling', claim = :claim, attempt = attempt + 1, next_at = :expires
WHERE id = :notice AND status IN ('waiting', 'calling') AND next_at <= :now

-- name: take_summed_notices
-- Have a message count what was summed up and is not yet told.
UPDATE notice SET told_by = :notice
WHERE notifier = :notifier AND status = 'summed' AND told_by IS NULL

-- name: summed_kinds
-- How many notices of which kind a message counts.
SELECT kind, count(*) AS count FROM notice INDEXED BY notice_summed
WHERE notifier = :notifier AND status = 'summed' AND told_by = :notice
GROUP BY kind ORDER BY kind

-- name: end_notice
UPDATE notice SET status = :status, reason = :reason, claim = NULL, next_at = NULL
WHERE id = :notice AND status IN ('waiting', 'calling')

-- name: tell_summed_notices
UPDATE notice SET status = 'sent'
WHERE notifier = :notifier AND status = 'summed' AND told_by = :notice

-- name: release_summed_notices
-- Let the next message count what this one could not tell.
UPDATE notice SET told_by = NULL
WHERE notifier = :notifier AND status = 'summed' AND told_by = :notice

-- name: untold_notice
SELECT id FROM notice INDEXED BY notice_summed
WHERE notifier = :notifier AND status = 'summed' AND told_by IS NULL LIMIT 1
