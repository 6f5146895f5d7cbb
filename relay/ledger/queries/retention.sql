-- Retention: what is old is deleted, in small transactions, the oldest first.

-- name: old_deliveries
-- Deliveries that came before :before and whose deploys have all ended and are live nowhere.
SELECT v.id FROM delivery v INDEXED BY delivery_received
WHERE v.received_at < :before AND v.status <> 'queued' AND NOT EXISTS (
  SELECT 1 FROM deploy d INDEXED BY deploy_delivery LEFT JOIN live l ON l.deploy = d.id
  WHERE d.delivery = v.id
    AND (d.status IN ('waiting', 'calling', 'accepted') OR l.deploy IS NOT NULL))
ORDER BY v.received_at LIMIT :most

-- name: old_delivery
-- The same of one delivery: another process may have replayed it meanwhile.
SELECT v.message, p.codec, p.body FROM delivery v LEFT JOIN payload p ON p.delivery = v.id
WHERE v.id = :delivery AND v.status <> 'queued' AND NOT EXISTS (
  SELECT 1 FROM deploy d INDEXED BY deploy_delivery LEFT JOIN live l ON l.deploy = d.id
  WHERE d.delivery = v.id
    AND (d.status IN ('waiting', 'calling', 'accepted') OR l.deploy IS NOT NULL))

-- name: delete_deploys_of_delivery
-- Attempts go with their deploys.
DELETE FROM deploy WHERE delivery = :delivery

-- name: delete_delivery
-- Its payload and the routes' reasons go with it.
DELETE FROM delivery WHERE id = :delivery

-- name: first_young_delivery
SELECT id FROM delivery INDEXED BY delivery_received
WHERE received_at >= :before ORDER BY received_at LIMIT 1

-- name: old_payloads
SELECT delivery, codec, body FROM payload WHERE delivery < :until ORDER BY delivery LIMIT :most

-- name: delete_payload
DELETE FROM payload WHERE delivery = :delivery

-- name: first_young_deploy
SELECT id FROM deploy INDEXED BY deploy_created
WHERE created_at >= :before ORDER BY created_at LIMIT 1

-- name: old_exchanges
SELECT deploy, number FROM attempt INDEXED BY attempt_exchange
WHERE exchange IS NOT NULL AND deploy < :until ORDER BY deploy, number LIMIT :most

-- name: delete_exchange
UPDATE attempt SET exchange = NULL WHERE deploy = :deploy AND number = :number

-- name: first_actions
SELECT id, at FROM action ORDER BY id LIMIT :most

-- name: delete_action
DELETE FROM action WHERE id = :id

-- name: ended_notices
-- The oldest notices that were told, or never will be.
SELECT id, created_at FROM notice WHERE next_at IS NULL ORDER BY id LIMIT :most

-- name: delete_notice
DELETE FROM notice WHERE id = :id

-- name: old_refusals
SELECT hour, source, status FROM refusal WHERE hour < :hour ORDER BY hour LIMIT :most

-- name: delete_refusal
DELETE FROM refusal WHERE hour = :hour AND source = :source AND status = :status

-- name: old_rate_calls
SELECT subject, at, call FROM rate_call WHERE at < :before LIMIT :most

-- name: old_sessions
SELECT hash FROM session INDEXED BY session_expires WHERE expires_at <= :now LIMIT :most

-- name: refs_after
-- The next refs by their numbers.
SELECT id FROM ref WHERE id > :ref ORDER BY id LIMIT :most

-- name: change_ref_version
-- Have all processes read the states of a ref anew.
UPDATE ref SET version = :version WHERE id = :ref
