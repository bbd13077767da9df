-- Streams can be archived, and states kept. Times are microseconds since 1970 UTC.

ALTER TABLE tidings_stream ADD COLUMN archived INTEGER;
CREATE INDEX tidings_stream_archived ON tidings_stream (stream) WHERE archived IS NOT NULL;

-- What a decider's state was at a version of a stream. It can always be had again from the events.
CREATE TABLE tidings_snapshot (
  stream         TEXT    NOT NULL,
  decider        TEXT    NOT NULL,
  state_version  INTEGER NOT NULL,
  stream_version INTEGER NOT NULL,
  time           INTEGER NOT NULL,
  state          BLOB    NOT NULL,
  PRIMARY KEY (stream, decider)
);
