-- Payloads, as people look at them.

-- name: payload_of_delivery
-- The payload of a delivery; of a replay that of the delivery that it repeats.
SELECT v.id, p.codec, p.body
FROM delivery v LEFT JOIN payload p ON p.delivery = coalesce(v.replay_of, v.id)
WHERE v.id = :delivery
