-- Intake: deliveries and the history of their refs.

-- name: deliveries_of_guid
-- The deliveries with this id, newest first. More than one are webhooks that differ.
SELECT id, body, status FROM delivery INDEXED BY delivery_guid
WHERE source = :source AND guid = :guid AND guid <> '' ORDER BY id DESC LIMIT :most

-- name: count_redelivery
UPDATE delivery SET redeliveries = redeliveries + 1 WHERE id = :delivery

-- name: ref_by_name
SELECT id, version FROM ref WHERE repository = :repository AND name = :name

-- name: insert_ref
INSERT INTO ref (repository, name) VALUES (:repository, :name) RETURNING id

-- name: ref_states
SELECT no, pos, origin, value, at, own_clock, body, copies, first_seen, last_seen, touched, uncertain
FROM ref_state WHERE ref = :ref ORDER BY pos, no

-- name: write_ref_state
INSERT INTO ref_state (ref, no, pos, origin, value, at, own_clock, touched, body, copies, first_seen,
  last_seen, uncertain)
VALUES (:ref, :no, :pos, :origin, :value, :at, :own_clock, :touched, :body, :copies, :first_seen,
  :last_seen, :uncertain)
ON CONFLICT (ref, no) DO UPDATE SET pos = excluded.pos, origin = excluded.origin,
  value = excluded.value, at = excluded.at, own_clock = excluded.own_clock,
  touched = excluded.touched, body = excluded.body, copies = excluded.copies,
  last_seen = excluded.last_seen, uncertain = excluded.uncertain

-- name: delete_ref_state
DELETE FROM ref_state WHERE ref = :ref AND no = :no

-- name: write_ref
-- Changes nothing where another version of the ref's states is there.
UPDATE ref SET newest = :newest, newest_pos = :newest_pos, ended_pos = max(ended_pos, :ended_pos),
  version = :version
WHERE id = :ref AND version = :before

-- name: ref_turns
SELECT target, turn, holds, at FROM ref_turn WHERE ref = :ref

-- name: write_ref_turn
INSERT INTO ref_turn (ref, target, turn, holds, at) VALUES (:ref, :target, :turn, :holds, :at)
ON CONFLICT (ref, target) DO UPDATE SET turn = excluded.turn, holds = excluded.holds,
  at = excluded.at

-- name: insert_delivery
INSERT INTO delivery (source, guid, body, received_at, kind, action, repo, ref, ref_name, branch, state, sha,
  sender, author, remote, message, event, turns, config, verdict, status, reason, uncertain, trace,
  replay_of, requested_by, next_at)
VALUES (:source, :guid, :body, :received_at, :kind, :action, :repo, :ref, :ref_name, :branch, :state, :sha,
  :sender, :author, :remote, :message, :event, :turns, :config, :verdict, :status, :reason,
  :uncertain, :trace, :replay_of, :requested_by, :next_at)
RETURNING id

-- name: insert_delivery_text
INSERT INTO delivery_text (rowid, message) VALUES (:delivery, :message)

-- name: insert_payload
INSERT INTO payload (delivery, codec, body) VALUES (:delivery, :codec, :body)

-- name: insert_route_reason
INSERT INTO route_reason (delivery, place, route, reason) VALUES (:delivery, :place, :route, :reason)

-- name: first_delivery_of_state
-- The delivery that told first of a state of a ref.
SELECT id FROM delivery INDEXED BY delivery_ref WHERE ref = :ref AND state = :state ORDER BY id LIMIT 1

-- name: payload_files
-- The names of the files that hold payloads.
SELECT body FROM payload INDEXED BY payload_file WHERE codec = 'file'

-- name: add_refusals
INSERT INTO refusal (hour, source, status, count, last_at, last_reason, last_remote)
VALUES (:hour, :source, :status, :count, :last_at, :last_reason, :last_remote)
ON CONFLICT (hour, source, status) DO UPDATE SET count = refusal.count + excluded.count,
  last_at = excluded.last_at, last_reason = excluded.last_reason,
  last_remote = excluded.last_remote
