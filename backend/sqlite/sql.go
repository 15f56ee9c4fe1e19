package sqlite

// Every statement that runs on records, changes and usage. They are written with
// $n parameters, standard operators and upserts, as PostgreSQL takes them too;
// what only SQLite understands says so.
const (
	columns  = `id, kind, owner, parent, created, expires, purge_at, version, body`
	selected = `id, kind, owner, parent, created, coalesce(expires, 0), purge_at, version, body`

	sqlGet = `SELECT ` + selected + ` FROM fob_record WHERE id = $1`
	// The IDs are one blob, 16 bytes each, so that there is one statement for any number of
	// them. A CROSS JOIN is made in the order in which it is written.
	sqlGetMany = `WITH RECURSIVE asked(at) AS (SELECT 1 UNION ALL SELECT at + 16 FROM asked LIMIT $2)
SELECT ` + selected + ` FROM asked CROSS JOIN fob_record WHERE id = substr($1, at, 16)`

	// A list is a range of one index, continued after (created, id) or (expires, id).
	sqlListKind = `SELECT ` + selected + ` FROM fob_record
WHERE kind = $1 AND (created, id) > ($2, $3) ORDER BY created, id LIMIT $4`
	sqlListOwner = `SELECT ` + selected + ` FROM fob_record
WHERE kind = $1 AND owner = $5 AND (created, id) > ($2, $3) ORDER BY created, id LIMIT $4`
	sqlListParent = `SELECT ` + selected + ` FROM fob_record
WHERE kind = $1 AND parent = $5 AND (created, id) > ($2, $3) ORDER BY created, id LIMIT $4`
	sqlListExpires = `SELECT ` + selected + ` FROM fob_record
WHERE kind = $1 AND expires < $5 AND (expires, id) > ($2, $3) ORDER BY expires, id LIMIT $4`

	sqlInsert = `INSERT INTO fob_record (` + columns + `) VALUES ($1, $2, $3, $4, $5, nullif($6, 0), $7, $8, $9)
ON CONFLICT (id) DO NOTHING`
	// What may not change is part of the condition, so that a Put is one statement
	// where it succeeds.
	sqlUpdate = `UPDATE fob_record SET expires = nullif($6, 0), purge_at = $7, version = $8, body = $9
WHERE id = $1 AND version = $10 AND kind = $2 AND owner = $3 AND parent IS NOT DISTINCT FROM $4 AND created = $5`
	sqlDelete       = `DELETE FROM fob_record WHERE id = $1 AND version = $2`
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
