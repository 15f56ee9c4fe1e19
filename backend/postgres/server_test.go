package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// The server is killed amid writes, and started again: what was acknowledged is
// there, what was surely not applied is not, versions go on rising, and the same
// store and the same Watch go on by themselves.
func TestTheServerIsKilledAmidWrites(t *testing.T) {
	srv := server(t)
	s, p := open(t, postgres.Options{})
	w := follow(t, s, nil)
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	type written struct {
		n, version uint64
		err        error
	}
	var highest uint64
	for round := range rounds {
		var mu sync.Mutex // guards all
		var all []written
		var wg sync.WaitGroup
		var acknowledged atomic.Int64
		for i := range 8 {
			wg.Go(func() {
				for n := uint64(round*1_000_000 + i*100_000); ; n++ {
					v, err := s.Put(context.Background(), record(n), backend.IfAbsent())
					mu.Lock()
					all = append(all, written{n, v, err})
					mu.Unlock()
					if err != nil {
						return
					}
					acknowledged.Add(1)
				}
			})
		}
		await.Until(t, "writes before the server is killed", func() bool { return acknowledged.Load() > 300 })
		require.NoError(t, srv.Kill())
		wg.Wait()
		_, err := s.Get(t.Context(), record(0).ID)
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.NotErrorIs(t, err, backend.ErrNotFound)
		require.NoError(t, srv.Restart(t.Context()))

		for _, one := range all {
			got, err := s.Get(t.Context(), record(one.n).ID)
			switch {
			case one.err == nil:
				require.NoError(t, err, "record %d was acknowledged", one.n)
				require.Equal(t, one.version, got.Version)
				highest = max(highest, one.version)
			case errors.Is(one.err, backend.ErrIndeterminate):
			case errors.Is(one.err, backend.ErrUnavailable):
				require.ErrorIs(t, err, backend.ErrNotFound, "record %d was surely not applied: %v", one.n, one.err)
			default:
				t.Fatalf("a Put of a killed server answered %v", one.err)
			}
		}
		n := uint64(round*1_000_000 + 999_999)
		var v uint64
		await.Until(t, "a write after the restart", func() bool {
			v, err = s.Put(context.Background(), record(n), backend.IfAbsent())
			return err == nil || errors.Is(err, backend.ErrConflict)
		})
		require.Greater(t, v, highest)
		w.sees(t, n, v)
		for _, one := range all {
			if one.err == nil {
				w.sees(t, one.n, one.version)
			}
		}
	}
	require.Zero(t, look(w, func() int { return w.resets }))
	require.NoError(t, s.Close())
	p.pool.Close()
}

// A standby is refused, also by a store that meets one later; and when one is
// promoted, who resumes gets a Reset, since the last commits may be missing.
func TestStandbyAndFailover(t *testing.T) {
	srv := server(t)
	s, p := open(t, postgres.Options{})
	create(t, s, 1)
	w := follow(t, s, nil)
	token := w.token()
	standby, err := srv.Standby(t.Context(), pgtest.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, standby.Close()) }()
	q := *p
	q.pool, _ = newPool(t, standby.URL("postgres"), nil)
	_, err = postgres.New(t.Context(), q.pool, postgres.Options{Schema: p.schema})
	require.ErrorIs(t, err, postgres.ErrStandby)
	require.ErrorIs(t, err, backend.ErrUnavailable)

	// A pool that finds a primary first, and then a standby, as one with several
	// hosts may: nothing is read there, not even that something is missing.
	var moved atomic.Bool
	r := *p
	r.pool, _ = newPool(t, p.url, func(c *pgxpool.Config) {
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if moved.Load() {
				addr = standby.Address()
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	})
	lost := r.open(t, postgres.Options{})
	moved.Store(true)
	r.pool.Reset()
	_, err = lost.Get(t.Context(), record(1).ID)
	_, missing := lost.Get(t.Context(), record(2).ID)
	_, listErr := lost.List(t.Context(), backend.Query{Kind: 1})
	_, emptyErr := lost.List(t.Context(), backend.Query{Kind: 2, Owner: "nobody"})
	_, usageErr := lost.Usage(t.Context(), []backend.ID{record(1).ID})
	_, putErr := lost.Put(t.Context(), record(2), backend.IfAbsent())
	_, manyErr := lost.GetMany(t.Context(), []backend.ID{record(2).ID})
	scanErr := lost.Scan(t.Context(), 2, func([]backend.Record) error { return errors.New("it delivered something") })
	for i, err := range []error{err, missing, listErr, emptyErr, usageErr, putErr, manyErr, scanErr,
		lost.Watch(t.Context(), nil, func(backend.Batch) error { return nil })} {
		require.ErrorIs(t, err, backend.ErrUnavailable, i)
		require.NotErrorIs(t, err, backend.ErrNotFound, i)
	}
	require.ErrorIs(t, missing, postgres.ErrStandby)

	await.Until(t, "the standby has the record", func() bool {
		var n int
		err := q.pool.QueryRow(t.Context(), p.fill("SELECT count(*) FROM {schema}.record")).Scan(&n)
		return err == nil && n == 1
	})
	require.NoError(t, standby.Promote(t.Context()))
	promoted := q.open(t, postgres.Options{})
	_, err = promoted.Get(t.Context(), record(1).ID)
	require.NoError(t, err)
	after := follow(t, promoted, token)
	require.Equal(t, 1, look(after, func() int { return after.resets }), "another timeline")
	after.sees(t, 2, create(t, promoted, 2))
	own := after.token()
	again := follow(t, promoted, own)
	require.Zero(t, look(again, func() int { return again.resets }))
}

