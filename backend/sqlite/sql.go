package sqlite

// Every statement that runs on records, changes and usage. They are written with
// $n parameters, standard operators and upserts, as PostgreSQL takes them too;
// what only SQLite understands says so.
const (
	columns  = `id, kind, owner, parent, created, expires, purge_at, version, body, labels`
	selected = `r.id, r.kind, r.owner, r.parent, r.created, coalesce(r.expires, 0), r.purge_at, r.version, r.body, r.labels`

	sqlGet = `SELECT ` + selected + ` FROM fob_record r WHERE id = $1`
	// The IDs are one blob, 16 bytes each, so that there is one statement for any number of
	// them. A CROSS JOIN is made in the order in which it is written.
	sqlGetMany = `WITH RECURSIVE asked(at) AS (SELECT 1 UNION ALL SELECT at + 16 FROM asked LIMIT $2)
SELECT ` + selected + ` FROM asked CROSS JOIN fob_record r WHERE r.id = substr($1, at, 16)`

	// A list is a range of one index, continued after (created, id) or (expires, id); with the
	// newest first, before them.
	sqlKind          = `FROM fob_record r WHERE r.kind = $1`
	sqlOwner         = `FROM fob_record r WHERE r.kind = $1 AND r.owner = $5`
	sqlParent        = `FROM fob_record r WHERE r.kind = $1 AND r.parent = $5`
	sqlLabel         = `FROM fob_label l CROSS JOIN fob_record r ON r.id = l.id WHERE l.kind = $1 AND l.label = $5`
	sqlExpires       = `FROM fob_record r WHERE r.kind = $1 AND r.expires < $5`
	sqlAfter         = ` AND (r.created, r.id) > ($2, $3) ORDER BY r.created, r.id LIMIT $4`
	sqlBefore        = ` AND (r.created, r.id) < ($2, $3) ORDER BY r.created DESC, r.id DESC LIMIT $4`
	sqlAfterLabel    = ` AND (l.created, l.id) > ($2, $3) ORDER BY l.created, l.id LIMIT $4`
	sqlBeforeLabel   = ` AND (l.created, l.id) < ($2, $3) ORDER BY l.created DESC, l.id DESC LIMIT $4`
	sqlAfterExpires  = ` AND (r.expires, r.id) > ($2, $3) ORDER BY r.expires, r.id LIMIT $4`
	sqlListKind      = `SELECT ` + selected + ` ` + sqlKind + sqlAfter
	sqlCountedLabels = `FROM fob_label l WHERE l.kind = $1 AND l.label = $5`

	sqlInsert = `INSERT INTO fob_record (` + columns + `) VALUES ($1, $2, $3, $4, $5, nullif($6, 0), $7, $8, $9, $10)
ON CONFLICT (id) DO NOTHING`
	// What may not change is part of the condition, so that a Put is one statement
	// where it succeeds.
	sqlUpdate = `UPDATE fob_record SET expires = nullif($6, 0), purge_at = $7, version = $8, body = $9
WHERE id = $1 AND version = $11 AND kind = $2 AND owner = $3 AND parent IS NOT DISTINCT FROM $4 AND created = $5 AND coalesce(labels, x'') = $10`
	// Where the labels differ, it is three statements, and two for each label that does.
	sqlLabels       = `SELECT coalesce(labels, x'') FROM fob_record WHERE id = $1 AND version = $2`
	sqlUpdateLabels = `UPDATE fob_record SET expires = nullif($6, 0), purge_at = $7, version = $8, body = $9, labels = $10
WHERE id = $1 AND version = $11 AND kind = $2 AND owner = $3 AND parent IS NOT DISTINCT FROM $4 AND created = $5`
	sqlInsertLabel = `INSERT INTO fob_label (kind, label, created, id) VALUES ($1, $2, $3, $4)`
	sqlDeleteLabel = `DELETE FROM fob_label WHERE kind = $1 AND label = $2 AND created = $3 AND id = $4`
	// A record that has labels is taken out of its lists first, and has none when it goes: a
	// trigger refuses to delete it otherwise.
	sqlDelete       = `DELETE FROM fob_record WHERE id = $1 AND version = $2 AND coalesce(length(labels), 0) = 0`
	sqlListed       = `SELECT kind, created, labels FROM fob_record WHERE id = $1 AND version = $2 AND length(labels) > 0`
	sqlUnlabel      = `UPDATE fob_record SET labels = x'' WHERE id = $1`
	sqlVersion      = `SELECT version FROM fob_record WHERE id = $1`
	sqlDue          = `SELECT id, version FROM fob_record WHERE purge_at > 0 AND purge_at <= $1 ORDER BY purge_at LIMIT $2`
	sqlInsertChange = `INSERT INTO fob_change (seq, id, nonce) VALUES ($1, $2, $3)`
	sqlTrimChanges  = `DELETE FROM fob_change WHERE seq <= $1`
	sqlChanges      = `SELECT seq, id, nonce FROM fob_change WHERE seq >= $1 ORDER BY seq LIMIT $2`
	sqlNewest       = `SELECT seq, nonce FROM fob_change ORDER BY seq DESC LIMIT 1`
	sqlUsage        = `SELECT n, last FROM fob_usage WHERE id = $1`
	sqlDeleteUsage  = `DELETE FROM fob_usage WHERE id = $1`
	// SQLite only: min and max of two values. N stops at the largest integer there is,
	// where a sum would become a floating-point number.
	sqlAddUsage = `INSERT INTO fob_usage (id, n, last) VALUES ($1, $2, max($3, 0))
ON CONFLICT (id) DO UPDATE SET n = min(fob_usage.n, 9223372036854775807 - excluded.n) + excluded.n,
  last = max(fob_usage.last, excluded.last)`
	// SQLite only: where AUTOINCREMENT keeps the highest seq ever used.
	sqlHead = `SELECT seq FROM sqlite_sequence WHERE name = 'fob_change'`
	// SQLite only: the lock is taken at the start, so that nothing read in the
	// transaction can be overtaken, and waiting for it is the only waiting there is.
	sqlBegin     = `BEGIN IMMEDIATE`
	sqlBeginRead = `BEGIN`
	sqlCommit    = `COMMIT`
	sqlRollback  = `ROLLBACK`
	// SQLite only: a number that moves when another connection has committed.
	sqlDataVersion = `PRAGMA data_version`

	sqlSchemaVersion    = `SELECT v FROM fob_meta WHERE k = 'schema'`
	sqlSetSchemaVersion = `INSERT INTO fob_meta (k, v) VALUES ('schema', $1) ON CONFLICT (k) DO UPDATE SET v = excluded.v`
	sqlCreateMeta       = `CREATE TABLE IF NOT EXISTS fob_meta (k TEXT NOT NULL PRIMARY KEY, v INTEGER NOT NULL) STRICT, WITHOUT ROWID`
	// SQLite only: where the database is.
	sqlFile = `SELECT file FROM pragma_database_list WHERE name = 'main'`
	// SQLite only: how many tables there are, whether ours is among them, and whose file it
	// says it is. As one statement, it sees a file that another process is just making
	// before or after that, and never in between.
	sqlTables = `SELECT count(*), coalesce(sum(name = 'fob_meta'), 0), (SELECT application_id FROM pragma_application_id)
FROM sqlite_schema WHERE type = 'table'`
)
