-- Routing: a queued delivery becomes deploys.

-- name: queued_deliveries
-- Deliveries that are due to be routed, within a range of ids.
SELECT v.*, coalesce(s.pos, 0) AS pos
FROM delivery v LEFT JOIN ref_state s ON s.ref = v.ref AND s.no = v.state
WHERE v.id BETWEEN :first AND :last AND v.status = 'queued'
ORDER BY v.id

-- name: older_queued_delivery
-- An older delivery of a ref that is due to be routed.
SELECT id FROM delivery INDEXED BY delivery_queued
WHERE ref = :ref AND next_at IS NOT NULL AND next_at <= :now AND id < :delivery
ORDER BY id LIMIT 1

-- name: finish_routing
-- Say what became of a queued delivery; the first that does so wins.
UPDATE delivery SET status = :status, reason = :reason, next_at = NULL
WHERE id = :delivery AND status = 'queued'

-- name: open_deploy_of_call
-- A deploy that makes the same call and has not ended.
SELECT id FROM deploy INDEXED BY deploy_open
WHERE target = :target AND ref = :ref AND status IN ('waiting', 'calling') AND state = :state
  AND turn = :turn AND call_key = :call_key
ORDER BY pos, id LIMIT 1

-- name: postpone_delivery
UPDATE delivery SET next_at = :next_at WHERE id = :delivery AND status = 'queued'
