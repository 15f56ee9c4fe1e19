package sqlite_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/stretchr/testify/require"
)

// The statements of a program that knows version 1 of the tables.
const (
	insertOf1 = `INSERT INTO fob_record (id, kind, owner, parent, created, expires, purge_at, version, body) VALUES ($1, $2, $3, $4, $5, nullif($6, 0), $7, $8, $9)
ON CONFLICT (id) DO NOTHING`
	updateOf1 = `UPDATE fob_record SET expires = nullif($6, 0), purge_at = $7, version = $8, body = $9
WHERE id = $1 AND version = $10 AND kind = $2 AND owner = $3 AND parent IS NOT DISTINCT FROM $4 AND created = $5`
	deleteOf1 = `DELETE FROM fob_record WHERE id = $1 AND version = $2`
	changeOf1 = `INSERT INTO fob_change (seq, id, nonce) VALUES ($1, $2, $3)`
)

// rowOf1 is a record as the arguments of insertOf1, and of updateOf1 but for the last.
func rowOf1(r backend.Record) []any {
	var parent any
	if r.Parent != (backend.ID{}) {
		parent = r.Parent[:]
	}
	return []any{r.ID[:], int64(r.Kind), []byte(r.Owner), parent, r.Created, r.Expires, r.PurgeAt, int64(r.Version), r.Body}
}

// fileOf1 is a file with the tables of version 1 and what a program of then wrote: n records.
func fileOf1(t *testing.T, n uint64) (db *sql.DB, file string, all []backend.Record) {
	file = filepath.Join(t.TempDir(), "fob.db")
	db = pool(t, "file:"+file)
	tables, err := os.ReadFile("migrations/0001_init.sql")
	require.NoError(t, err)
	for _, text := range []string{
		`PRAGMA journal_mode = WAL`, `PRAGMA application_id = 0x666f6231`, string(tables),
		`CREATE TABLE fob_meta (k TEXT NOT NULL PRIMARY KEY, v INTEGER NOT NULL) STRICT, WITHOUT ROWID`,
		`INSERT INTO fob_meta (k, v) VALUES ('schema', 1)`,
	} {
		execute(t, db, text)
	}
	tx, err := db.Begin()
	require.NoError(t, err)
	for i := range n {
		r := record(i)
		r.Version = i + 2 // the first change is none
		if i%3 == 0 {
			r.Parent, r.Expires, r.PurgeAt = record(0).ID, r.Created+5, 1
		}
		_, err := tx.Exec(insertOf1, rowOf1(r)...)
		require.NoError(t, err)
		_, err = tx.Exec(changeOf1, int64(r.Version), r.ID[:], 7)
		require.NoError(t, err)
		all = append(all, r)
	}
	require.NoError(t, tx.Commit())
	execute(t, db, `INSERT INTO fob_usage (id, n, last) VALUES ($1, 2, 3)`, all[0].ID[:])
	return db, file, all
}

// pagesOf is the pages of a list, one after the other.
func pagesOf(t *testing.T, s *sqlite.Store, q backend.Query) (all []backend.Record) {
	for {
		page, err := s.List(t.Context(), q)
		require.NoError(t, err)
		all = append(all, page.Records...)
		if q.After = page.Next; q.After == "" {
			return all
		}
	}
}

