package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/internal/await"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

type unsent struct{ error }

func (unsent) SafeToRetry() bool { return true }

// What each failure is called, by how far the call had come. An ERROR is an
// answer to the statement, and rolled back; a FATAL may follow a commit.
func TestVerdicts(t *testing.T) {
	pg := func(severity, code string) error {
		return &pgconn.PgError{Severity: "FEHLER", SeverityUnlocalized: severity, Code: code, Message: "m"}
	}
	lost := &net.OpError{Op: "read", Err: io.ErrUnexpectedEOF}
	unavailable, unknown := backend.ErrUnavailable, backend.ErrIndeterminate
	for _, c := range []struct {
		name            string
		err             error
		read, write     error
		readAgain, over bool // a read is tried again; a write is
	}{
		{"connection lost after sending", lost, unavailable, unknown, true, false},
		{"nothing was sent", unsent{lost}, unavailable, unavailable, true, true},
		{"end of file", io.ErrUnexpectedEOF, unavailable, unknown, true, false},
		{"our own time limit", context.DeadlineExceeded, unavailable, unknown, true, false},
		{"serialization failure", pg("ERROR", "40001"), unavailable, unavailable, true, true},
		{"deadlock", pg("ERROR", "40P01"), unavailable, unavailable, true, true},
		{"changed result", pg("ERROR", "0A000"), unavailable, unavailable, true, true},
		{"lost prepared statement", pg("ERROR", "26000"), unavailable, unavailable, true, true},
		{"disk full", pg("ERROR", "53100"), unavailable, unavailable, false, false},
		{"out of memory", pg("ERROR", "53200"), unavailable, unavailable, false, false},
		{"lock timeout", pg("ERROR", "55P03"), unavailable, unavailable, false, false},
		{"statement timeout", pg("ERROR", "57014"), unavailable, unavailable, false, false},
		{"shutdown before an answer", pg("FATAL", "57P01"), unavailable, unknown, true, false},
		{"crash of another backend", pg("FATAL", "57P02"), unavailable, unknown, true, false},
		{"idle session timeout", pg("FATAL", "57P05"), unavailable, unknown, true, false},
		{"starting up", pg("FATAL", "57P03"), unavailable, unknown, true, false},
		{"panic", pg("PANIC", "XX000"), unavailable, unknown, true, false},
		{"protocol violation", pg("ERROR", "08P01"), unavailable, unavailable, false, false},
		{"a pooler that lost the server", &pgconn.PgError{Severity: "ERROR", Code: "08P01", Message: "server conn crashed?"}, unavailable, unknown, true, false},
		{"read-only", pg("ERROR", "25006"), unavailable, unavailable, false, false},
		{"no privilege", pg("ERROR", "42501"), unavailable, unavailable, false, false},
		{"no table", pg("ERROR", "42P01"), unavailable, unavailable, false, false},
		{"no schema", pg("ERROR", "3F000"), unavailable, unavailable, false, false},
		{"a standby", pg("ERROR", "2201W"), unavailable, unavailable, false, false},
		{"in recovery", pg("ERROR", "55000"), unavailable, unavailable, false, false},
		{"damaged table", pg("ERROR", "XX001"), backend.ErrCorrupt, backend.ErrCorrupt, false, false},
		{"damaged index", pg("ERROR", "XX002"), backend.ErrCorrupt, backend.ErrCorrupt, false, false},
		{"answer", backend.ErrConflict, backend.ErrConflict, backend.ErrConflict, false, false},
		{"not replicated", fmt.Errorf("%w: x", unknown), unknown, unknown, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			only := func(err, want error) {
				t.Helper()
				for _, s := range []error{backend.ErrNotFound, backend.ErrConflict, backend.ErrIndeterminate, backend.ErrUnavailable, backend.ErrCorrupt, backend.ErrInvalid, context.DeadlineExceeded} {
					require.Equal(t, errors.Is(want, s), errors.Is(err, s), "%v: %v", err, s)
				}
			}
			err, again := postgres.Verdict(t.Context(), postgres.Reading, c.err)
			only(err, c.read)
			require.Equal(t, c.readAgain, again)
			err, again = postgres.Verdict(t.Context(), postgres.Writing, c.err)
			only(err, c.write)
			require.Equal(t, c.over, again)
			if c.read == unavailable {
				err, _ = postgres.Verdict(t.Context(), postgres.Acquiring, c.err)
				only(err, unavailable)
			}
			// With the caller's context ended the call answers that, and whether it knows.
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if c.read == unavailable {
				err, again = postgres.Verdict(ended, postgres.Writing, c.err)
				require.ErrorIs(t, err, context.Canceled)
				require.Equal(t, c.write == unknown, errors.Is(err, unknown))
				require.NotErrorIs(t, err, unavailable)
				require.False(t, again)
				err, _ = postgres.Verdict(ended, postgres.Reading, c.err)
				require.ErrorIs(t, err, context.Canceled)
				require.NotErrorIs(t, err, unknown)
			}
		})
	}
}

