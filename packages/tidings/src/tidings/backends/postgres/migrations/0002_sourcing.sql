-- Streams can be archived, and states kept. Times are microseconds since 1970 UTC.

ALTER TABLE tidings.stream ADD COLUMN archived bigint;
CREATE INDEX stream_archived ON tidings.stream (stream) WHERE archived IS NOT NULL;

-- What a decider's state was at a version of a stream. It can always be had again from the events.
CREATE TABLE tidings.snapshot (
  stream         text    NOT NULL,
  decider        text    NOT NULL,
  state_version  integer NOT NULL,
  stream_version bigint  NOT NULL,
  time           bigint  NOT NULL,
  state          bytea   NOT NULL,
  PRIMARY KEY (stream, decider)
) WITH (fillfactor = 70);

-- Moves a stream's head on by $3, if it is at version $2 (0: not there yet; NULL: any) and not archived: the version
-- then, or NULL. Inserted and updated apart: an upsert would accept "expected 5" on a stream that is not there.
CREATE FUNCTION tidings.move_head(text, bigint, bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  moved bigint;
BEGIN
  IF $2 = 0 THEN
    INSERT INTO tidings.stream AS s (stream, version) VALUES ($1, $3) ON CONFLICT DO NOTHING RETURNING s.version INTO moved;
  ELSIF $2 > 0 THEN
    UPDATE tidings.stream s SET version = s.version + $3
     WHERE s.stream = $1 AND s.version = $2 AND s.archived IS NULL RETURNING s.version INTO moved;
  ELSE
    INSERT INTO tidings.stream AS s (stream, version) VALUES ($1, $3) ON CONFLICT (stream)
      DO UPDATE SET version = s.version + excluded.version WHERE s.archived IS NULL RETURNING s.version INTO moved;
  END IF;
  RETURN moved;
END $$;

-- Appends to several streams in one round trip: $1 the streams, each once and sorted, $2 what is expected of each, $3 how
-- many events come. Of each event: $4 its stream's place in $1, $5 its place among its stream's, then the log's columns.
-- Returns for each stream its version; NULL if it was another. The log is written last, and locked only then: its readers
-- wait for whoever has it locked. A stream that another transaction has for long fails all: nobody shall wait for another's.
CREATE FUNCTION tidings.append_to_streams(
  text[], bigint[], bigint[], integer[], bigint[], smallint[],
  text[], text[], text[], text[], bigint[], text[], text[], text[], text[], text[], text[], text[], text[], text[],
  bytea[], bytea[]
) RETURNS bigint[] LANGUAGE plpgsql SET lock_timeout = '20ms' AS $$
DECLARE
  heads bigint[] := '{}';
BEGIN
  FOR n IN 1 .. cardinality($1) LOOP
    heads := heads || tidings.move_head($1[n], $2[n], $3[n]);
  END LOOP;
  INSERT INTO tidings.log (lane, type, version, id, source, time, subject, key, share, correlation, causation,
                           traceparent, tracestate, supersedes, keep, extensions, data, stream, stream_version)
  SELECT e.lane, e.type, e.version, e.id, e.source, e.time, e.subject, e.key, e.share, e.correlation, e.causation,
         e.traceparent, e.tracestate, e.supersedes, e.keep, e.extensions, e.data,
         $1[e.stream], heads[e.stream] - $3[e.stream] + e.nth
    FROM unnest($4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
         WITH ORDINALITY AS e(stream, nth, lane, type, version, id, source, time, subject, key, share, correlation,
                              causation, traceparent, tracestate, supersedes, keep, extensions, data, ordinal)
   WHERE heads[e.stream] IS NOT NULL
   ORDER BY e.ordinal;
  RETURN heads;
END $$;

-- The same for a single event, in half the time: $1 its stream, $2 what is expected of it, then the log's columns.
CREATE FUNCTION tidings.append_event(
  text, bigint, smallint, text, text, text, text, bigint, text, text, text, text, text, text, text, text, text,
  bytea, bytea
) RETURNS bigint LANGUAGE plpgsql SET lock_timeout = '20ms' AS $$
DECLARE
  head bigint := tidings.move_head($1, $2, 1);
BEGIN
  IF head IS NOT NULL THEN
    INSERT INTO tidings.log (lane, type, version, id, source, time, subject, key, share, correlation, causation,
                             traceparent, tracestate, supersedes, keep, extensions, data, stream, stream_version)
    VALUES ($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $1, head);
  END IF;
  RETURN head;
END $$;
