-- The labels of a record: each with its length before it (uvarint), in ascending order;
-- NULL in a row from before. The table has a row for each, in the order of its list.
ALTER TABLE fob_record ADD COLUMN labels BLOB;

CREATE TABLE fob_label (
  kind    INTEGER NOT NULL,
  label   BLOB    NOT NULL,
  created INTEGER NOT NULL,
  id      BLOB    NOT NULL,
  PRIMARY KEY (kind, label, created, id)
) STRICT, WITHOUT ROWID;

-- A program that knows only version 1 of the tables, and was running when they were brought
-- to version 2, can read, and it can revoke. It cannot make records, which would have no
-- labels, nor delete those that have some, which would stay in their lists.
CREATE TRIGGER fob_record_labels BEFORE INSERT ON fob_record WHEN NEW.labels IS NULL
BEGIN
  SELECT RAISE(ABORT, 'the tables have version 2, this program knows 1');
END;
CREATE TRIGGER fob_record_listed BEFORE DELETE ON fob_record WHEN length(OLD.labels) > 0
BEGIN
  SELECT RAISE(ABORT, 'the tables have version 2, this program knows 1');
END;