func TestErrorsOfARealServer(t *testing.T) {
	s, p := open(t, postgres.Options{})
	var rec backend.Record
	var v uint64
	// What is of unknown outcome may be applied a little later: each test has a
	// record of its own.
	fresh := func() {
		n := uint64(one.schema.Add(1))
		rec, v = record(n), create(t, s, n)
	}
	run := func(name string, test func(t *testing.T)) {
		fresh()
		t.Run(name, test)
	}
	put := func(s *postgres.Store) error {
		_, err := s.Put(context.Background(), rec, backend.IfVersion(v))
		return err
	}
	with := func(t *testing.T, opts postgres.Options, change func(*pgxpool.Config)) *postgres.Store {
		q := *p
		q.pool, q.link = newPool(t, p.url, change)
		return q.open(t, opts)
	}
	sql := func(t *testing.T, text string) {
		t.Helper()
		_, err := p.pool.Exec(context.Background(), p.fill(text))
		require.NoError(t, err)
	}
	// locked holds the record's lock while do runs.
	locked := func(t *testing.T, do func()) {
		tx := begin(t, p.url)
		_, err := tx.Exec(t.Context(), p.fill("SELECT FROM {schema}.record FOR UPDATE"))
		require.NoError(t, err)
		do()
		require.NoError(t, tx.Rollback(t.Context()))
	}
	unchanged := func(t *testing.T) {
		got, err := s.Get(t.Context(), rec.ID)
		require.NoError(t, err)
		require.Equal(t, v, got.Version)
	}

	// A time limit may be over before a busy machine has sent anything: then it is known
	// that nothing was written.
	run("our time limit", func(t *testing.T) {
		brief := p.open(t, postgres.Options{StatementTimeout: 300 * time.Millisecond})
		locked(t, func() {
			await.Until(t, "a Put that was sent", func() bool {
				err := put(brief)
				require.ErrorContains(t, err, "StatementTimeout")
				require.NotErrorIs(t, err, context.DeadlineExceeded)
				if !errors.Is(err, backend.ErrIndeterminate) {
					require.ErrorIs(t, err, backend.ErrUnavailable)
					return false
				}
				return true
			})
		})
	})
	run("the caller's", func(t *testing.T) {
		locked(t, func() {
			await.Until(t, "a Put that was sent", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				_, err := s.Put(ctx, rec, backend.IfVersion(v))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				return errors.Is(err, backend.ErrIndeterminate)
			})
		})
	})
	run("the server's time limit", func(t *testing.T) {
		s := with(t, postgres.Options{}, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["statement_timeout"] = "200" })
		locked(t, func() { require.ErrorIs(t, put(s), backend.ErrUnavailable) })
		unchanged(t)
	})
	run("lock timeout", func(t *testing.T) {
		s := with(t, postgres.Options{}, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["lock_timeout"] = "100" })
		locked(t, func() { require.ErrorIs(t, put(s), backend.ErrUnavailable) })
		unchanged(t)
	})
	run("read-only", func(t *testing.T) {
		s := with(t, postgres.Options{}, func(c *pgxpool.Config) {
			c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
		})
		require.ErrorIs(t, put(s), backend.ErrUnavailable)
		require.ErrorContains(t, put(s), "takes no writes")
	})
	run("exhausted pool", func(t *testing.T) {
		s := with(t, postgres.Options{StatementTimeout: 200 * time.Millisecond}, func(c *pgxpool.Config) { c.MaxConns = 1 })
		pool := s.Pool()
		conn, err := pool.Acquire(t.Context())
		require.NoError(t, err)
		defer conn.Release()
		require.ErrorIs(t, put(s), backend.ErrUnavailable)
		require.ErrorContains(t, put(s), "no connection of the pool")
		_, err = s.Get(t.Context(), rec.ID)
		require.ErrorIs(t, err, backend.ErrUnavailable)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err = s.Put(ctx, rec, backend.IfVersion(v))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, backend.ErrIndeterminate, "nothing was sent")
	})
	run("closed pool", func(t *testing.T) {
		s := with(t, postgres.Options{}, nil)
		s.Pool().Close()
		require.ErrorIs(t, put(s), backend.ErrUnavailable)
	})
	run("session ended by an operator", func(t *testing.T) {
		s := with(t, postgres.Options{}, func(c *pgxpool.Config) { c.MaxConns = 1 })
		name := fmt.Sprint("victim", time.Now().UnixNano())
		locked(t, func() {
			got := make(chan error, 1)
			go func() { got <- put(s) }()
			await.Until(t, name, func() bool {
				var n int
				err := p.pool.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
					WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1::text || '%'`, p.schema[3:]).Scan(&n)
				return err == nil && n == 1
			})
			require.ErrorIs(t, <-got, backend.ErrIndeterminate)
		})
		unchanged(t)
		_, err := s.Get(t.Context(), rec.ID)
		require.NoError(t, err, "the pool has another connection")
	})
	run("missing table", func(t *testing.T) {
		sql(t, "ALTER TABLE {schema}.record RENAME TO hidden")
		defer sql(t, "ALTER TABLE {schema}.hidden RENAME TO record")
		for range 2 {
			require.ErrorIs(t, put(s), backend.ErrUnavailable)
			require.ErrorContains(t, put(s), "see Migrate")
		}
	})
	run("a feed without its table ends", func(t *testing.T) {
		w := follow(t, s, nil)
		sql(t, "ALTER TABLE {schema}.change RENAME TO hidden")
		defer sql(t, "ALTER TABLE {schema}.hidden RENAME TO change")
		<-w.done
		require.ErrorIs(t, w.err, backend.ErrUnavailable)
		require.ErrorContains(t, w.err, "see Migrate")
	})
	run("a damaged record", func(t *testing.T) {
		sql(t, "ALTER TABLE {schema}.record DROP CONSTRAINT record_kind_check; UPDATE {schema}.record SET kind = 300")
		defer sql(t, "UPDATE {schema}.record SET kind = 1")
		_, err := s.Get(t.Context(), rec.ID)
		require.ErrorIs(t, err, backend.ErrCorrupt)
		require.NotErrorIs(t, err, backend.ErrNotFound)
	})
	run("a link that is cut", func(t *testing.T) {
		q := *p
		q.pool, q.link = newPool(t, p.url, nil)
		s := q.open(t, postgres.Options{})
		heal := q.link.sever()
		err := put(s)
		require.True(t, errors.Is(err, backend.ErrIndeterminate) || errors.Is(err, backend.ErrUnavailable), err)
		require.ErrorIs(t, put(s), backend.ErrUnavailable, "no connection can be made: surely not applied")
		_, err = s.Get(t.Context(), rec.ID)
		require.ErrorIs(t, err, backend.ErrUnavailable)
		heal()
		unchanged(t)
		require.NoError(t, put(s), "works again by itself")
	})
}