func TestTablesOfVersion1AreBroughtUp(t *testing.T) {
	const n = 3000
	db, file, all := fileOf1(t, n)
	_, err := sqlite.New(t.Context(), db, sqlite.Options{})
	require.ErrorIs(t, err, sqlite.ErrNotMigrated)
	require.ErrorContains(t, err, "version 1 of the tables, this program wants 2; call Migrate")

	execute(t, db, "PRAGMA wal_checkpoint(TRUNCATE)")
	other, err := db.Conn(t.Context()) // while it is open the log stays
	require.NoError(t, err)
	require.NoError(t, other.PingContext(t.Context()))
	defer func() { require.NoError(t, other.Close()) }()
	var tables int
	require.NoError(t, other.QueryRowContext(t.Context(), "SELECT count(*) FROM sqlite_schema").Scan(&tables))
	require.NoError(t, sqlite.Migrate(t.Context(), db))
	log, err := os.Stat(file + "-wal")
	require.NoError(t, err)
	require.Less(t, log.Size(), int64(32*4096), "the pages with the records are not written again")

	s := open(t, file, sqlite.Options{})
	require.Equal(t, all, pagesOf(t, s, backend.Query{Kind: 1, Limit: 1000}), "everything is as it was")
	usage, err := s.Usage(t.Context(), []backend.ID{all[0].ID})
	require.NoError(t, err)
	require.Equal(t, []backend.Usage{{ID: all[0].ID, N: 2, Last: 3}}, usage)

	// What is written from now on has labels, what was there gets them.
	again := all[1]
	again.Labels = []string{"a", "b"}
	v, err := s.Put(t.Context(), again, backend.IfVersion(again.Version))
	require.NoError(t, err)
	require.Greater(t, v, all[n-1].Version, "versions go on")
	again.Version = v
	plain := all[2]
	plain.Version, err = s.Put(t.Context(), plain, backend.IfVersion(plain.Version))
	require.NoError(t, err)
	added := record(n)
	added.Labels = []string{"b"}
	added.Version, err = s.Put(t.Context(), added, backend.IfAbsent())
	require.NoError(t, err)
	require.Equal(t, []backend.Record{again}, pagesOf(t, s, backend.Query{Kind: 1, Label: "a"}))
	require.Equal(t, []backend.Record{added, again}, pagesOf(t, s, backend.Query{Kind: 1, Label: "b", Newest: true}))
	require.NoError(t, s.Delete(t.Context(), again.ID, again.Version))
	require.NoError(t, s.Delete(t.Context(), plain.ID, plain.Version))
	require.Empty(t, pagesOf(t, s, backend.Query{Kind: 1, Label: "a"}))
	var rows int
	require.NoError(t, db.QueryRow("SELECT count(*) FROM fob_label").Scan(&rows))
	require.Equal(t, 1, rows)
}

// A program that was running when another one brought the tables up goes on with what it
// can do right. The rest is refused, in words that name both versions.
func TestAProgramOfVersion1BesideVersion2(t *testing.T) {
	db, file, all := fileOf1(t, 9)
	old := map[string]*sql.Stmt{}
	for _, text := range []string{insertOf1, updateOf1, deleteOf1} {
		stmt, err := db.Prepare(text) // as it does, before the tables change
		require.NoError(t, err)
		defer func() { require.NoError(t, stmt.Close()) }()
		old[text] = stmt
	}
	s := open(t, file, sqlite.Options{})
	listed := record(100)
	listed.Labels = []string{"a", "b"}
	var err error
	listed.Version, err = s.Put(t.Context(), listed, backend.IfAbsent())
	require.NoError(t, err)

	const refused = "the tables have version 2, this program knows 1"
	next := record(200)
	next.Version = 1000
	_, err = old[insertOf1].Exec(rowOf1(next)...)
	require.ErrorContains(t, err, refused, "a record that it makes would have no labels")
	require.ErrorIs(t, sqlite.Classified(sqlite.Writing, err), backend.ErrUnavailable, "what it answers: surely not written")
	_, err = old[deleteOf1].Exec(listed.ID[:], int64(listed.Version))
	require.ErrorContains(t, err, refused, "a record that it deletes would stay in its lists")

	for _, rec := range []backend.Record{all[0], listed} { // it revokes
		before := rec.Version
		rec.Body, rec.Version = []byte("revoked"), before+1000
		res, err := old[updateOf1].Exec(append(rowOf1(rec), int64(before))...)
		require.NoError(t, err)
		changed, err := res.RowsAffected()
		require.NoError(t, err)
		require.EqualValues(t, 1, changed)
		got, err := s.Get(t.Context(), rec.ID)
		require.NoError(t, err)
		require.Equal(t, rec, got, "with the labels that it has")
		if rec.Labels != nil {
			require.Equal(t, []backend.Record{rec}, pagesOf(t, s, backend.Query{Kind: 1, Label: "a"}))
		}
	}
	res, err := old[deleteOf1].Exec(all[1].ID[:], int64(all[1].Version))
	require.NoError(t, err, "a record without labels")
	gone, err := res.RowsAffected()
	require.NoError(t, err)
	require.EqualValues(t, 1, gone)
}
