-- Actions: what people do to deliveries, deploys and targets.

-- name: insert_action
INSERT INTO action (at, by, what, subject, note) VALUES (:now, :by, :what, :subject, :note)

-- name: cancel_deploy
UPDATE deploy SET status = 'cancelled', cancelled_by = :by, waits = '', waits_until = NULL,
  next_at = NULL, ended_at = :now
WHERE id = :deploy AND status = 'waiting'

-- name: cancel_delivery
UPDATE delivery SET status = 'ignored', reason = :reason, cancelled_by = :by, next_at = NULL
WHERE id = :delivery AND status = 'queued'

-- name: cancelled_delivery
-- Whether a person cancelled a delivery of the same state before it was routed.
SELECT id FROM delivery INDEXED BY delivery_ref
WHERE ref = :ref AND state = :state AND cancelled_by <> '' AND turns = :turns
ORDER BY id DESC LIMIT 1

-- name: approve_deploy
UPDATE deploy SET approved_by = :by, waits = '', waits_until = NULL, next_at = :now
WHERE id = :deploy AND status = 'waiting' AND waits = 'approval'

-- name: dismiss_deploy
UPDATE deploy SET status = 'dismissed', dismissed_by = :by
WHERE id = :deploy AND status IN ('failed', 'uncertain', 'unknown')

-- name: pause_target
UPDATE target SET paused_at = :now WHERE id = :target AND paused_at IS NULL

-- name: resume_target
UPDATE target SET paused_at = NULL WHERE id = :target

-- name: success_of_call
-- A deploy that made the same call later than :deploy was queued, and succeeded.
SELECT id FROM deploy
WHERE target = :target AND ref = :ref AND state = :state AND turn = :turn AND call_key = :call_key
  AND id > :deploy AND status = 'succeeded'
ORDER BY id DESC LIMIT 1

-- name: link_replay
UPDATE deploy SET replayed_by = :new WHERE id = :deploy

-- name: newest_replay_of_delivery
SELECT id, status FROM delivery INDEXED BY delivery_replay
WHERE replay_of IS NOT NULL AND replay_of = :delivery ORDER BY id DESC LIMIT 1

-- name: consequence_of_deploy
-- What is live where a deploy would be called again, and how much of it is newer.
SELECT v.sha, l.deploy AS live, lv.sha AS live_sha, ld.ended_at AS live_at,
  t.name AS live_target,
  (SELECT count(DISTINCT n.state) FROM deploy n INDEXED BY deploy_ref
    LEFT JOIN ref_state ns ON ns.ref = n.ref AND ns.no = n.state
    WHERE n.ref = d.ref AND n.target = d.target AND n.status <> 'cancelled' AND n.state <> d.state
      AND coalesce(ns.pos, n.pos) > coalesce(s.pos, d.pos)) AS states_back,
  CASE WHEN r.ended_pos > coalesce(s.pos, d.pos) AND NOT EXISTS (
    SELECT 1 FROM deploy n INDEXED BY deploy_ref
    JOIN ref_state e ON e.ref = n.ref AND e.no = n.state AND e.pos = r.ended_pos
    WHERE n.ref = d.ref AND n.target = d.target AND n.status <> 'cancelled')
    THEN 1 ELSE 0 END AS ends_back,
  (SELECT n.id FROM deploy n INDEXED BY deploy_ref
    WHERE n.ref = d.ref AND n.target = d.target
      AND (n.pos > d.pos OR (n.pos = d.pos AND n.id > d.id))
      AND (n.state <> d.state OR n.call_key = d.call_key)
      AND (n.status IN ('waiting', 'calling', 'accepted') OR n.id = l.deploy)
    ORDER BY n.pos DESC, n.id DESC LIMIT 1) AS newer,
  (SELECT n.id FROM deploy n INDEXED BY deploy_ref
    WHERE n.ref = d.ref AND n.target = d.target
      AND (n.pos > d.pos OR (n.pos = d.pos AND n.id > d.id))
      AND (n.state <> d.state OR n.call_key = d.call_key)
      AND n.attempt > 0
    ORDER BY n.pos DESC, n.id DESC LIMIT 1) AS called
FROM deploy d
JOIN delivery v ON v.id = d.delivery
JOIN target t ON t.id = d.target
JOIN ref r ON r.id = d.ref
LEFT JOIN ref_state s ON s.ref = d.ref AND s.no = d.state
LEFT JOIN live l ON l.target = d.target AND l.ref = d.ref
LEFT JOIN deploy ld ON ld.id = l.deploy
LEFT JOIN delivery lv ON lv.id = ld.delivery
WHERE d.id = :deploy

-- name: consequence_of_delivery
-- What is live on the ref of a delivery that would be routed again, at any target.
SELECT v.sha, ld.id AS live, lv.sha AS live_sha, ld.ended_at AS live_at, lt.name AS live_target,
  (SELECT count(DISTINCT n.state) FROM deploy n INDEXED BY deploy_ref
    LEFT JOIN ref_state ns ON ns.ref = n.ref AND ns.no = n.state
    WHERE n.ref = v.ref AND n.status <> 'cancelled' AND n.state <> v.state
      AND coalesce(ns.pos, n.pos) > s.pos) AS states_back,
  CASE WHEN r.ended_pos > s.pos AND NOT EXISTS (
    SELECT 1 FROM deploy n INDEXED BY deploy_ref
    JOIN ref_state e ON e.ref = n.ref AND e.no = n.state AND e.pos = r.ended_pos
    WHERE n.ref = v.ref AND n.status <> 'cancelled')
    THEN 1 ELSE 0 END AS ends_back,
  (SELECT n.id FROM deploy n INDEXED BY deploy_ref
    LEFT JOIN live l ON l.deploy = n.id
    WHERE n.ref = v.ref AND n.state <> v.state AND n.pos >= s.pos
      AND (n.status IN ('waiting', 'calling', 'accepted') OR l.deploy IS NOT NULL)
    ORDER BY n.pos DESC, n.id DESC LIMIT 1) AS newer,
  NULL AS called
FROM delivery v
LEFT JOIN ref r ON r.id = v.ref
LEFT JOIN ref_state s ON s.ref = v.ref AND s.no = v.state
LEFT JOIN deploy ld ON ld.id = (
  SELECT l.deploy FROM deploy o INDEXED BY deploy_ref JOIN live l ON l.deploy = o.id
  WHERE o.ref = v.ref ORDER BY l.pos DESC, l.deploy DESC LIMIT 1)
LEFT JOIN delivery lv ON lv.id = ld.delivery
LEFT JOIN target lt ON lt.id = ld.target
WHERE v.id = :delivery
