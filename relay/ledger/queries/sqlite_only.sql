-- Queries that another database has in its own words.

-- name: last_ids
-- The last number given out of each kind of id that people see.
SELECT name, seq AS number FROM sqlite_sequence
WHERE name IN ('delivery', 'deploy', 'notice', 'action')

-- name: raise_last_id
-- Give out numbers above :number from now on.
UPDATE sqlite_sequence SET seq = max(seq, :number) WHERE name = :kind

-- name: delivery_facts
-- What filters compare of these deliveries: :ids is a JSON list.
SELECT v.id, v.id AS delivery, v.status, v.source, v.repo, v.branch, v.sha, v.author, v.verdict,
  v.received_at AS at
FROM json_each(:ids) j CROSS JOIN delivery v ON v.id = j.value

-- name: deploy_facts
-- What filters compare of these deploys: :ids is a JSON list.
SELECT d.id, d.delivery, d.status, d.repo, d.branch, d.route, t.name AS target, d.created_at AS at,
  (d.status IN ('failed', 'uncertain') AND d.overtaken = 0 AND d.replayed_by IS NULL) AS attention
FROM json_each(:ids) j CROSS JOIN deploy d ON d.id = j.value
CROSS JOIN target t ON t.id = d.target

-- name: deploy_and_delivery_facts
-- The same with what only the delivery tells.
SELECT d.id, d.delivery, d.status, d.repo, d.branch, d.route, t.name AS target, d.created_at AS at,
  (d.status IN ('failed', 'uncertain') AND d.overtaken = 0 AND d.replayed_by IS NULL) AS attention,
  v.source, v.sha, v.author, v.verdict
FROM json_each(:ids) j CROSS JOIN deploy d ON d.id = j.value
CROSS JOIN delivery v ON v.id = d.delivery CROSS JOIN target t ON t.id = d.target

-- name: deliveries_of_words
-- Deliveries whose message has all words; :words is a query of FTS5.
SELECT rowid AS id FROM delivery_text
WHERE delivery_text MATCH :words AND rowid < :before ORDER BY rowid DESC LIMIT :most

-- name: words_in_span
SELECT rowid AS id FROM delivery_text
WHERE delivery_text MATCH :words AND rowid BETWEEN :first AND :last

-- name: deploy_ids_of_deliveries
-- :ids is a JSON list of deliveries.
SELECT d.id FROM json_each(:ids) j CROSS JOIN deploy d ON d.delivery = j.value

-- name: ledger_bytes
-- Bytes that the rows of the ledger take, and those of its file.
SELECT (p.page_count - f.freelist_count) * s.page_size AS used, p.page_count * s.page_size AS file
FROM pragma_page_count() p, pragma_freelist_count() f, pragma_page_size() s

-- name: delete_delivery_text
-- Take a message out of the full-text index, which has to be told what it was.
INSERT INTO delivery_text (delivery_text, rowid, message) VALUES ('delete', :delivery, :message)
