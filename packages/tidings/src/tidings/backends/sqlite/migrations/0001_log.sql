-- The log and everything that hangs on it. Times are microseconds since 1970 UTC.

CREATE TABLE tidings_meta (
  name  TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- Every event, once, in global order; never updated. AUTOINCREMENT: a plain row id is given again after a delete.
CREATE TABLE tidings_log (
  position       INTEGER PRIMARY KEY AUTOINCREMENT,
  lane           INTEGER NOT NULL,
  type           TEXT    NOT NULL,
  version        TEXT    NOT NULL,
  id             TEXT    NOT NULL,
  source         TEXT    NOT NULL,
  time           INTEGER NOT NULL,
  subject        TEXT,
  key            TEXT,
  share          TEXT,
  correlation    TEXT    NOT NULL,
  causation      TEXT,
  traceparent    TEXT,
  tracestate     TEXT,
  supersedes     TEXT,
  keep           TEXT    NOT NULL,
  extensions     BLOB,
  data           BLOB    NOT NULL,
  stream         TEXT,
  stream_version INTEGER
);
-- One id never means two facts.
CREATE UNIQUE INDEX tidings_log_id ON tidings_log (id, source);
-- What followed from an event; a first event is found by its id.
CREATE INDEX tidings_log_correlation ON tidings_log (correlation) WHERE causation IS NOT NULL;
CREATE UNIQUE INDEX tidings_log_stream ON tidings_log (stream, stream_version) WHERE stream IS NOT NULL;

-- Entity -> version: the expected-version check.
CREATE TABLE tidings_stream (
  stream  TEXT PRIMARY KEY,
  version INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE tidings_subscription (
  name           TEXT PRIMARY KEY,
  service        TEXT    NOT NULL,
  kind           TEXT    NOT NULL,
  ordered        INTEGER NOT NULL,
  types          TEXT    NOT NULL,
  start          INTEGER NOT NULL,
  version        INTEGER NOT NULL DEFAULT 1,
  paused_by      TEXT,
  paused_because TEXT
) WITHOUT ROWID;

-- Which process is alive; leases hang on it.
CREATE TABLE tidings_worker (
  id      TEXT PRIMARY KEY,
  service TEXT    NOT NULL,
  host    TEXT    NOT NULL,
  pid     INTEGER NOT NULL,
  started INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  roles   TEXT    NOT NULL
) WITHOUT ROWID;

-- A chain: inserting the next step is the fence. The newest step says how far, and who owns the lane.
CREATE TABLE tidings_progress (
  subscription TEXT    NOT NULL,
  lane         INTEGER NOT NULL,
  step         INTEGER NOT NULL,
  position     INTEGER NOT NULL,
  owner        TEXT,
  PRIMARY KEY (subscription, lane, step)
) WITHOUT ROWID;

-- Work waiting (no owner) or running.
CREATE TABLE tidings_ready (
  subscription TEXT    NOT NULL,
  share        TEXT    NOT NULL,
  position     INTEGER NOT NULL,
  lane         INTEGER NOT NULL,
  key          TEXT,
  attempt      INTEGER NOT NULL,
  owner        TEXT,
  failures     BLOB,
  since        INTEGER,
  PRIMARY KEY (subscription, share, position)
) WITHOUT ROWID;
CREATE INDEX tidings_ready_key ON tidings_ready (subscription, key) WHERE key IS NOT NULL;
CREATE INDEX tidings_ready_owner ON tidings_ready (subscription, owner) WHERE owner IS NOT NULL;

-- The exceptions: retry | behind | parked | dead | discarded.
CREATE TABLE tidings_held (
  subscription TEXT    NOT NULL,
  position     INTEGER NOT NULL,
  lane         INTEGER NOT NULL,
  key          TEXT,
  blocks       INTEGER NOT NULL,
  state        TEXT    NOT NULL,
  attempts     INTEGER NOT NULL,
  due          INTEGER,
  reason       TEXT,
  failures     BLOB,
  actor        TEXT,
  updated      INTEGER NOT NULL,
  PRIMARY KEY (subscription, position)
) WITHOUT ROWID;
CREATE INDEX tidings_held_due ON tidings_held (subscription, due) WHERE state = 'retry';
CREATE INDEX tidings_held_key ON tidings_held (subscription, key, position) WHERE blocks = 1;
CREATE INDEX tidings_held_state ON tidings_held (state, subscription, position);

-- Not events yet: delayed publishes and time-outs. A cancelled one is gone.
CREATE TABLE tidings_scheduled (
  source   TEXT    NOT NULL,
  id       TEXT    NOT NULL,
  due      INTEGER NOT NULL,
  envelope BLOB    NOT NULL,
  PRIMARY KEY (id, source)
) WITHOUT ROWID;
CREATE INDEX tidings_scheduled_due ON tidings_scheduled (due);

-- What came from outside, or under an id that the caller chose. Time 0: the source has no stable time, and `arrived`
-- says when the first copy came.
CREATE TABLE tidings_admitted (
  time    INTEGER NOT NULL,
  source  TEXT    NOT NULL,
  id      TEXT    NOT NULL,
  arrived INTEGER,
  PRIMARY KEY (time, source, id)
) WITHOUT ROWID;
CREATE INDEX tidings_admitted_arrived ON tidings_admitted (arrived) WHERE time = 0;