// A commit whose wait for a synchronous standby was cancelled is not acknowledged,
// though the server says so in a warning only.
func TestACommitThatIsNotReplicated(t *testing.T) {
	p := newPlace(t, server(t).URL("postgres"), nil)
	heard := 0
	guarded, plain := *p, *p
	guarded.pool, guarded.link = newPool(t, p.url, func(c *pgxpool.Config) {
		c.ConnConfig.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) { heard++ }
		c.MaxConns = 1
		postgres.Configure(c)
	})
	plain.pool, plain.link = newPool(t, p.url, nil)
	s, unguarded := guarded.open(t, postgres.Options{}), plain.open(t, postgres.Options{})
	v := create(t, s, 1)
	admin := func(sql string) {
		// Not a commit that would wait itself.
		_, err := p.pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	reload := func() {
		admin("SELECT pg_reload_conf()")
		await.Until(t, "settings that were read again", func() bool {
			var a, b string
			err := p.pool.QueryRow(t.Context(), "SELECT current_setting('synchronous_standby_names'), string_agg(setting, '') FROM pg_file_settings WHERE name = 'synchronous_standby_names'").Scan(&a, &b)
			return err == nil && a == b
		})
		time.Sleep(50 * time.Millisecond) // other sessions read the settings when they are next idle
	}
	admin("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	reload()
	defer func() {
		admin("ALTER SYSTEM SET synchronous_standby_names = ''")
		admin("SELECT pg_reload_conf()")
	}()
	// cancelled makes a write and cancels its wait.
	cancelled := func(write func() error) error {
		answer := make(chan error, 1)
		go func() { answer <- write() }()
		await.Until(t, "a commit that waits for the standby, to cancel", func() bool {
			var n int
			err := p.pool.QueryRow(t.Context(), "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&n)
			return err == nil && n > 0
		})
		return <-answer
	}
	err := cancelled(func() error { _, err := s.Put(context.Background(), record(1), backend.IfVersion(v)); return err })
	require.ErrorIs(t, err, backend.ErrIndeterminate)
	require.ErrorContains(t, err, "synchronous standby")
	require.Equal(t, 1, heard, "the caller's own handler is called too")
	got, err := s.Get(t.Context(), record(1).ID)
	require.NoError(t, err)
	require.Greater(t, got.Version, v, "it is committed here")
	require.ErrorIs(t, cancelled(func() error { return s.AddUsage(context.Background(), []backend.Usage{{ID: got.ID, N: 1}}) }), backend.ErrIndeterminate)
	require.ErrorIs(t, cancelled(func() error { return s.Delete(context.Background(), got.ID, got.Version) }), backend.ErrIndeterminate)
	require.NoError(t, cancelled(func() error { _, err := unguarded.Put(context.Background(), record(2), backend.IfAbsent()); return err }), "what Configure is for")
	admin("ALTER SYSTEM SET synchronous_standby_names = ''")
	reload()
	create(t, s, 3)
}

// An insert that waits for the delete of the same ID gets a number above it,
// though the delete's was drawn later than the insert began.
func TestVersionsRiseAcrossADeleteUnderWay(t *testing.T) {
	s, p := open(t, postgres.Options{})
	create(t, s, 1)
	id := record(1).ID
	tx := begin(t, p.url)
	_, err := tx.Exec(t.Context(), p.fill("SELECT {turn}"), id[:])
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), p.fill("DELETE FROM {schema}.record WHERE id = $1::bytea"), id[:])
	require.NoError(t, err)
	created := make(chan uint64, 1)
	go func() {
		v, err := s.Put(context.Background(), record(1), backend.IfAbsent())
		if err != nil {
			t.Error(err)
		}
		created <- v
	}()
	p.blocked(t, 1)
	var deleted int64
	require.NoError(t, tx.QueryRow(t.Context(), p.fill("INSERT INTO {schema}.change (version, id) SELECT {version}, $1::bytea RETURNING version"), id[:]).Scan(&deleted))
	require.NoError(t, tx.Commit(t.Context()))
	require.Greater(t, <-created, uint64(deleted))
}

