-- The history: what happened, newest first. Each query is one stream of it.

-- name: history_ends
-- Deploys as they ended, and the columns that tell most of them apart.
SELECT d.id, d.ended_at AS at, d.status, t.name AS target, d.repo
FROM deploy d CROSS JOIN target t ON t.id = d.target
WHERE d.ended_at IS NOT NULL AND d.ended_at <= :at
  AND (d.ended_at < :at OR (d.ended_at = :at AND d.id < :before))
ORDER BY d.ended_at DESC, d.id DESC LIMIT :most

-- name: history_actions
SELECT id, at, by, what, subject, note FROM action
WHERE id < :before AND at < :until ORDER BY id DESC LIMIT :most
