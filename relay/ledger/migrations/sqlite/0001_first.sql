-- The first schema. Times are microseconds since the Unix epoch, durations too unless a name says
-- otherwise. An empty text means "there is none"; NULL means "not told" or "not yet".
-- The words of `status` are relay/events/deploy_life.py's.

-- Facts about this ledger (relay/ledger/generation.py). 'instance' is its random name, 'generation'
-- counts the commits that marks outside of the database are compared with, 'behind' is there while
-- the ledger is older than a mark, 'ancestor <instance>' names the ledgers whose marks do not count.
CREATE TABLE ledger (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL DEFAULT '',
  number INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO ledger (name, value) VALUES ('instance', lower(hex(randomblob(8)))), ('generation', '');

-- A branch, tag or pull request of a repository: one history.
CREATE TABLE ref (
  id INTEGER PRIMARY KEY,
  repository TEXT NOT NULL,                       -- the key: server and the repository's id or name
  name TEXT NOT NULL,                             -- refs/heads/main, refs/tags/v1, #12
  newest INTEGER NOT NULL DEFAULT 0,              -- number of the newest state
  newest_pos INTEGER NOT NULL DEFAULT 0,
  ended_pos INTEGER NOT NULL DEFAULT 0,           -- place of the newest state that ended the ref
  version INTEGER NOT NULL DEFAULT 0,             -- another number after each change of its states
  UNIQUE (repository, name)
) STRICT;

CREATE TABLE ref_state (
  ref INTEGER NOT NULL REFERENCES ref ON DELETE CASCADE,
  no INTEGER NOT NULL,                            -- its name
  pos INTEGER NOT NULL,                           -- its place: older is smaller
  origin TEXT,                                    -- the value before; NULL where not told
  value TEXT NOT NULL,                            -- the value after
  at REAL,                                        -- the sender's clock, in seconds
  own_clock INTEGER NOT NULL,
  touched INTEGER NOT NULL,                       -- known from a touch only
  body BLOB NOT NULL,                             -- hash of the webhook's body
  copies INTEGER NOT NULL,
  first_seen REAL NOT NULL,                       -- seconds since the Unix epoch
  last_seen REAL NOT NULL,
  uncertain TEXT NOT NULL,
  PRIMARY KEY (ref, no)
) STRICT, WITHOUT ROWID;

-- Whether the conditions of a target (labels, draft, base) hold for a pull request, and how often
-- they became true again.
CREATE TABLE ref_turn (
  ref INTEGER NOT NULL REFERENCES ref ON DELETE CASCADE,
  target TEXT NOT NULL,
  turn INTEGER NOT NULL,
  holds INTEGER NOT NULL,
  at REAL,                                        -- the sender's clock of the event that told it last
  PRIMARY KEY (ref, target)
) STRICT, WITHOUT ROWID;

CREATE TABLE delivery (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  source TEXT NOT NULL,
  guid TEXT NOT NULL,                             -- the sender's id; empty without one
  body BLOB NOT NULL,                             -- hash of the webhook's body
  received_at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  action TEXT NOT NULL,                           -- of a pull request
  repo TEXT NOT NULL,
  ref INTEGER REFERENCES ref,
  ref_name TEXT NOT NULL,
  branch TEXT NOT NULL,                           -- short name of the branch or tag
  state INTEGER,
  sha TEXT NOT NULL,
  sender TEXT NOT NULL,
  author TEXT NOT NULL,                           -- forms of the author's name, one a line
  remote TEXT NOT NULL,
  message TEXT NOT NULL,                          -- commit message or title, for the full-text index
  event TEXT NOT NULL,                            -- JSON of relay.events.event.Event
  turns TEXT NOT NULL,                            -- JSON: target to turn; empty without any
  config TEXT NOT NULL,                           -- version of the relay.yaml that judged it
  verdict TEXT NOT NULL CHECK (verdict IN ('new', 'same', 'known', 'late')),
  status TEXT NOT NULL CHECK (status IN ('queued', 'routed', 'ignored', 'duplicate')),
  reason TEXT NOT NULL,
  uncertain TEXT NOT NULL,                        -- why its place in the history is uncertain
  redeliveries INTEGER NOT NULL DEFAULT 0,
  replay_of INTEGER,
  requested_by TEXT NOT NULL DEFAULT '',
  cancelled_by TEXT NOT NULL DEFAULT '',
  trace TEXT NOT NULL DEFAULT '',
  next_at INTEGER,                                -- when it is to be routed
  CHECK ((status = 'queued') = (next_at IS NOT NULL))
) STRICT;
CREATE INDEX delivery_due ON delivery (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX delivery_queued ON delivery (ref, id) WHERE next_at IS NOT NULL;
CREATE INDEX delivery_guid ON delivery (source, guid) WHERE guid <> '';
CREATE INDEX delivery_repo ON delivery (repo COLLATE NOCASE, id);
CREATE INDEX delivery_sha ON delivery (sha, id);
CREATE INDEX delivery_received ON delivery (received_at);
CREATE INDEX delivery_ref ON delivery (ref, state, id);
CREATE INDEX delivery_branch ON delivery (branch, id);
CREATE INDEX delivery_status ON delivery (status, id);
CREATE INDEX delivery_source ON delivery (source, id);
CREATE INDEX delivery_author ON delivery (author, id);
CREATE INDEX delivery_verdict ON delivery (verdict, id) WHERE verdict <> 'new';
CREATE INDEX delivery_replay ON delivery (replay_of, id) WHERE replay_of IS NOT NULL;

-- Of an ignored delivery, what each route said.
CREATE TABLE route_reason (
  delivery INTEGER NOT NULL REFERENCES delivery ON DELETE CASCADE,
  place INTEGER NOT NULL,
  route TEXT NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (delivery, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE payload (
  delivery INTEGER PRIMARY KEY REFERENCES delivery ON DELETE CASCADE,
  codec TEXT NOT NULL CHECK (codec IN ('zstd', 'file', 'none')),
  body BLOB NOT NULL                              -- secrets redacted; a file's name; why there is none
) STRICT;
CREATE INDEX payload_file ON payload (delivery) WHERE codec = 'file';

CREATE VIRTUAL TABLE delivery_text USING fts5 (
  message, content = 'delivery', content_rowid = 'id', tokenize = 'unicode61', detail = 'none',
  columnsize = 0
);

-- Refused requests, in sums: they are nobody's deliveries.
CREATE TABLE refusal (
  hour INTEGER NOT NULL,                          -- hours since the Unix epoch
  source TEXT NOT NULL,
  status INTEGER NOT NULL,
  count INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  last_reason TEXT NOT NULL,
  last_remote TEXT NOT NULL,
  PRIMARY KEY (hour, source, status)
) STRICT, WITHOUT ROWID;

CREATE TABLE target (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  paused_at INTEGER,
  limited_until INTEGER NOT NULL DEFAULT 0,       -- its platform wants no calls before
  failures INTEGER NOT NULL DEFAULT 0,            -- calls that failed in a row
  opened INTEGER NOT NULL DEFAULT 0,              -- how often the breaker opened in a row
  open_until INTEGER NOT NULL DEFAULT 0           -- 0 while the breaker is closed
) STRICT;

-- The calls that a rate counts: of targets, and of notifiers as 'notify/<name>'.
CREATE TABLE rate_call (
  subject TEXT NOT NULL,
  at INTEGER NOT NULL,
  call TEXT NOT NULL,
  PRIMARY KEY (subject, at, call)
) STRICT, WITHOUT ROWID;

CREATE TABLE deploy (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  delivery INTEGER NOT NULL REFERENCES delivery,
  target INTEGER NOT NULL REFERENCES target,
  ref INTEGER NOT NULL REFERENCES ref,
  repo TEXT NOT NULL,                             -- its delivery's, for lists in the order of ids
  branch TEXT NOT NULL,                           -- the same
  state INTEGER NOT NULL,
  pos INTEGER NOT NULL,                           -- place of that state when the deploy was queued
  turn INTEGER NOT NULL,
  call_key TEXT NOT NULL,                         -- tells calls of one state that differ
  replay INTEGER NOT NULL DEFAULT 0,              -- how often a person had made this call again
  route TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('waiting', 'calling', 'accepted', 'succeeded', 'failed',
    'uncertain', 'unknown', 'cancelled', 'superseded', 'dismissed')),
  waits TEXT NOT NULL DEFAULT '',                 -- what it waits for; empty: a worker
  waits_until INTEGER,
  reason TEXT NOT NULL DEFAULT '',
  attempt INTEGER NOT NULL DEFAULT 0,             -- calls begun
  tries INTEGER NOT NULL DEFAULT 0,               -- of these, those that count against retry.attempts
  next_at INTEGER,                                -- waiting: when it is due; calling: when its claim ends
  claim TEXT,
  claim_boot TEXT NOT NULL DEFAULT '',            -- the boot of the machine that claimed it
  claim_boot_end INTEGER NOT NULL DEFAULT 0,      -- when its claim ends, by that boot's clock
  probe INTEGER NOT NULL DEFAULT 0,               -- its call finds out whether the target is well again
  called_at INTEGER,
  created_at INTEGER NOT NULL,
  line_at INTEGER NOT NULL,                       -- since when it, or what it superseded uncalled, waits
  ended_at INTEGER,
  http INTEGER,                                   -- status of the last answer
  deployment_id TEXT NOT NULL DEFAULT '',
  confirmed TEXT NOT NULL DEFAULT '' CHECK (confirmed IN ('', 'call', 'deployment')),
  live_before INTEGER,                            -- the deploy that was live there when this one was called
  superseded_by INTEGER,
  approval_until INTEGER,                         -- asked for approval; it fails then
  approved_by TEXT NOT NULL DEFAULT '',
  cancelled_by TEXT NOT NULL DEFAULT '',
  dismissed_by TEXT NOT NULL DEFAULT '',
  replay_of INTEGER,
  replayed_by INTEGER,
  requested_by TEXT NOT NULL DEFAULT '',
  is_forced INTEGER NOT NULL DEFAULT 0,           -- a person wants it though a newer one exists
  overtaken INTEGER NOT NULL DEFAULT 0,           -- a newer success of its target and ref exists
  trace TEXT NOT NULL DEFAULT '',
  UNIQUE (target, ref, state, turn, call_key, replay),
  CHECK ((status IN ('waiting', 'calling')) = (next_at IS NOT NULL)),
  CHECK ((status = 'calling') = (claim IS NOT NULL))
) STRICT;
CREATE INDEX deploy_due ON deploy (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deploy_open ON deploy (target, ref, pos, id) WHERE status IN ('waiting', 'calling');
CREATE INDEX deploy_ref ON deploy (ref, target, pos, id);
CREATE INDEX deploy_line ON deploy (target, waits, line_at, id) WHERE status = 'waiting';
CREATE INDEX deploy_calling ON deploy (target, probe) WHERE status = 'calling';
CREATE INDEX deploy_target ON deploy (target, id);
CREATE INDEX deploy_target_status ON deploy (target, status, id);
CREATE INDEX deploy_status ON deploy (status, id);
CREATE INDEX deploy_delivery ON deploy (delivery);
CREATE INDEX deploy_ended ON deploy (ended_at, status) WHERE ended_at IS NOT NULL;
CREATE INDEX deploy_created ON deploy (created_at);
CREATE INDEX deploy_repo ON deploy (repo COLLATE NOCASE, id);
CREATE INDEX deploy_branch ON deploy (branch, id);
CREATE INDEX deploy_route ON deploy (route, id);
CREATE INDEX deploy_attention ON deploy (target, ref, pos, id)
  WHERE status IN ('failed', 'uncertain') AND overtaken = 0 AND replayed_by IS NULL;

CREATE TABLE attempt (
  deploy INTEGER NOT NULL REFERENCES deploy ON DELETE CASCADE,
  number INTEGER NOT NULL,
  called_at INTEGER NOT NULL,
  ms REAL,                                        -- milliseconds until the answer
  http INTEGER,
  outcome TEXT NOT NULL,                          -- calling, succeeded, failed, retry, uncertain, uncalled
  reason TEXT NOT NULL,
  exchange BLOB,                                  -- request and answer, secrets redacted, zstd JSON
  PRIMARY KEY (deploy, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempt_exchange ON attempt (deploy, number) WHERE exchange IS NOT NULL;

-- What is live on each ref of each target.
CREATE TABLE live (
  target INTEGER NOT NULL REFERENCES target,
  ref INTEGER NOT NULL REFERENCES ref,
  deploy INTEGER NOT NULL REFERENCES deploy,
  pos INTEGER NOT NULL,
  PRIMARY KEY (target, ref)
) STRICT, WITHOUT ROWID;

CREATE INDEX live_deploy ON live (deploy);

-- Refs of a target whose last deploy failed, where a notifier tells of recoveries.
CREATE TABLE failing (
  target INTEGER NOT NULL REFERENCES target,
  ref INTEGER NOT NULL REFERENCES ref,
  deploy INTEGER NOT NULL,
  PRIMARY KEY (target, ref)
) STRICT, WITHOUT ROWID;

CREATE TABLE notice (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  notifier TEXT NOT NULL,
  kind TEXT NOT NULL,
  deploy INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  body TEXT NOT NULL,                             -- JSON of relay.notices.Notice
  attempt INTEGER NOT NULL DEFAULT 0,
  status TEXT NOT NULL CHECK (status IN ('waiting', 'calling', 'sent', 'summed', 'failed')),
  reason TEXT NOT NULL DEFAULT '',
  claim TEXT,
  sums INTEGER NOT NULL DEFAULT 0,                -- it waits for the rate, and tells how many more came
  is_told INTEGER NOT NULL DEFAULT 0,             -- its own news was told; it tells of others only
  told_by INTEGER,                                -- of 'summed': the notice whose message counts it
  next_at INTEGER,                                -- waiting: when it is due; calling: when its claim ends
  CHECK ((status IN ('waiting', 'calling')) = (next_at IS NOT NULL)),
  CHECK ((status = 'calling') = (claim IS NOT NULL))
) STRICT;
CREATE INDEX notice_summed ON notice (notifier, id) WHERE status = 'summed';
CREATE INDEX notice_due ON notice (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX notice_waiting ON notice (notifier, id) WHERE next_at IS NOT NULL;

-- What people did.
CREATE TABLE action (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  by TEXT NOT NULL,
  what TEXT NOT NULL,                             -- replay, cancel, approve, dismiss, pause, resume, revoke, accept
  subject TEXT NOT NULL,                          -- delivery-1, deploy-1, the name of a target
  note TEXT NOT NULL
) STRICT;
CREATE INDEX action_subject ON action (subject, id);

CREATE TABLE token (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL CHECK (role IN ('viewer', 'operator')),
  sha256 TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
  hash TEXT PRIMARY KEY,                          -- SHA-256 of the session's id
  token TEXT NOT NULL REFERENCES token ON DELETE CASCADE,
  form_key TEXT NOT NULL,                         -- what forms bring along
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX session_token ON session (token);
CREATE INDEX session_expires ON session (expires_at);

-- Who does what only one process does at a time.
CREATE TABLE duty (
  name TEXT PRIMARY KEY,
  owner TEXT NOT NULL,
  until INTEGER NOT NULL,
  note TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

-- Numbers that people see are not given out twice, even if the newest row was deleted.
INSERT INTO sqlite_sequence (name, seq)
VALUES ('delivery', 0), ('deploy', 0), ('notice', 0), ('action', 0);
