-- What Ad Export keeps: designs, feeds, assets, and the read model of exports. Times are microseconds since 1970 UTC.
CREATE TABLE IF NOT EXISTS adexport_design (
  name TEXT PRIMARY KEY, title TEXT NOT NULL, document BLOB NOT NULL, digest TEXT NOT NULL, created_us INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS adexport_feed (
  id TEXT PRIMARY KEY, filename TEXT NOT NULL, columns TEXT NOT NULL, row_count INTEGER NOT NULL,
  bytes INTEGER NOT NULL, created_us INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS adexport_asset (
  digest TEXT PRIMARY KEY, media_type TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
  bytes INTEGER NOT NULL, created_us INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS adexport_export (
  id TEXT PRIMARY KEY, title TEXT NOT NULL, design TEXT NOT NULL, design_title TEXT NOT NULL,
  snapshot TEXT NOT NULL, networks TEXT NOT NULL, sizes TEXT NOT NULL, formats TEXT NOT NULL, row_count INTEGER NOT NULL,
  state TEXT NOT NULL, round INTEGER NOT NULL, total INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, estimate_seconds REAL NOT NULL,
  created_us INTEGER NOT NULL, started_us INTEGER NOT NULL, finished_us INTEGER, deadline_us INTEGER NOT NULL,
  failure TEXT, version INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS adexport_export_newest ON adexport_export (created_us, id);
CREATE TABLE IF NOT EXISTS adexport_cell (
  export_id TEXT NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL, feed_row INTEGER NOT NULL,
  row_label TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, format TEXT NOT NULL, wanted_quality INTEGER,
  network TEXT NOT NULL, placement TEXT NOT NULL, limit_bytes INTEGER, name TEXT NOT NULL,
  state TEXT NOT NULL, round INTEGER NOT NULL, verdict TEXT, bytes INTEGER, sha256 TEXT, quality TEXT,
  seconds REAL, cause TEXT, reason TEXT,
  PRIMARY KEY (export_id, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS adexport_progress (
  export_id TEXT NOT NULL, sequence INTEGER NOT NULL, at_us INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
  event_id TEXT, detail TEXT NOT NULL,
  PRIMARY KEY (export_id, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS adexport_render (
  key TEXT PRIMARY KEY, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, quality TEXT NOT NULL,
  created_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS adexport_idempotency (
  key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, export_id TEXT NOT NULL, body BLOB NOT NULL,
  created_us INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS adexport_idempotency_oldest ON adexport_idempotency (created_us);
