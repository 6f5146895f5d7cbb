-- Outcomes: written by the owner of the claim only.

-- name: write_outcome
-- What became of a call, if the claim is still the caller's.
UPDATE deploy SET status = :status, waits = :waits, waits_until = :until, reason = :reason,
  next_at = :next_at, ended_at = :ended_at, claim = NULL, probe = 0, tries = :tries, http = :http,
  deployment_id = :deployment_id, confirmed = :confirmed
WHERE id = :deploy AND status = 'calling' AND claim = :claim AND attempt = :attempt

-- name: write_attempt
UPDATE attempt SET ms = :ms, http = :http, outcome = :outcome, reason = :reason, exchange = :exchange
WHERE deploy = :deploy AND number = :number

-- name: write_late_attempt
-- An answer that came when the claim was lost: said beside the mark, and changes nothing else.
UPDATE attempt SET ms = :ms, http = :http, reason = reason || '; late answer: ' || :outcome,
  exchange = :exchange
WHERE deploy = :deploy AND number = :number AND outcome = 'uncertain'

-- name: settled_attempt
-- A call whose owner has written its outcome. One that another process marked as cut off has no
-- time.
SELECT number FROM attempt WHERE deploy = :deploy AND number = :number
  AND (outcome NOT IN ('calling', 'uncertain') OR (outcome = 'uncertain' AND ms IS NOT NULL))

-- name: what_follows
-- Where a deploy stands, how its target does, and whether its outcome can change anything for others.
SELECT d.target, d.ref, d.state, d.call_key, d.pos, d.tries, t.name AS target_name, t.paused_at,
  t.limited_until, t.failures, t.opened, t.open_until,
  EXISTS (SELECT 1 FROM deploy o INDEXED BY deploy_open
    WHERE o.target = d.target AND o.ref = d.ref AND o.status IN ('waiting', 'calling')
      AND o.id <> d.id) AS has_others,
  EXISTS (SELECT 1 FROM deploy f INDEXED BY deploy_attention
    WHERE f.target = d.target AND f.ref = d.ref AND f.status IN ('failed', 'uncertain')
      AND f.overtaken = 0 AND f.replayed_by IS NULL) AS has_failures,
  EXISTS (SELECT 1 FROM deploy w INDEXED BY deploy_line
    WHERE w.target = d.target AND w.status = 'waiting' AND w.waits IN ('slot', 'probe')) AS has_line
FROM deploy d JOIN target t ON t.id = d.target
WHERE d.id = :deploy

-- name: write_live
-- What is live on a ref of a target, unless something newer is.
INSERT INTO live (target, ref, deploy, pos) VALUES (:target, :ref, :deploy, :pos)
ON CONFLICT (target, ref) DO UPDATE SET deploy = excluded.deploy, pos = excluded.pos
WHERE excluded.pos > live.pos OR (excluded.pos = live.pos AND excluded.deploy > live.deploy)

-- name: overtake_failures
-- A newer success makes older failures nobody's business any more.
UPDATE deploy SET overtaken = 1
WHERE target = :target AND ref = :ref AND status IN ('failed', 'uncertain') AND overtaken = 0
  AND replayed_by IS NULL AND (pos < :pos OR (pos = :pos AND id < :deploy))
  AND (state <> :state OR call_key = :call_key)

-- name: write_target_state
UPDATE target SET limited_until = :limited_until, failures = :failures, opened = :opened,
  open_until = :open_until
WHERE id = :target

-- name: failing_on_ref
SELECT deploy FROM failing WHERE target = :target AND ref = :ref

-- name: insert_failing
INSERT INTO failing (target, ref, deploy) VALUES (:target, :ref, :deploy)
ON CONFLICT (target, ref) DO NOTHING

-- name: delete_failing
DELETE FROM failing WHERE target = :target AND ref = :ref

-- name: is_newest_state
-- Whether a deploy's state is still the newest of its ref.
SELECT d.pos >= r.newest_pos AS is_newest FROM deploy d JOIN ref r ON r.id = d.ref
WHERE d.id = :deploy
