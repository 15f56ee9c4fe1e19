CREATE TABLE {schema}.migration (
  number integer PRIMARY KEY,
  at     timestamptz NOT NULL DEFAULT now()
);

-- One row. instance tells this store from a copy of it; the feed has lost, or may
-- have lost, what transactions before floor did.
CREATE TABLE {schema}.meta (
  one      boolean PRIMARY KEY DEFAULT true CHECK (one),
  instance uuid   NOT NULL DEFAULT gen_random_uuid(),
  floor    bigint NOT NULL DEFAULT 0
);
INSERT INTO {schema}.meta DEFAULT VALUES;

-- One sequence for all records, so that versions rise even across a delete. It
-- must not cache: sessions would draw from ranges of their own.
CREATE SEQUENCE {schema}.version AS bigint CACHE 1;

-- Times are Unix milliseconds, 0 for none. An owner is bytes, not text.
CREATE TABLE {schema}.record (
  id       bytea    PRIMARY KEY CHECK (octet_length(id) = 16),
  kind     smallint NOT NULL CHECK (kind BETWEEN 1 AND 255),
  owner    bytea    NOT NULL,
  parent   bytea    CHECK (octet_length(parent) = 16),
  created  bigint   NOT NULL,
  expires  bigint   NOT NULL,
  purge_at bigint   NOT NULL,
  version  bigint   NOT NULL CHECK (version > 0),
  body     bytea    NOT NULL
);
CREATE INDEX record_kind    ON {schema}.record (kind, created, id);
CREATE INDEX record_owner   ON {schema}.record (kind, owner, created, id) WHERE owner <> '';
CREATE INDEX record_parent  ON {schema}.record (kind, parent, created, id) WHERE parent IS NOT NULL;
CREATE INDEX record_expires ON {schema}.record (kind, expires, id) WHERE expires > 0;
CREATE INDEX record_purge   ON {schema}.record (purge_at) WHERE purge_at > 0;

-- The feed: one row for each change, written by the statement that makes it.
CREATE TABLE {schema}.change (
  txid    bigint      NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
  version bigint      NOT NULL,
  id      bytea       NOT NULL,
  at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (txid, version)
);

-- Counters change often: room on each page keeps that out of the index.
CREATE TABLE {schema}.usage (
  id   bytea  PRIMARY KEY,
  n    bigint NOT NULL,
  last bigint NOT NULL
) WITH (fillfactor = 70);

INSERT INTO {schema}.migration (number) VALUES (1);
