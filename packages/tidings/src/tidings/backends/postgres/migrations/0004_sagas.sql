-- Sagas: the state of each, changed by comparing and setting its version. Room is left on every page for the next one.
CREATE TABLE tidings.saga (
  saga          text    NOT NULL,
  id            text    NOT NULL,
  status        text    NOT NULL,
  version       bigint  NOT NULL,
  state_version integer NOT NULL,
  state         bytea   NOT NULL,
  needs         text    NOT NULL,
  timers        bytea   NOT NULL,
  journal       bytea   NOT NULL,
  reason        text,
  started       bigint  NOT NULL,
  updated       bigint  NOT NULL,
  expires       bigint,
  PRIMARY KEY (saga, id)
) WITH (fillfactor = 50);
CREATE INDEX saga_expires ON tidings.saga (expires) WHERE expires IS NOT NULL;
