-- Versions of projections. Each has tables and a subscription of its own; queries read the live one.
CREATE TABLE tidings_projection (
  name         TEXT    NOT NULL,
  version      INTEGER NOT NULL,
  service      TEXT    NOT NULL,
  subscription TEXT    NOT NULL UNIQUE,
  tables       TEXT    NOT NULL,
  inline       INTEGER NOT NULL,
  live         INTEGER NOT NULL,
  PRIMARY KEY (name, version)
) WITHOUT ROWID;
CREATE UNIQUE INDEX tidings_projection_live ON tidings_projection (name) WHERE live = 1;

-- What an inline projection has handled in the transaction that published it, until its lane has passed it.
CREATE TABLE tidings_inlined (
  subscription TEXT NOT NULL,
  id           TEXT NOT NULL,
  source       TEXT NOT NULL,
  PRIMARY KEY (subscription, id, source)
) WITHOUT ROWID;
