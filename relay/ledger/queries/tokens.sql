-- Tokens of the console.

-- name: insert_token
INSERT INTO token (id, name, role, sha256, created_at) VALUES (:id, :name, :role, :sha256, :now)

-- name: tokens
SELECT id, name, role, created_at FROM token ORDER BY created_at, id

-- name: token
SELECT id, name, role, sha256, created_at FROM token WHERE id = :id

-- name: delete_token
-- Its sessions go with it.
DELETE FROM token WHERE id = :id
