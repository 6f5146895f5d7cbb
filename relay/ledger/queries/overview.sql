-- The overview: how much happens, what waits, what needs a person.

-- name: deliveries_of_minute
SELECT count(*) AS number FROM delivery WHERE received_at >= :begin AND received_at < :end

-- name: ends_of_minute
-- How many deploys ended in a span of time, by status.
SELECT status, count(*) AS number FROM deploy
WHERE ended_at IS NOT NULL AND ended_at >= :begin AND ended_at < :end
GROUP BY status

-- name: waits
-- How many deploys wait for what.
SELECT waits, count(*) AS number FROM deploy INDEXED BY deploy_line
WHERE status = 'waiting' GROUP BY waits

-- name: count_open_by_target
-- How many deploys of each target wait or are being called.
SELECT target, status, count(*) AS number FROM deploy WHERE status IN ('waiting', 'calling')
GROUP BY target, status

-- name: count_attention
-- How many deploys need a person, by status.
SELECT status, count(*) AS number FROM deploy INDEXED BY deploy_attention
WHERE status IN ('failed', 'uncertain') AND overtaken = 0 AND replayed_by IS NULL
GROUP BY status

-- name: deploys_that_ask
-- The newest deploys that wait for approval.
SELECT id FROM deploy WHERE status = 'waiting' AND waits = 'approval' ORDER BY id DESC LIMIT :most

-- name: oldest_that_waits
-- Since when the oldest delivery waits to be routed, or deploy for a worker or a slot.
SELECT min(at) AS at FROM (
  SELECT at FROM (SELECT received_at AS at FROM delivery WHERE next_at IS NOT NULL
    ORDER BY next_at LIMIT 1) AS oldest_delivery
  UNION ALL SELECT min(line_at) FROM deploy INDEXED BY deploy_line
    WHERE status = 'waiting' AND waits IN ('', 'slot')
) AS oldest_ones

-- name: target_rows
SELECT t.*, t.name AS target_name FROM target t

-- name: count_remaining
-- What a worker is to do now, but for deploys that wait, and what it does.
SELECT
  (SELECT count(*) FROM delivery WHERE next_at IS NOT NULL)
  + (SELECT count(*) FROM notice WHERE next_at IS NOT NULL AND next_at <= :now AND status = 'waiting')
    AS queued,
  (SELECT count(*) FROM deploy WHERE status = 'calling')
  + (SELECT count(*) FROM notice WHERE next_at IS NOT NULL AND status = 'calling') AS running

-- name: count_due
-- How many deploys that wait for something are due, by what they wait for.
SELECT waits, count(*) AS number FROM deploy INDEXED BY deploy_due
WHERE next_at IS NOT NULL AND next_at <= :now AND status = 'waiting' AND waits <> '' GROUP BY waits

-- name: next_later
-- When the first deploy is looked at that waits for a time, a person or another deploy.
SELECT next_at FROM deploy INDEXED BY deploy_due
WHERE next_at IS NOT NULL AND next_at > :now AND status = 'waiting' AND waits NOT IN ('', 'slot')
ORDER BY next_at LIMIT 1
