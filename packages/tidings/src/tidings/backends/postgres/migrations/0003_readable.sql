-- What jsonb does not take (a NUL, a number out of its range) is shown as text: one event must not hide all others.
CREATE FUNCTION tidings.readable(data bytea) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  content text;
BEGIN
  content := convert_from(data, 'UTF8');
  RETURN content::jsonb;
EXCEPTION WHEN others THEN
  RETURN to_jsonb(content);
END $$;

CREATE OR REPLACE VIEW tidings.events AS
  SELECT position, id, source, type, version, to_timestamp(time / 1e6) AS time, key, correlation, causation, keep,
         tidings.readable(data) AS data
    FROM tidings.log;
