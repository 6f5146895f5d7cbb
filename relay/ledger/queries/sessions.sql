-- Sessions of browsers.

-- name: insert_session
INSERT INTO session (hash, token, form_key, expires_at)
VALUES (:hash, :token, :form_key, :expires_at)

-- name: session
SELECT token, form_key FROM session WHERE hash = :hash AND expires_at > :now

-- name: delete_session
DELETE FROM session WHERE hash = :hash

-- name: delete_old_sessions
DELETE FROM session WHERE expires_at <= :now
