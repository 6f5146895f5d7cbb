-- Lists: what they show, and in which order they walk.

-- name: delivery_record
-- What lists tell of a delivery.
SELECT id, source, kind, action, repo, ref_name, branch, sha, sender, author, message, verdict, status,
  reason, uncertain, redeliveries, replay_of, requested_by, cancelled_by, received_at
FROM delivery WHERE id = :delivery

-- name: deploys_of_delivery
-- How the deploys of a delivery stand, the oldest first.
SELECT id, status, ended_at FROM deploy WHERE delivery = :delivery ORDER BY id

-- name: deploy_record
-- What lists tell of a deploy.
SELECT d.id, d.delivery, d.status, d.reason, d.route, d.attempt, d.created_at, d.ended_at, d.waits,
  d.waits_until, d.http, d.deployment_id, d.live_before, d.overtaken, d.superseded_by, d.replay_of,
  d.replayed_by, d.requested_by, d.cancelled_by, d.approved_by, d.dismissed_by, v.source, v.kind,
  v.action, v.repo, v.ref_name, v.branch, v.sha, v.sender, v.author, v.message, v.verdict, v.uncertain,
  t.name AS target_name, l.deploy AS live_deploy
FROM deploy d
JOIN delivery v ON v.id = d.delivery
JOIN target t ON t.id = d.target
LEFT JOIN live l ON l.target = d.target AND l.ref = d.ref
WHERE d.id = :deploy

-- name: deploy_records_of_delivery
-- The same of each deploy of a delivery, the oldest first.
SELECT d.id, d.delivery, d.status, d.reason, d.route, d.attempt, d.created_at, d.ended_at, d.waits,
  d.waits_until, d.http, d.deployment_id, d.live_before, d.overtaken, d.superseded_by, d.replay_of,
  d.replayed_by, d.requested_by, d.cancelled_by, d.approved_by, d.dismissed_by, v.source, v.kind,
  v.action, v.repo, v.ref_name, v.branch, v.sha, v.sender, v.author, v.message, v.verdict, v.uncertain,
  t.name AS target_name, l.deploy AS live_deploy
FROM deploy d
JOIN delivery v ON v.id = d.delivery
JOIN target t ON t.id = d.target
LEFT JOIN live l ON l.target = d.target AND l.ref = d.ref
WHERE d.delivery = :delivery
ORDER BY d.id

-- name: newest_deliveries
SELECT id FROM delivery WHERE id < :before ORDER BY id DESC LIMIT :most

-- name: newest_deploys
SELECT id FROM deploy WHERE id < :before ORDER BY id DESC LIMIT :most

-- name: attempts_of_deploy
SELECT number, called_at, ms, http, outcome, reason, exchange FROM attempt WHERE deploy = :deploy
ORDER BY number

-- name: actions_on_subject
SELECT at, by, what, subject, note FROM action WHERE subject = :subject ORDER BY id

-- name: route_reasons
SELECT route, reason FROM route_reason WHERE delivery = :delivery ORDER BY place

-- name: event_of_delivery
SELECT event FROM delivery WHERE id = :delivery

-- name: live_beside_deploy
-- What is live on the target and ref of a deploy, and how many states newer that is.
SELECT o.id, v.sha, o.ended_at,
  (SELECT count(*) FROM ref_state s WHERE s.ref = d.ref AND s.pos > d.pos AND s.pos <= l.pos)
    AS states_back
FROM deploy d
JOIN live l ON l.target = d.target AND l.ref = d.ref
JOIN deploy o ON o.id = l.deploy
JOIN delivery v ON v.id = o.delivery
WHERE d.id = :deploy
