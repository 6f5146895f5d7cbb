-- The history: what happened, newest first. Each query is one stream of it.

-- name: history_delivery
SELECT id, received_at AS at, source, kind, repo, ref_name, branch, sha, verdict, status, reason,
  uncertain, replay_of, requested_by
FROM delivery WHERE id = :id

-- name: history_ends
-- Deploys as they ended, and the columns that tell most of them apart.
SELECT id, ended_at AS at, status, target, repo FROM deploy
WHERE ended_at IS NOT NULL AND ended_at <= :at
  AND (ended_at < :at OR (ended_at = :at AND id < :before))
ORDER BY ended_at DESC, id DESC LIMIT :most

-- name: history_deploy
-- One deploy, as it was queued and as it ended. Of a dismissed one the last call tells how.
SELECT d.id, d.created_at AS at, d.ended_at, d.delivery, d.route, d.status, d.reason, d.http,
  d.cancelled_by, d.superseded_by, d.replay_of, d.requested_by, v.source, v.kind, v.repo, v.ref_name,
  v.branch, v.sha, t.name AS target_name,
  CASE d.status WHEN 'dismissed' THEN (SELECT a.outcome FROM attempt a
    WHERE a.deploy = d.id AND a.number = d.attempt) END AS last_outcome
FROM deploy d JOIN delivery v ON v.id = d.delivery JOIN target t ON t.id = d.target
WHERE d.id = :id

-- name: history_deploys_of_delivery
SELECT id FROM deploy WHERE delivery = :id ORDER BY id

-- name: history_actions
SELECT id, at, by, what, subject, note FROM action WHERE id < :before ORDER BY id DESC LIMIT :most

-- name: history_actions_on
SELECT id, at, by, what, subject, note FROM action WHERE subject = :subject ORDER BY id DESC

-- name: history_action_below
-- The newest action with an id of at most :id, and when it was done.
SELECT id, at FROM action WHERE id <= :id ORDER BY id DESC LIMIT 1
