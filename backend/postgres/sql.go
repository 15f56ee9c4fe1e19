package postgres

import "strings"

// statements are the SQL of a Store, with its schema filled in. Parameters are
// cast wherever they stand, so that each statement means the same in every
// protocol mode of pgx, the simple one included.
type statements struct {
	get, exists          string
	getMany, scan        string
	insert, insertAll    string
	update, relabel      string
	remove               string
	listKind, listOwner  string
	listParent, listDue  string
	listLabel            string
	newestKind           string
	newestOwner          string
	newestParent         string
	newestLabel          string
	countKind            string
	countOwner           string
	countParent          string
	countDue, countLabel string
	addUsage, usage      string
	purge, trim          string
	poll                 string
	migrated, migrations string
}

const columns = "id, kind, owner, parent, created, expires, purge_at, version, body, labels"

func (o Options) statements() statements {
	page := func(from, filter, order string) string {
		return o.fill(`
SELECT * FROM (
  SELECT r.` + strings.ReplaceAll(columns, ", ", ", r.") + ` FROM ` + from + `
  WHERE ` + filter + `
  ORDER BY ` + order + ` LIMIT $2::int
) r ORDER BY ` + strings.ReplaceAll(order, "l.", "r.") + ` {primary}`)
	}
	const records, labelled = `{schema}.record r`, `{schema}.label l JOIN {schema}.record r ON r.id = l.id`
	list := func(filter string) string {
		return page(records, filter+` AND (r.created, r.id) > ($3::bigint, $4::bytea)`, `r.created, r.id`)
	}
	newest := func(filter string) string {
		return page(records, filter+` AND (r.created, r.id) < ($3::bigint, $4::bytea)`, `r.created DESC, r.id DESC`)
	}
	count := func(from, filter string) string {
		return o.fill(`SELECT count(*) FROM (SELECT FROM ` + from + ` WHERE ` + filter + ` LIMIT $2::int) c {primary}`)
	}
	const (
		ofKind   = `r.kind = $1::smallint`
		ofOwner  = `r.kind = $1::smallint AND r.owner = $5::bytea AND r.owner <> ''`
		ofParent = `r.kind = $1::smallint AND r.parent = $5::bytea`
		ofDue    = `r.kind = $1::smallint AND r.expires > 0 AND r.expires < $5::bigint`
		ofLabel  = `l.kind = $1::smallint AND l.label = $5::bytea`
	)
	by3 := func(filter string) string { return strings.ReplaceAll(filter, "$5", "$3") } // the place is not asked for
	return statements{
		get: o.fill(`SELECT ` + columns + ` FROM {schema}.record WHERE id = $1::bytea {primary}`),
		// In any order: a scan of all takes them as they lie.
		getMany: o.fill(`SELECT ` + columns + ` FROM {schema}.record WHERE id = ANY ($1::bytea[]) {primary}`),
		scan:    o.fill(`SELECT ` + columns + ` FROM {schema}.record WHERE kind = $1::smallint {primary}`),
		exists:  o.fill(`SELECT true FROM {schema}.record WHERE id = $1::bytea`),

		insert: o.fill(`
WITH turn AS MATERIALIZED (
  SELECT {turn}
), put AS (
  INSERT INTO {schema}.record (` + columns + `)
  SELECT $1::bytea, $2::smallint, $3::bytea, $4::bytea, $5::bigint, $6::bigint, $7::bigint, {version}, $8::bytea, $9::bytea[] FROM turn
  ON CONFLICT (id) DO NOTHING
  RETURNING id, version, kind, created, labels
), listed AS (
  INSERT INTO {schema}.label (kind, label, created, id) SELECT kind, pg_catalog.unnest(labels), created, id FROM put
), fed AS (
  INSERT INTO {schema}.change (version, id) SELECT version, id FROM put
)
SELECT version FROM put`),

		// The same of several records, an array for each column. All locks are taken
		// before the first number is drawn. No turn is waited for: whose it is not is left
		// out, and has no version. (A record that is there, and that a transaction is just
		// changing, is waited for, by ON CONFLICT.)
		insertAll: o.fill(`
WITH turns AS MATERIALIZED (
  SELECT u.id FROM pg_catalog.unnest($1::bytea[]) AS u (id) WHERE {tryturn:u}
), put AS (
  INSERT INTO {schema}.record (` + columns + `)
  SELECT id, kind, owner, parent, created, expires, purge_at, {version}, body,
    ARRAY(SELECT l.label FROM unnest($9::bytea[], $10::bytea[]) AS l (id, label) WHERE l.id = u.id ORDER BY l.label)
  FROM unnest($1::bytea[], $2::smallint[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[])
    AS u (id, kind, owner, parent, created, expires, purge_at, body)
  WHERE id = ANY (ARRAY(SELECT id FROM turns))
  ON CONFLICT (id) DO NOTHING
  RETURNING id, version, kind, created, labels
), listed AS (
  INSERT INTO {schema}.label (kind, label, created, id) SELECT kind, pg_catalog.unnest(labels), created, id FROM put
), fed AS (
  INSERT INTO {schema}.change (version, id) SELECT version, id FROM put
)
SELECT id, version FROM put
UNION ALL
SELECT u.id, 0 FROM pg_catalog.unnest($1::bytea[]) AS u (id) WHERE u.id <> ALL (ARRAY(SELECT id FROM turns))`),

		// The last SELECT tells why nothing was updated, from the same snapshot. Where only
		// the labels differ, that is for relabel.
		update: o.fill(`
WITH put AS (
  UPDATE {schema}.record SET expires = $6::bigint, purge_at = $7::bigint, body = $8::bytea, version = {version}
  WHERE id = $1::bytea AND version = $9::bigint
    AND kind = $2::smallint AND owner = $3::bytea AND parent IS NOT DISTINCT FROM $4::bytea AND created = $5::bigint AND labels = $10::bytea[]
  RETURNING id, version
), fed AS (
  INSERT INTO {schema}.change (version, id) SELECT version, id FROM put
)
SELECT version, true, true, true FROM put
UNION ALL
SELECT version, false,
  kind = $2::smallint AND owner = $3::bytea AND parent IS NOT DISTINCT FROM $4::bytea AND created = $5::bigint, labels = $10::bytea[]
FROM {schema}.record WHERE id = $1::bytea AND NOT EXISTS (SELECT FROM put)`),

		// An update of a record whose labels change. The old ones are those of the version that
		// is replaced, or nothing is.
		relabel: o.fill(`
WITH old AS MATERIALIZED (
  SELECT kind, created, id, labels FROM {schema}.record WHERE id = $1::bytea AND version = $9::bigint
), put AS (
  UPDATE {schema}.record SET expires = $6::bigint, purge_at = $7::bigint, body = $8::bytea, version = {version}, labels = $10::bytea[]
  WHERE id = $1::bytea AND version = $9::bigint
    AND kind = $2::smallint AND owner = $3::bytea AND parent IS NOT DISTINCT FROM $4::bytea AND created = $5::bigint
  RETURNING id, version
), unlisted AS (
  DELETE FROM {schema}.label l USING put, (SELECT kind, created, id, pg_catalog.unnest(labels) AS label FROM old) o
  WHERE l.kind = o.kind AND l.label = o.label AND l.created = o.created AND l.id = o.id AND o.label <> ALL ($10::bytea[])
), listed AS (
  INSERT INTO {schema}.label (kind, label, created, id)
  SELECT old.kind, n.label, old.created, old.id FROM put, old, pg_catalog.unnest($10::bytea[]) AS n (label) WHERE n.label <> ALL (old.labels)
), fed AS (
  INSERT INTO {schema}.change (version, id) SELECT version, id FROM put
)
SELECT version FROM put`),

		remove: o.fill(`
WITH turn AS MATERIALIZED (
  SELECT {turn}
), gone AS (
  DELETE FROM {schema}.record WHERE id = $1::bytea AND version = $2::bigint AND EXISTS (SELECT FROM turn)
  RETURNING id
), unused AS (
  DELETE FROM {schema}.usage WHERE id = ANY (ARRAY(SELECT id FROM gone))
), fed AS (
  INSERT INTO {schema}.change (version, id) SELECT {version}, id FROM gone
)
SELECT 0::bigint, true FROM gone
UNION ALL
SELECT version, false FROM {schema}.record WHERE id = $1::bytea AND NOT EXISTS (SELECT FROM gone)`),

		listKind:   list(ofKind),
		listOwner:  list(ofOwner),
		listParent: list(ofParent),
		listLabel:  page(labelled, ofLabel+` AND (l.created, l.id) > ($3::bigint, $4::bytea)`, `l.created, l.id`),
		listDue:    page(records, ofDue+` AND (r.expires, r.id) > ($3::bigint, $4::bytea)`, `r.expires, r.id`),

		newestKind:   newest(ofKind),
		newestOwner:  newest(ofOwner),
		newestParent: newest(ofParent),
		newestLabel:  page(labelled, ofLabel+` AND (l.created, l.id) < ($3::bigint, $4::bytea)`, `l.created DESC, l.id DESC`),

		countKind:   count(records, ofKind),
		countOwner:  count(records, by3(ofOwner)),
		countParent: count(records, by3(ofParent)),
		countLabel:  count(`{schema}.label l`, by3(ofLabel)),
		countDue:    count(records, by3(ofDue)),

		addUsage: o.fill(`
INSERT INTO {schema}.usage AS u (id, n, last)
SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[])
ON CONFLICT (id) DO UPDATE SET n = u.n + excluded.n, last = greatest(u.last, excluded.last)`),
		usage: o.fill(`SELECT id, n, last FROM {schema}.usage WHERE id = ANY ($1::bytea[]) {primary}`),

		// What is due is locked before it is deleted, so that a purge_at that moves is
		// seen; what another purge or a write has locked is left for the next time.
		// IS TRUE keeps the second look from a scan of the index by all that is due.
		purge: o.fill(`
WITH due AS MATERIALIZED (
  SELECT id FROM {schema}.record WHERE purge_at > 0 AND purge_at <= $1::bigint
  ORDER BY purge_at LIMIT $2::int FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM {schema}.record r WHERE r.id = ANY (ARRAY(SELECT id FROM due))
    AND (r.purge_at > 0 AND r.purge_at <= $1::bigint) IS TRUE AND {tryturn:r}
  RETURNING r.id
), unused AS (
  DELETE FROM {schema}.usage WHERE id = ANY (ARRAY(SELECT id FROM gone))
), fed AS (
  INSERT INTO {schema}.change (version, id) SELECT {version}, id FROM gone
)
SELECT count(*) FROM gone`),

		// Only what every running transaction is later than: a floor never passes a
		// transaction that may still commit. A row of the feed is never updated, so its
		// address is good for as long as the statement sees it. A floor above this
		// transaction is of the server that a dump came from: those set here are below
		// every transaction that was running then or began later.
		trim: o.fill(`
WITH oldest AS (
  SELECT ctid, at FROM {schema}.change
  WHERE txid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
  ORDER BY txid, version LIMIT $2::int
), gone AS (
  DELETE FROM {schema}.change
  WHERE ctid = ANY (ARRAY(SELECT ctid FROM oldest WHERE at < now() - pg_catalog.make_interval(secs => $1::double precision)))
  RETURNING txid
), raised AS (
  UPDATE {schema}.meta SET floor = greatest(
    CASE WHEN floor <= pg_current_xact_id()::text::bigint THEN floor END, (SELECT max(txid) + 1 FROM gone))
  WHERE EXISTS (SELECT FROM gone)
)
SELECT count(*) FROM gone`),

		// One statement, so one snapshot: what it finds and what it says of itself
		// belong together. First the transactions that were running at the snapshot
		// before, then those since. The upper end leaves out rows that a restore has
		// brought from a server that was further on. The second part has no other lower
		// bound than the pair: with two an index scan may begin at the lesser one.
		poll: `
SELECT pg_current_snapshot()::text, m.floor, pg_catalog.concat_ws('/', m.instance, {change}, {identity}), {log}, page.txids, page.versions, page.ids
FROM {schema}.meta m CROSS JOIN LATERAL (
  SELECT pg_catalog.array_agg(txid ORDER BY txid, version) AS txids, pg_catalog.array_agg(version ORDER BY txid, version) AS versions,
    pg_catalog.array_agg(id ORDER BY txid, version) AS ids
  FROM (
    (SELECT txid, version, id FROM {schema}.change
     WHERE txid = ANY ($1::bigint[]) AND (txid, version) > ($2::bigint, $3::bigint) ORDER BY txid, version LIMIT $6::int)
    UNION ALL
    (SELECT txid, version, id FROM {schema}.change
     WHERE (txid, version) > ($4::bigint, $5::bigint) AND txid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
     ORDER BY txid, version LIMIT $6::int)
    ORDER BY txid, version LIMIT $6::int
  ) fresh
) page {primary}`,

		migrated: o.fill(`
SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), to_regclass(` + sqlLiteral(quotedName(o.Schema)+".migration") + `) IS NOT NULL,
  current_setting('synchronous_commit'), current_setting('fsync'), current_setting('default_transaction_isolation'), decode('00', 'hex')`),
		migrations: o.fill(`SELECT coalesce(max(number), 0) FROM {schema}.migration`),
	}
}

// logs say how far the log has come: with what has been written, which includes
// the end of each transaction that has ended in the statement's snapshot, and on
// disk. Where the server has no such numbers, all that has ended is taken to be.
var logs = []string{
	`(pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint`,
	`0::bigint, 0::bigint`,
}

// identities say on which history a statement ran: the cluster, its timeline,
// which a failover moves, and the database. The first that the server, and the
// role, allow is used; a service may forbid some of it.
var identities = []string{
	`(SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8), (SELECT oid FROM pg_database WHERE datname = current_database())`,
	`(SELECT system_identifier FROM pg_control_system()), (SELECT timeline_id FROM pg_control_checkpoint()), (SELECT oid FROM pg_database WHERE datname = current_database())`,
	`(SELECT oid FROM pg_database WHERE datname = current_database())`,
}
