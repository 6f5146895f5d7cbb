-- The history: what happened, newest first. Each query is one stream of it.

-- name: history_ends
-- Deploys as they ended, and the columns that tell most of them apart.
SELECT id, ended_at AS at, status, target, repo FROM deploy
WHERE ended_at IS NOT NULL AND ended_at <= :at
  AND (ended_at < :at OR (ended_at = :at AND id < :before))
ORDER BY ended_at DESC, id DESC LIMIT :most

-- name: history_actions
SELECT id, at, by, what, subject, note FROM action WHERE id < :before ORDER BY id DESC LIMIT :most

-- name: history_actions_on
SELECT id, at, by, what, subject, note FROM action WHERE subject = :subject ORDER BY id DESC

-- name: history_action_below
-- The newest action with an id of at most :id, and when it was done.
SELECT id, at FROM action WHERE id <= :id ORDER BY id DESC LIMIT 1
