-- Names and columns are those of the other SQL store where the engines agree.
-- Times are Unix milliseconds. A parent or an expiry that is not set is NULL: a
-- partial index leaves it out, and a continued list still begins where it says, not
-- at a bound like expires > 0.

CREATE TABLE fob_record (
  id       BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  kind     INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 255),
  owner    BLOB    NOT NULL,
  parent   BLOB    CHECK (length(parent) = 16),
  created  INTEGER NOT NULL,
  expires  INTEGER CHECK (expires > 0),
  purge_at INTEGER NOT NULL,
  version  INTEGER NOT NULL CHECK (version > 0),
  body     BLOB    NOT NULL
) STRICT;

-- One index for each list, in the order of the list: a page is a range of it.
CREATE INDEX fob_record_kind    ON fob_record (kind, created, id);
CREATE INDEX fob_record_owner   ON fob_record (kind, owner, created, id);
CREATE INDEX fob_record_parent  ON fob_record (kind, parent, created, id) WHERE parent IS NOT NULL;
CREATE INDEX fob_record_expires ON fob_record (kind, expires, id) WHERE expires IS NOT NULL;
CREATE INDEX fob_record_purge   ON fob_record (purge_at) WHERE purge_at > 0;

-- The feed. seq is the version that the change gave to the record. AUTOINCREMENT
-- keeps the highest one ever used outside the table, so that versions rise even
-- where somebody has emptied it. nonce is random and the same for all changes of
-- one transaction: a place in the feed is (seq, nonce), which no other history has.
CREATE TABLE fob_change (
  seq   INTEGER PRIMARY KEY AUTOINCREMENT,
  id    BLOB    NOT NULL CHECK (length(id) = 16),
  nonce INTEGER NOT NULL
) STRICT;

-- The first place in the feed, so that there always is one; it is no change.
INSERT INTO fob_change (id, nonce) VALUES (zeroblob(16), random());

CREATE TABLE fob_usage (
  id   BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
  n    INTEGER NOT NULL,
  last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
