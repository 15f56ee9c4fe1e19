-- The labels of a record, in ascending order, and a row for each in the order of its list.
-- The default is for the rows that are there. A program that knows only migration 1, and was
-- running then, can read, revoke and delete. It cannot make records, which would have no
-- labels: the name of the constraint is what it is told.
ALTER TABLE {schema}.record ADD COLUMN labels bytea[] DEFAULT '{}';
ALTER TABLE {schema}.record ALTER COLUMN labels DROP DEFAULT;
ALTER TABLE {schema}.record ADD CONSTRAINT "the tables are of migration 2, this program knows 1" CHECK (labels IS NOT NULL) NOT VALID;

CREATE TABLE {schema}.label (
  kind    smallint NOT NULL,
  label   bytea    NOT NULL,
  created bigint   NOT NULL,
  id      bytea    NOT NULL,
  PRIMARY KEY (kind, label, created, id)
);

-- Whoever deletes records takes them out of their lists, that program too.
CREATE FUNCTION {schema}.unlist() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM gone WHERE labels <> '{}') THEN
    EXECUTE pg_catalog.format('DELETE FROM %I.label l USING (SELECT kind, created, id, pg_catalog.unnest(labels) AS label FROM gone) g
      WHERE l.kind = g.kind AND l.label = g.label AND l.created = g.created AND l.id = g.id', TG_TABLE_SCHEMA);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER unlist AFTER DELETE ON {schema}.record REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION {schema}.unlist();

INSERT INTO {schema}.migration (number) VALUES (2);
