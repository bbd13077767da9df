-- The log and everything that hangs on it, in a schema of its own. Times are microseconds since 1970 UTC.

-- IF NOT EXISTS would ask for the right to make schemas, also where an administrator has made this one.
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'tidings') THEN CREATE SCHEMA tidings; END IF;
END $$;

CREATE TABLE tidings.meta (
  name  text PRIMARY KEY,
  value text NOT NULL
);

-- One sequence over all partitions. CACHE 1: a cached sequence hands out positions that the fence cannot see.
CREATE SEQUENCE tidings.log_position AS bigint CACHE 1;

-- Every event, once, in global order; never updated. Partitioned by retention class, then by position.
-- Insert into this table only: an insert into a leaf takes no lock here, and the fence would not see it.
CREATE TABLE tidings.log (
  position       bigint   NOT NULL DEFAULT nextval('tidings.log_position'),
  lane           smallint NOT NULL,
  type           text     NOT NULL,
  version        text     NOT NULL,
  id             text     NOT NULL,
  source         text     NOT NULL,
  time           bigint   NOT NULL,
  subject        text,
  key            text,
  share          text,
  correlation    text     NOT NULL,
  causation      text,
  traceparent    text,
  tracestate     text,
  supersedes     text,
  keep           text     NOT NULL,
  extensions     bytea,
  data           bytea    NOT NULL,
  stream         text,
  stream_version bigint
) PARTITION BY LIST (keep);
CREATE INDEX log_by_position ON tidings.log (position);
CREATE INDEX log_id ON tidings.log (id);
CREATE INDEX log_correlation ON tidings.log (correlation) WHERE causation IS NOT NULL;
CREATE INDEX log_stream ON tidings.log (stream, stream_version) WHERE stream IS NOT NULL;
CREATE TABLE tidings.log_forever PARTITION OF tidings.log FOR VALUES IN ('forever');
-- Classes that have no partition of their own (yet); what is too old there is deleted, not dropped.
CREATE TABLE tidings.log_other PARTITION OF tidings.log DEFAULT;

-- Payloads are bytes, because that is 1.6 times faster to append and 2.4 times to replay; people read them here.
CREATE VIEW tidings.events AS
  SELECT position, id, source, type, version, to_timestamp(time / 1e6) AS time, key, correlation, causation, keep,
         convert_from(data, 'UTF8')::jsonb AS data
    FROM tidings.log;

-- Entity -> version: the expected-version check.
CREATE TABLE tidings.stream (
  stream  text   PRIMARY KEY,
  version bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE tidings.subscription (
  name           text    PRIMARY KEY,
  service        text    NOT NULL,
  kind           text    NOT NULL,
  ordered        boolean NOT NULL,
  types          text[]  NOT NULL,
  start          bigint  NOT NULL,
  version        integer NOT NULL DEFAULT 1,
  paused_by      text,
  paused_because text
);

-- Which process is alive; leases hang on it. Expiry is by this database's clock.
CREATE TABLE tidings.worker (
  id      text    PRIMARY KEY,
  service text    NOT NULL,
  host    text    NOT NULL,
  pid     integer NOT NULL,
  started bigint  NOT NULL,
  expires bigint  NOT NULL,
  roles   text[]  NOT NULL
) WITH (fillfactor = 50);

-- A chain: inserting the next step is the fence. Rows are only added, and old ones deleted in chunks: updated rows
-- bloat under an old snapshot to a third of their rate within a minute.
CREATE TABLE tidings.progress (
  subscription text     NOT NULL,
  lane         smallint NOT NULL,
  step         bigint   NOT NULL,
  position     bigint   NOT NULL,
  owner        text,
  PRIMARY KEY (subscription, lane, step)
) WITH (vacuum_truncate = false);
-- Some pages from the start, which stay: of a table of one page the planner would read everything, and a process keeps
-- to its plans while the table grows.
INSERT INTO tidings.progress SELECT '', 0, n, 0, NULL FROM generate_series(1, 1500) AS n;
DELETE FROM tidings.progress;

-- Work waiting (no owner) or running.
CREATE TABLE tidings.ready (
  subscription text     NOT NULL,
  share        text     NOT NULL,
  position     bigint   NOT NULL,
  lane         smallint NOT NULL,
  key          text,
  attempt      integer  NOT NULL,
  owner        text,
  failures     bytea,
  since        bigint,
  PRIMARY KEY (subscription, share, position)
) WITH (fillfactor = 50);
CREATE INDEX ready_key ON tidings.ready (subscription, key) WHERE key IS NOT NULL;
CREATE INDEX ready_owner ON tidings.ready (subscription, owner) WHERE owner IS NOT NULL;
CREATE INDEX ready_position ON tidings.ready (position);

-- The exceptions: retry | behind | parked | dead | discarded.
CREATE TABLE tidings.held (
  subscription text     NOT NULL,
  position     bigint   NOT NULL,
  lane         smallint NOT NULL,
  key          text,
  blocks       boolean  NOT NULL,
  state        text     NOT NULL,
  attempts     integer  NOT NULL,
  due          bigint,
  reason       text,
  failures     bytea,
  actor        text,
  updated      bigint   NOT NULL,
  PRIMARY KEY (subscription, position)
);
CREATE INDEX held_due ON tidings.held (subscription, due) WHERE state = 'retry';
CREATE INDEX held_key ON tidings.held (subscription, key, position) WHERE blocks;
CREATE INDEX held_state ON tidings.held (state, subscription, position);
CREATE INDEX held_position ON tidings.held (position);

-- Not events yet: delayed publishes and time-outs. A cancelled one is gone.
CREATE TABLE tidings.scheduled (
  source   text   NOT NULL,
  id       text   NOT NULL,
  due      bigint NOT NULL,
  envelope bytea  NOT NULL,
  PRIMARY KEY (id, source)
);
CREATE INDEX scheduled_due ON tidings.scheduled (due);

-- What came from outside, or under an id that the caller chose. Time 0: the source has no stable time, and `arrived`
-- says when the first copy came.
CREATE TABLE tidings.admitted (
  time    bigint NOT NULL,
  source  text   NOT NULL,
  id      text   NOT NULL,
  arrived bigint,
  PRIMARY KEY (time, source, id)
) PARTITION BY RANGE (time);
CREATE TABLE tidings.admitted_undated PARTITION OF tidings.admitted FOR VALUES FROM (MINVALUE) TO (1);
CREATE INDEX admitted_arrived ON tidings.admitted_undated (arrived);
CREATE TABLE tidings.admitted_other PARTITION OF tidings.admitted DEFAULT;
