package postgres_test

import (
	"testing"
	"time"

	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/stretchr/testify/require"
)

// The table of locks is one for all of the server's clients, and a purge takes a
// lock for each record: it takes them in small numbers.
func TestAPurgeHoldsFewLocks(t *testing.T) {
	t.Parallel() // it mostly waits
	server(t)    // or skips
	srv, err := pgtest.Start(t.Context(), pgtest.Config{Settings: []string{"max_connections = 20", "max_locks_per_transaction = 10"}})
	require.NoError(t, err)
	defer func() { require.NoError(t, srv.Close()) }()
	p := newPlace(t, srv.URL("postgres"), nil)
	s := p.open(t, postgres.Options{})
	const n = 5000
	_, err = p.pool.Exec(t.Context(), p.fill(
		`INSERT INTO {schema}.record SELECT decode(md5(i::text), 'hex'), 1, '', NULL, 1, 0, 1, {version}, '', '{}' FROM generate_series(1, $1::int) i`), n)
	require.NoError(t, err)
	// What others leave of it.
	tx := begin(t, p.url)
	most := 0
	for ; ; most += 50 {
		sub, err := tx.Begin(t.Context())
		require.NoError(t, err)
		if _, err = sub.Exec(t.Context(), "SELECT count(pg_advisory_xact_lock(i)) FROM generate_series($1::int, $1::int + 49) i", most); err != nil {
			require.ErrorContains(t, err, "out of shared memory")
			break
		}
		require.NoError(t, sub.Commit(t.Context()))
	}
	require.NoError(t, tx.Rollback(t.Context()))
	t.Logf("the server has room for %d locks", most)
	tx = begin(t, p.url)
	_, err = tx.Exec(t.Context(), "SELECT count(pg_advisory_xact_lock(i)) FROM generate_series(1, $1::int) i", most-400)
	require.NoError(t, err)
	w := follow(t, s, nil)
	gone, err := s.Purge(t.Context(), time.UnixMilli(5), 999)
	require.NoError(t, err)
	require.Equal(t, 999, gone)
	w.until(t, "all of them", func() bool { return w.changes == 999 })
	require.NoError(t, tx.Rollback(t.Context()))
}

// TestOnePurgeTrimsWhatAMinuteBrings, of a fleet that makes several thousand changes a
// second and in which one process purges.
func TestOnePurgeTrimsWhatAMinuteBrings(t *testing.T) {
	t.Parallel() // it mostly waits
	p := newPlace(t, server(t).URL("postgres"), nil)
	const n = 120_000
	_, err := p.pool.Exec(t.Context(), p.fill(
		`INSERT INTO {schema}.change (version, id, at) SELECT i, decode(md5(i::text), 'hex'), now() - interval '2 days' FROM generate_series(1, $1::int) i`), n)
	require.NoError(t, err)
	// While a transaction of another test is open that is older, nothing is trimmed.
	await.Until(t, "that no transaction is older", func() bool {
		_, err = p.open(t, postgres.Options{}).Purge(t.Context(), time.UnixMilli(5), 10)
		require.NoError(t, err)
		var left int
		require.NoError(t, p.pool.QueryRow(t.Context(), p.fill(`SELECT count(*) FROM {schema}.change`)).Scan(&left))
		require.Contains(t, []int{0, n}, left, "one Purge trims all or nothing of that")
		return left == 0
	})
}
