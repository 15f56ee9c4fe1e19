-- The labels of a record, in ascending order, and a row for each in the order of its list.
-- The default is for the rows that are there: a program that knows only migration 1 and was
-- running then cannot make records without labels. It can revoke, and read.
ALTER TABLE {schema}.record ADD COLUMN labels bytea[] NOT NULL DEFAULT '{}';
ALTER TABLE {schema}.record ALTER COLUMN labels DROP DEFAULT;

CREATE TABLE {schema}.label (
  kind    smallint NOT NULL,
  label   bytea    NOT NULL,
  created bigint   NOT NULL,
  id      bytea    NOT NULL,
  PRIMARY KEY (kind, label, created, id)
);

INSERT INTO {schema}.migration (number) VALUES (2);
