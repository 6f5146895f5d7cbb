-- Deliveries and deploys as lists, pages, actions and the audit show them, and the order of lists.

-- name: delivery
SELECT * FROM delivery WHERE id = :delivery

-- name: deploy_ends_of_delivery
-- How the deploys of a delivery stand, the oldest first.
SELECT id, status, ended_at, replayed_by FROM deploy WHERE delivery = :delivery ORDER BY id

-- name: deploy
-- A deploy with what lists, lines of the audit and actions name of its delivery, its target and what
-- is live there. Of a dismissed one the last call tells how it had ended.
SELECT d.*, v.source, v.kind, v.action, v.ref_name, v.sha, v.sender, v.author, v.remote, v.config,
  v.message, v.verdict, v.uncertain, t.name AS target_name, l.deploy AS live_deploy,
  coalesce(d.live_before, l.deploy) AS live_then,
  CASE d.status WHEN 'dismissed' THEN (SELECT a.outcome FROM attempt a
    WHERE a.deploy = d.id AND a.number = d.attempt) END AS last_outcome
FROM deploy d
JOIN delivery v ON v.id = d.delivery
JOIN target t ON t.id = d.target
LEFT JOIN live l ON l.target = d.target AND l.ref = d.ref
WHERE d.id = :deploy

-- name: newest_deliveries
SELECT id FROM delivery WHERE id < :before ORDER BY id DESC LIMIT :most

-- name: newest_deploys
SELECT id FROM deploy WHERE id < :before ORDER BY id DESC LIMIT :most

-- name: attempts_of_deploy
SELECT number, called_at, ms, http, outcome, reason, exchange FROM attempt WHERE deploy = :deploy
ORDER BY number

-- name: actions_on_subject
SELECT id, at, by, what, subject, note FROM action WHERE subject = :subject ORDER BY id

-- name: route_reasons
SELECT route, reason FROM route_reason WHERE delivery = :delivery ORDER BY place

-- Places in a list: ids of one key, newest first. Each of these walks one index.

-- name: deliveries_of_status
SELECT id FROM delivery WHERE status = :key AND id < :before ORDER BY id DESC LIMIT :most

-- name: deliveries_of_source
SELECT id FROM delivery WHERE source = :key AND id < :before ORDER BY id DESC LIMIT :most

-- name: deliveries_of_repo
SELECT id FROM delivery WHERE repo = :key COLLATE NOCASE AND id < :before ORDER BY id DESC LIMIT :most

-- name: deliveries_of_branch
SELECT id FROM delivery WHERE branch = :key AND id < :before ORDER BY id DESC LIMIT :most

-- name: deliveries_of_author
SELECT id FROM delivery WHERE author = :key AND id < :before ORDER BY id DESC LIMIT :most

-- name: deliveries_of_verdict
-- Of a verdict that is not 'new': nearly all are.
SELECT id FROM delivery WHERE verdict = :key AND verdict <> 'new' AND id < :before
ORDER BY id DESC LIMIT :most

-- name: deliveries_of_commit
-- The range holds the commits that begin alike. It is sorted, and mostly small.
SELECT id FROM delivery INDEXED BY delivery_sha
WHERE sha >= :first AND sha < :last AND id < :before ORDER BY id DESC LIMIT :most

-- name: deploys_of_status
SELECT id FROM deploy WHERE status = :key AND id < :before ORDER BY id DESC LIMIT :most

-- name: deploys_of_target
SELECT d.id FROM deploy d WHERE d.target = (SELECT t.id FROM target t WHERE t.name = :key)
  AND d.id < :before
ORDER BY d.id DESC LIMIT :most

-- name: deploys_of_target_and_status
SELECT d.id FROM deploy d WHERE d.target = (SELECT t.id FROM target t WHERE t.name = :key)
  AND d.status = :status AND d.id < :before
ORDER BY d.id DESC LIMIT :most

-- name: deploys_of_route
SELECT id FROM deploy WHERE route = :key AND id < :before ORDER BY id DESC LIMIT :most

-- name: deploys_of_repo
SELECT id FROM deploy WHERE repo = :key COLLATE NOCASE AND id < :before ORDER BY id DESC LIMIT :most

-- name: deploys_of_branch
SELECT id FROM deploy WHERE branch = :key AND id < :before ORDER BY id DESC LIMIT :most

-- name: deploys_of_attention
-- Deploys that need a person. The order of the index is another one, but there are few.
SELECT id FROM deploy INDEXED BY deploy_attention
WHERE status IN ('failed', 'uncertain') AND overtaken = 0 AND replayed_by IS NULL AND id < :before
ORDER BY id DESC LIMIT :most

-- name: last_delivery_before
-- The highest id of the last deliveries before a time: those of one moment come in any order.
SELECT max(id) AS id FROM (SELECT id FROM delivery WHERE received_at < :until
  ORDER BY received_at DESC LIMIT :most) AS last_ones

-- name: last_deploy_before
SELECT max(id) AS id FROM (SELECT id FROM deploy WHERE created_at < :until
  ORDER BY created_at DESC LIMIT :most) AS last_ones

-- name: first_delivery_since
-- The lowest id of the first deliveries since a time.
SELECT min(id) AS id FROM (SELECT id FROM delivery WHERE received_at >= :since
  ORDER BY received_at LIMIT :most) AS first_ones

-- name: first_deploy_since
SELECT min(id) AS id FROM (SELECT id FROM deploy WHERE created_at >= :since
  ORDER BY created_at LIMIT :most) AS first_ones

-- name: names_of_repos
-- Each repository once, by one look into the index for each.
WITH RECURSIVE names (name) AS (
  SELECT (SELECT repo FROM delivery ORDER BY repo COLLATE NOCASE LIMIT 1)
  UNION ALL
  SELECT (SELECT repo FROM delivery WHERE repo COLLATE NOCASE > name
    ORDER BY repo COLLATE NOCASE LIMIT 1) FROM names WHERE name IS NOT NULL)
SELECT name FROM names WHERE name IS NOT NULL

-- name: names_of_authors
-- Each author once, in the same way.
WITH RECURSIVE names (name) AS (
  SELECT (SELECT author FROM delivery WHERE author > '' ORDER BY author LIMIT 1)
  UNION ALL
  SELECT (SELECT author FROM delivery WHERE author > name ORDER BY author LIMIT 1)
  FROM names WHERE name IS NOT NULL)
SELECT name FROM names WHERE name IS NOT NULL

-- name: names_of_branches
-- Each branch within a range whose name has a text in it. Branches are many, so the whole range of
-- the index is read.
SELECT DISTINCT branch AS name FROM delivery
WHERE branch >= :first AND branch < :last AND branch LIKE :like ESCAPE '\'
