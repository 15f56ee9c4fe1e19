package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/stretchr/testify/require"
)

// A server that crashes gives out the numbers of transactions again whose end was
// not on disk, as that of a NOTIFY is not for a while. A change under such a
// number is delivered: to who resumes, to a Watch that was cut off meanwhile, and
// to one that had only begun.
func TestTransactionNumbersThatComeTwice(t *testing.T) {
	server(t) // or skips
	srv, err := pgtest.Start(t.Context(), pgtest.Config{Settings: []string{
		"wal_writer_delay = 10s", "autovacuum = off",
		"wal_level = minimal", "max_wal_senders = 0", // or each 15 seconds something syncs the log
	}})
	require.NoError(t, err)
	defer func() { require.NoError(t, srv.Close()) }()
	p := newPlace(t, srv.URL("postgres"), nil)
	q := *p
	q.pool, q.link = newPool(t, p.url, nil)
	s, writer := p.open(t, postgres.Options{}), q.open(t, postgres.Options{})
	w := follow(t, s, nil)
	n := uint64(0)
	put := func() (version uint64) {
		n++
		await.Until(t, "a Put", func() bool {
			version, err = writer.Put(context.Background(), record(n), backend.IfAbsent())
			return err == nil
		})
		return version
	}
	next := func() (xid int64) { // what the server will give out
		require.NoError(t, q.pool.QueryRow(t.Context(), "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").Scan(&xid))
		return xid
	}
	w.sees(t, 1, put())
	var before int64
	await.Until(t, "a server that gives out no more numbers", func() bool { // without a NOTIFY more, the log's writer may sleep
		first := next()
		time.Sleep(100 * time.Millisecond)
		before = next()
		return first == before
	})

	w.sees(t, 2, put())
	await.Until(t, "a NOTIFY", func() bool { return next() > before+1 })
	polls := look(w, func() int { return w.batches })
	w.until(t, "polls after it", func() bool { return w.batches > polls+2 })
	fresh := follow(t, s, nil)
	changes := look(w, func() int { return w.changes })
	ahead := next()
	heal := p.link.sever()
	require.NoError(t, srv.Kill())
	require.NoError(t, srv.Restart(t.Context()))
	q.pool.Reset()
	require.Less(t, next(), ahead, "numbers come twice")
	v := put()
	await.Until(t, "the numbers of before the crash", func() bool { return next() >= ahead })
	from, freshFrom := w.token(), fresh.token() // after heal these may be behind the change
	heal()
	for _, w := range []*watch{w, fresh, follow(t, s, from), follow(t, s, freshFrom)} {
		w.sees(t, n, v)
		require.Zero(t, look(w, func() int { return w.resets }))
	}
	require.Equal(t, changes+1, look(w, func() int { return w.changes }), "nothing else comes twice")
	require.Equal(t, 1, look(fresh, func() int { return fresh.changes }), "nor what was there before it began")
}
