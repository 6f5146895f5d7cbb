-- Deploys: queued by routing, ended by newer states.

-- name: target_of_deploy
-- The target of a deploy, and the relay.yaml that was in force when its delivery came.
SELECT t.name, v.config, v.received_at
FROM deploy d JOIN target t ON t.id = d.target JOIN delivery v ON v.id = d.delivery
WHERE d.id = :deploy

-- name: look_again_at_deploy
-- Have a deploy judged later; what it waits for stays written.
UPDATE deploy SET next_at = :look WHERE id = :deploy AND next_at <= :now

-- name: target_by_name
SELECT id, paused_at FROM target WHERE name = :name

-- name: insert_target
INSERT INTO target (name) VALUES (:name) ON CONFLICT (name) DO NOTHING

-- name: insert_deploy
-- Queue a deploy unless the same one exists: one target, state, turn and call.
INSERT INTO deploy (delivery, target, ref, repo, branch, state, pos, turn, call_key, replay, route,
  status, next_at, created_at, line_at, replay_of, requested_by,
  approved_by, is_forced, trace)
SELECT v.id, :target, :ref, v.repo, v.branch, :state, :pos, :turn, :call_key, :replay, :route,
  'waiting', :now, :now, :line_at, :replay_of, :requested_by,
  :approved_by, :is_forced, :trace
FROM delivery v WHERE v.id = :delivery
ON CONFLICT DO NOTHING
RETURNING id

-- name: same_deploy
-- The deploy that an insert met.
SELECT id, status FROM deploy
WHERE target = :target AND ref = :ref AND state = :state AND turn = :turn AND call_key = :call_key
  AND replay = :replay

-- name: next_replay
-- The number of the next replay of a call, and the place behind all deploys of its target and ref
-- and behind the ref's end. Deliveries that are not routed yet lead to newer deploys.
SELECT coalesce(max(replay) + 1, 0) AS replay,
  (SELECT max(p.pos) FROM (
    SELECT n.pos FROM deploy n INDEXED BY deploy_ref WHERE n.ref = :ref AND n.target = :target
    UNION ALL SELECT r.ended_pos FROM ref r WHERE r.id = :ref) p) AS pos
FROM deploy
WHERE target = :target AND ref = :ref AND state = :state AND turn = :turn AND call_key = :call_key

-- name: older_waiting
-- Deploys of a target and ref that wait and are older than this one, the oldest first.
-- Other calls of the same state are not older: they are deploys of their own.
SELECT o.id, o.line_at, o.attempt FROM deploy n CROSS JOIN deploy o INDEXED BY deploy_open
WHERE n.id = :deploy AND o.target = n.target AND o.ref = n.ref
  AND o.status IN ('waiting', 'calling') AND o.status = 'waiting'
  AND (o.pos < n.pos OR (o.pos = n.pos AND o.id < n.id))
  AND (o.state <> n.state OR o.call_key = n.call_key)
ORDER BY o.pos, o.id

-- name: waiting_of_ended_ref
-- Deploys that wait for an older state of a ref that has ended.
SELECT id, target FROM deploy
WHERE ref = :ref AND status = 'waiting' AND pos < :pos
ORDER BY id

-- name: supersede_deploy
-- End a deploy that waits, because something newer has taken its place.
UPDATE deploy SET status = 'superseded', reason = :reason, superseded_by = :by, waits = '',
  waits_until = NULL, next_at = NULL, ended_at = :now
WHERE id = :deploy AND status = 'waiting'

-- name: inherit_place
-- Give a deploy the place in the line of the one that it superseded before any call.
UPDATE deploy SET line_at = min(line_at, :line_at) WHERE id = :deploy

-- name: wake_next_in_order
-- Make the next deploy due that waits for an older one of its target and ref. What it waits for
-- stays written, so that waiting for the same thing again is no news; what is due already is not
-- woken twice.
UPDATE deploy SET next_at = :now
WHERE id = (SELECT id FROM deploy INDEXED BY deploy_open
  WHERE target = :target AND ref = :ref AND status IN ('waiting', 'calling') AND status = 'waiting'
    AND waits = 'order' AND next_at > :now
  ORDER BY pos, id LIMIT 1)
RETURNING id

-- name: wake_next_for_slot
-- Make the deploy due that has waited longest for a slot, or for the probe, of its target.
UPDATE deploy SET next_at = :now
WHERE id = (SELECT id FROM deploy INDEXED BY deploy_line
  WHERE target = :target AND status = 'waiting' AND waits = :waits AND next_at > :now
  ORDER BY line_at, id LIMIT 1)
RETURNING id

-- name: wake_all_that_wait_for
-- Make all deploys of a target due that wait for one reason.
UPDATE deploy SET next_at = :now
WHERE target = :target AND status = 'waiting' AND waits = :waits AND next_at > :now
RETURNING id
