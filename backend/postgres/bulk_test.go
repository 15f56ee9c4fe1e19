package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// A Scan may take longer than a statement may: what is bounded is how long the server
// takes to go on.
func TestAScanMayTakeLong(t *testing.T) {
	s, p := open(t, postgres.Options{StatementTimeout: 2 * time.Second})
	const n = 30_000 // more than is on its way at any time
	fill(t, p, 2*n)
	found := make(map[backend.ID]bool)
	began := time.Now()
	require.NoError(t, s.Scan(t.Context(), 1, func(recs []backend.Record) error {
		require.LessOrEqual(t, len(recs), 1000)
		if len(found) == 0 {
			time.Sleep(3 * time.Second)
		}
		for i := range recs {
			found[recs[i].ID] = true
		}
		return nil
	}))
	require.Len(t, found, n)
	require.Greater(t, time.Since(began), 2*time.Second)

	// Who has seen enough does not wait for the rest, nor does Close.
	stop := errors.New("stop")
	require.Equal(t, stop, s.Scan(t.Context(), 1, func([]backend.Record) error { return stop }))
	ctx, cancel := context.WithCancel(t.Context())
	require.ErrorIs(t, s.Scan(ctx, 1, func([]backend.Record) error { cancel(); return nil }), context.Canceled)
	var closed chan error
	require.ErrorIs(t, s.Scan(t.Context(), 1, func([]backend.Record) error {
		if closed == nil {
			closed = make(chan error, 1)
			go func() { closed <- s.Close() }()
			await.Until(t, "Close has begun", func() bool {
				_, err := s.Get(t.Context(), record(1).ID)
				return errors.Is(err, backend.ErrClosed)
			})
		}
		return nil
	}), backend.ErrClosed)
	require.NoError(t, <-closed)
}

// A server that does not go on ends a Scan.
func TestAScanThatHangs(t *testing.T) {
	t.Parallel() // it mostly waits
	s, p := open(t, postgres.Options{StatementTimeout: time.Second})
	tx := begin(t, p.url)
	_, err := tx.Exec(t.Context(), p.fill("LOCK TABLE {schema}.record IN ACCESS EXCLUSIVE MODE"))
	require.NoError(t, err)
	err = s.Scan(t.Context(), 1, func([]backend.Record) error { return nil })
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.NotErrorIs(t, err, context.Canceled)
	_, err = s.GetMany(t.Context(), []backend.ID{record(1).ID})
	require.ErrorIs(t, err, backend.ErrUnavailable)
}

// What the table's constraints rule out is not taken for a record.
func TestBulkReadsOfWhatIsNoRecord(t *testing.T) {
	s, p := open(t, postgres.Options{})
	create(t, s, 1)
	_, err := p.pool.Exec(t.Context(), p.fill("ALTER TABLE {schema}.record DROP CONSTRAINT record_id_check, DROP CONSTRAINT record_version_check, DROP CONSTRAINT record_parent_check"))
	require.NoError(t, err)
	for _, c := range []struct {
		set  string
		want error
	}{
		{"version = 0", backend.ErrCorrupt},
		{"version = 1, parent = ''", nil}, // no parent
		{"parent = 'x'", backend.ErrCorrupt},
		{"parent = NULL, id = 'y'", backend.ErrCorrupt},
	} {
		_, err := p.pool.Exec(t.Context(), p.fill("UPDATE {schema}.record SET "+c.set))
		require.NoError(t, err)
		found := 0
		err = s.Scan(t.Context(), 1, func(recs []backend.Record) error { found += len(recs); return nil })
		require.ErrorIs(t, err, c.want, c.set)
		require.Equal(t, c.want == nil, found == 1, c.set)
	}
}

// BenchmarkScan reads all marks, as a process does that begins.
func BenchmarkScan(b *testing.B) {
	n := benchRecords(b)
	s, p := open(b, postgres.Options{})
	_, err := p.pool.Exec(b.Context(), p.fill(`
INSERT INTO {schema}.record (id, kind, owner, parent, created, expires, purge_at, version, body, labels)
SELECT decode(md5(i::text), 'hex'), 9, '', NULL, 1700000000000 + i, 0, 1800000000000 + i, {version}, decode(repeat('5a', 24), 'hex'), '{}' FROM generate_series(1, $1::int) i`), n)
	require.NoError(b, err)
	_, err = p.pool.Exec(b.Context(), p.fill("VACUUM ANALYZE {schema}.record"))
	require.NoError(b, err)
	for b.Loop() {
		found := 0
		require.NoError(b, s.Scan(b.Context(), 9, func(recs []backend.Record) error { found += len(recs); return nil }))
		require.Equal(b, n, found)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
