-- Claims: the one way to a call.

-- name: claim_facts
-- Everything that decides on a deploy that asks to be called.
SELECT d.*, t.name AS target_name, t.paused_at, t.limited_until, t.failures, t.opened,
  t.open_until, r.ended_pos, r.newest_pos, v.source, v.kind, v.repo, v.ref_name, v.branch, v.action, v.sha, v.sender,
  v.author, v.remote, v.config, v.event, v.received_at, l.deploy AS live_deploy,
  l.deploy AS live_then,
  ((l.pos > d.pos OR (l.pos = d.pos AND l.deploy > d.id))
    AND (ld.state <> d.state OR ld.call_key = d.call_key)) AS is_overtaken,
  (SELECT n.id FROM deploy n INDEXED BY deploy_ref
    WHERE n.ref = d.ref AND n.target = d.target
      AND (n.pos > d.pos OR (n.pos = d.pos AND n.id > d.id))
      AND (n.state <> d.state OR n.call_key = d.call_key)
      AND n.status <> 'cancelled'
    ORDER BY n.pos DESC, n.id DESC LIMIT 1) AS newer,
  (SELECT o.id FROM deploy o INDEXED BY deploy_open
    WHERE o.target = d.target AND o.ref = d.ref AND o.status IN ('waiting', 'calling')
      AND o.id <> d.id AND (o.status = 'calling'
        OR ((o.pos < d.pos OR (o.pos = d.pos AND o.id < d.id)) AND o.waits <> 'approval'))
    ORDER BY o.status, o.pos, o.id LIMIT 1) AS ahead
FROM deploy d
JOIN target t ON t.id = d.target
JOIN ref r ON r.id = d.ref
JOIN delivery v ON v.id = d.delivery
LEFT JOIN live l ON l.target = d.target AND l.ref = d.ref
LEFT JOIN deploy ld ON ld.id = l.deploy
WHERE d.id = :deploy

-- name: deploy_due_at
-- When a deploy that waits is due; no row for one that does not wait.
SELECT next_at FROM deploy WHERE id = :deploy AND status = 'waiting'

-- name: calls_of_target
-- How many calls of a target are being made, and how many of them are probes.
SELECT count(*) AS calling, coalesce(sum(probe), 0) AS probes FROM deploy INDEXED BY deploy_calling
WHERE target = :target AND status = 'calling' AND id <> :deploy

-- name: rate_call_before
-- When the last call but :skip of a rate's subject was made.
SELECT at FROM rate_call WHERE subject = :subject ORDER BY at DESC LIMIT 1 OFFSET :skip

-- name: place_in_line
-- How many deploys of a target wait for its rates before this one.
SELECT count(*) AS before FROM deploy INDEXED BY deploy_line
WHERE target = :target AND status = 'waiting' AND waits = 'rate'
  AND (line_at < :line_at OR (line_at = :line_at AND id < :deploy))

-- name: insert_rate_call
INSERT INTO rate_call (subject, at, call) VALUES (:subject, :now, :call) ON CONFLICT DO NOTHING

-- name: delete_rate_call
-- Count a call no longer that was not made after all.
DELETE FROM rate_call WHERE subject = :subject AND call = :call AND at = :at

-- name: delete_old_rate_calls
DELETE FROM rate_call WHERE subject = :subject AND at < :before

-- name: claim_deploy
-- Note that the call begins. The one statement that leads to a call.
UPDATE deploy SET status = 'calling', claim = :claim, attempt = attempt + 1, tries = :tries,
  called_at = :now, next_at = :expires, claim_boot = :boot, claim_boot_end = :boot_end, waits = '',
  waits_until = NULL, probe = :probe,
  live_before = :live
WHERE id = :deploy AND status IN ('waiting', 'calling') AND next_at <= :now AND attempt = :attempt

-- name: insert_attempt
INSERT INTO attempt (deploy, number, called_at, outcome, reason)
VALUES (:deploy, :number, :now, 'calling', '')

-- name: postpone_deploy
-- Have a deploy wait, from its claim as well as from waiting.
UPDATE deploy SET status = 'waiting', waits = :waits, waits_until = :until, next_at = :look,
  approval_until = :approval_until, claim = NULL, probe = 0, tries = :tries, reason = :reason
WHERE id = :deploy AND status IN ('waiting', 'calling')

-- name: end_deploy
-- End a deploy that waits or whose claim ran out.
UPDATE deploy SET status = :status, reason = :reason, superseded_by = :by, waits = '',
  waits_until = NULL, next_at = NULL, claim = NULL, probe = 0, ended_at = :now
WHERE id = :deploy AND status IN ('waiting', 'calling')

-- name: mark_attempt_cut_off
-- Note that nobody knows the outcome of a call whose claim ran out.
UPDATE attempt SET outcome = 'uncertain', reason = :reason
WHERE deploy = :deploy AND number = :number AND outcome = 'calling'
