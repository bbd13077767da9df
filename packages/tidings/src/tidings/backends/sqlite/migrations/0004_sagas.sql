-- Sagas: the state of each, changed by comparing and setting its version.
CREATE TABLE tidings_saga (
  saga          TEXT    NOT NULL,
  id            TEXT    NOT NULL,
  status        TEXT    NOT NULL,
  version       INTEGER NOT NULL,
  state_version INTEGER NOT NULL,
  state         BLOB    NOT NULL,
  needs         TEXT    NOT NULL,
  timers        BLOB    NOT NULL,
  journal       BLOB    NOT NULL,
  reason        TEXT,
  started       INTEGER NOT NULL,
  updated       INTEGER NOT NULL,
  expires       INTEGER,
  PRIMARY KEY (saga, id)
);
CREATE INDEX tidings_saga_unfinished ON tidings_saga (saga, needs) WHERE expires IS NULL;
CREATE INDEX tidings_saga_expires ON tidings_saga (expires) WHERE expires IS NOT NULL;
