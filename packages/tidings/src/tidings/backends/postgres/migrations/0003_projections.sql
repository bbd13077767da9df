-- Versions of projections. Each has tables and a subscription of its own; queries read the live one.
CREATE TABLE tidings.projection (
  name         text    NOT NULL,
  version      integer NOT NULL,
  service      text    NOT NULL,
  subscription text    NOT NULL UNIQUE,
  tables       text[]  NOT NULL,
  inline       boolean NOT NULL,
  live         boolean NOT NULL,
  PRIMARY KEY (name, version)
);
CREATE UNIQUE INDEX projection_live ON tidings.projection (name) WHERE live;

-- What an inline projection has handled in the transaction that published it, until its lane has passed it.
CREATE TABLE tidings.inlined (
  subscription text NOT NULL,
  id           text NOT NULL,
  source       text NOT NULL,
  PRIMARY KEY (subscription, id, source)
);