// Deletes take their turn as well, and a purge leaves what is not its turn.
func TestDeletesTakeTurnsWithInserts(t *testing.T) {
	s, p := open(t, postgres.Options{})
	rec := record(1)
	rec.PurgeAt = 1
	v, err := s.Put(t.Context(), rec, backend.IfAbsent())
	require.NoError(t, err)
	tx := begin(t, p.url)
	_, err = tx.Exec(t.Context(), p.fill("SELECT {turn}"), rec.ID[:])
	require.NoError(t, err)
	n, err := s.Purge(t.Context(), time.UnixMilli(1), 10)
	require.NoError(t, err)
	require.Zero(t, n)
	await.Until(t, "a Delete that was sent before its deadline", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		err := s.Delete(ctx, rec.ID, v)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		return errors.Is(err, backend.ErrIndeterminate)
	})
	_, err = s.Put(t.Context(), rec, backend.IfVersion(v))
	require.NoError(t, err, "an update needs no turn")
	require.NoError(t, tx.Rollback(t.Context()))
	await.Until(t, "a Purge whose turn it is", func() bool {
		n, err := s.Purge(t.Context(), time.UnixMilli(1), 10)
		return err == nil && n == 1
	})
}

// A Put takes one write to the server and one answer from it.
func TestOneRoundTrip(t *testing.T) {
	p := newPlace(t, server(t).URL("postgres"), nil)
	var writes atomic.Int64
	p.pool, _ = newPool(t, p.url, func(c *pgxpool.Config) {
		c.MaxConns = 1
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec // each statement is sent whole
		c.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &counted{conn, &writes}, err
		}
	})
	s := p.open(t, postgres.Options{})
	const n = 50
	version := create(t, s, 0)
	for name, call := range map[string]func(i uint64) error{
		"create": func(i uint64) error { create(t, s, 1+i); return nil },
		"update": func(uint64) (err error) {
			version, err = s.Put(context.Background(), record(0), backend.IfVersion(version))
			return err
		},
		"get": func(uint64) error { _, err := s.Get(context.Background(), record(0).ID); return err },
	} {
		writes.Store(0)
		for i := range uint64(n) {
			require.NoError(t, call(i))
		}
		require.EqualValues(t, n, writes.Load(), name)
	}
}

type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte("pg_notify")) { // after the fact, by a goroutine of its own
		c.writes.Add(1)
	}
	return c.Conn.Write(b)
}

// Many purges at once share the work: each record goes once.
func TestPurgesAtTheSameTime(t *testing.T) {
	s, p := open(t, postgres.Options{})
	const n = 2000
	_, err := p.pool.Exec(t.Context(), p.fill(
		`INSERT INTO {schema}.record SELECT decode(md5(i::text), 'hex'), 1, '', NULL, 1, 0, 1, {version}, '', '{}' FROM generate_series(1, $1::int) i`), n)
	require.NoError(t, err)
	var wg sync.WaitGroup
	var gone atomic.Int64
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			for range 100 {
				k, err := s.Purge(context.Background(), time.UnixMilli(5), 70)
				gone.Add(int64(k))
				if err != nil || gone.Load() == n {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.EqualValues(t, n, gone.Load(), fmt.Sprint(errs))
}
