-- Tokens of the console and sessions of browsers.

-- name: insert_token
INSERT INTO token (id, name, role, sha256, created_at) VALUES (:id, :name, :role, :sha256, :now)

-- name: token
SELECT id, name, role, sha256, created_at FROM token WHERE id = :id

-- name: delete_token
DELETE FROM token WHERE id = :id

-- name: insert_session
INSERT INTO session (hash, token, form_key, expires_at)
VALUES (:hash, :token, :form_key, :expires_at)

-- name: session
SELECT s.form_key, t.id, t.name, t.role, t.created_at
FROM session s JOIN token t ON t.id = s.token WHERE s.hash = :hash AND s.expires_at > :now

-- name: delete_session
DELETE FROM session WHERE hash = :hash

-- name: delete_old_sessions
DELETE FROM session WHERE expires_at <= :now
