-- Live pages: the few columns that tell whether a row has changed.

-- name: newest_delivery_states
SELECT id, status, redeliveries, cancelled_by FROM delivery ORDER BY id DESC LIMIT :most

-- name: delivery_state
SELECT id, status, redeliveries, cancelled_by FROM delivery WHERE id = :delivery

-- name: newest_deploy_states
SELECT id, delivery, status, waits, waits_until, attempt, overtaken, replayed_by, approved_by
FROM deploy ORDER BY id DESC LIMIT :most

-- name: deploy_state
SELECT id, delivery, status, waits, waits_until, attempt, overtaken, replayed_by, approved_by
FROM deploy WHERE id = :deploy
