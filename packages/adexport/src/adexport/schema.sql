-- What Ad Export keeps beside its events: designs, feeds, assets, and the files of each export with its timeline. Times
-- are microseconds since 1970 UTC.
-- One text for both stores. To SQLite the names of types say only "number", "text" or "as it is" (BYTEA). What pages and
-- cleaning go by is an order of its own in the table: CREATE INDEX would wait for every writer, also where it is there.
CREATE TABLE IF NOT EXISTS adexport_store (
  only_row BIGINT PRIMARY KEY, id TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS adexport_design (
  name TEXT PRIMARY KEY, title TEXT NOT NULL, document BYTEA NOT NULL, digest TEXT NOT NULL, created_us BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS adexport_feed (
  id TEXT PRIMARY KEY, filename TEXT NOT NULL, columns TEXT NOT NULL, row_count BIGINT NOT NULL,
  bytes BIGINT NOT NULL, created_us BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS adexport_asset (
  digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, width BIGINT NOT NULL, height BIGINT NOT NULL,
  bytes BIGINT NOT NULL, created_us BIGINT NOT NULL
);
-- Exports of releases before they had streams, until these are adopted; those since are in a projection.
CREATE TABLE IF NOT EXISTS adexport_export (
  id TEXT PRIMARY KEY, title TEXT NOT NULL, design TEXT NOT NULL, design_title TEXT NOT NULL,
  snapshot TEXT NOT NULL, networks TEXT NOT NULL, sizes TEXT NOT NULL, formats TEXT NOT NULL, row_count BIGINT NOT NULL,
  state TEXT NOT NULL, round BIGINT NOT NULL, total BIGINT NOT NULL, done BIGINT NOT NULL DEFAULT 0,
  failed BIGINT NOT NULL DEFAULT 0, bytes BIGINT NOT NULL DEFAULT 0, estimate_seconds DOUBLE PRECISION NOT NULL,
  created_us BIGINT NOT NULL, started_us BIGINT NOT NULL, finished_us BIGINT, deadline_us BIGINT NOT NULL,
  failure TEXT, version BIGINT NOT NULL DEFAULT 0,
  UNIQUE (created_us, id)
);
CREATE TABLE IF NOT EXISTS adexport_cell (
  export_id TEXT NOT NULL, position BIGINT NOT NULL, key TEXT NOT NULL, feed_row BIGINT NOT NULL,
  row_label TEXT NOT NULL, width BIGINT NOT NULL, height BIGINT NOT NULL, format TEXT NOT NULL, wanted_quality BIGINT,
  network TEXT NOT NULL, placement TEXT NOT NULL, limit_bytes BIGINT, name TEXT NOT NULL,
  state TEXT NOT NULL, round BIGINT NOT NULL, verdict TEXT, bytes BIGINT, sha256 TEXT, quality TEXT,
  seconds DOUBLE PRECISION, cause TEXT, reason TEXT,
  PRIMARY KEY (export_id, position)
);
CREATE TABLE IF NOT EXISTS adexport_progress (
  export_id TEXT NOT NULL, sequence BIGINT NOT NULL, at_us BIGINT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
  event_id TEXT, detail TEXT NOT NULL,
  PRIMARY KEY (export_id, sequence)
);
CREATE TABLE IF NOT EXISTS adexport_render (
  key TEXT PRIMARY KEY, sha256 TEXT NOT NULL, bytes BIGINT NOT NULL, quality TEXT NOT NULL,
  created_us BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS adexport_idempotency (
  key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, export_id TEXT NOT NULL, body BYTEA NOT NULL,
  created_us BIGINT NOT NULL,
  UNIQUE (created_us, key)
);
CREATE TABLE IF NOT EXISTS adexport_waiting (
  digest TEXT PRIMARY KEY, content BYTEA NOT NULL
);
