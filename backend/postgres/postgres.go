package postgres

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/calls"
	"github.com/fobkit/fob/backend/internal/news"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Store is a store in a PostgreSQL database. Make one with New. It is safe for
// concurrent use, and runs one goroutine of its own, two for each Watch, and up to
// four while many new records come at once, which Close ends.
type Store struct {
	opts Options
	pool *pgxpool.Pool // the caller's
	sql  statements

	life context.Context // ends with Close
	end  context.CancelFunc
	done sync.WaitGroup

	calls calls.Gate

	inserts  inserts
	changed  *news.Bell             // rings when this process has changed something
	unsent   unsent                 // to the goroutine that notifies: what others are to be told
	nextTrim atomic.Int64           // Unix nanoseconds
	deaf     sync.Once              // the warning that LISTEN does not work
	instance atomic.Pointer[string] // of the schema, as the last poll has read it

	outage time.Duration // how long a Watch goes on when polls fail
}

var (
	_ backend.Store         = (*Store)(nil)
	_ backend.Watcher       = (*Store)(nil)
	_ backend.Lister        = (*Store)(nil)
	_ backend.Counter       = (*Store)(nil)
	_ backend.BulkReader    = (*Store)(nil)
	_ backend.Scanner       = (*Store)(nil)
	_ backend.UsageRecorder = (*Store)(nil)
	_ backend.Purger        = (*Store)(nil)
	_ backend.Maintainer    = (*Store)(nil)
)

// oldestServer is the first version with 64-bit transaction numbers in SQL.
const oldestServer = 130000

// New makes a store on a pool, which stays the caller's: close the store first
// and the pool then. The schema must have been made by Migrate, or by the
// text that Script returns; if not, or if it is of a newer version, the error
// is a *SchemaError. A standby is refused with ErrStandby.
func New(ctx context.Context, pool *pgxpool.Pool, opts Options) (*Store, error) {
	opts, err := opts.resolved()
	if err != nil {
		return nil, err
	}
	s := &Store{
		opts:    opts,
		pool:    pool,
		sql:     opts.statements(),
		calls:   calls.Gate{Engine: "postgres"},
		changed: news.NewBell(),
		unsent:  unsent{wake: make(chan struct{}, 1)},
		outage:  outage,
		inserts: inserts{long: longFlight},
	}
	s.life, s.end = context.WithCancel(context.Background())
	if err := s.check(ctx); err != nil {
		s.end()
		return nil, err
	}
	s.done.Go(s.notify)
	return s, nil
}

// check looks at the server and the schema, and chooses what identifies them.
func (s *Store) check(ctx context.Context) error {
	var server, at int
	var standby, migrated bool
	var commit, sync, isolation string
	var bytes []byte
	err := s.run(ctx, "open", stageReading, 0, func(ctx context.Context, conn *pgx.Conn) error {
		if err := conn.QueryRow(ctx, s.sql.migrated).Scan(&server, &standby, &migrated, &commit, &sync, &isolation, &bytes); err != nil || standby || !migrated {
			return err
		}
		return conn.QueryRow(ctx, s.sql.migrations).Scan(&at)
	})
	switch {
	case err != nil && serverError(err) == nil && server > 0 && bytes == nil:
		return fmt.Errorf("postgres: open: bytes do not come as they were sent: set bytea_output=hex on the role or the pool: %w", err)
	case err != nil:
		return err
	case server < oldestServer:
		return fmt.Errorf("postgres: open: the server is of version %d, and 13 is the first that will do", server/10000)
	case standby:
		return fmt.Errorf("postgres: open: %w: %w", backend.ErrUnavailable, ErrStandby)
	case at != SchemaVersion:
		return &SchemaError{Schema: s.opts.Schema, Have: at, Want: SchemaVersion}
	}
	s.inserts.lanes = lanesFor(s.pool.Config().MaxConns, isolation)
	if commit == "off" || sync == "off" {
		s.opts.Logger.Warn("postgres: a crash of the server will lose writes that it has acknowledged",
			"synchronous_commit", commit, "fsync", sync)
	}
	return s.choosePoll(ctx)
}

// choosePoll finds out how much of itself the server tells.
func (s *Store) choosePoll(ctx context.Context) (err error) {
	poll := s.sql.poll
	for _, log := range logs {
		for _, identity := range identities {
			s.sql.poll = s.opts.fill(replaceOnce(replaceOnce(poll, "{identity}", identity), "{log}", log))
			_, err = s.poll(ctx, pooled{s}, place{since: fullSnapshot()})
			if pg := serverError(err); pg == nil || severity(pg) != "ERROR" || errors.Is(err, ErrStandby) {
				return err
			}
			s.opts.Logger.Debug("postgres: the server does not tell its identity, or the state of its log, in full", "error", err)
		}
	}
	return err
}

// How often a statement is sent that surely changed nothing: as often as not for a
// connection that was lost, and oftener, with a pause of chance, where transactions
// that are serializable were in each other's way.
const (
	maxTries          = 3
	maxTriesContended = 20
	contendedPause    = 2 * time.Millisecond // times the number of the try, at most
)

// run makes one call: it waits for a connection and lets do use it. What do
// returns is turned into an error of the contract. A limit of 0 is that of
// Options, where the caller has none.
func (s *Store) run(caller context.Context, doing string, kind stage, limit time.Duration, do func(context.Context, *pgx.Conn) error) error {
	if err := s.enter(caller); err != nil {
		return err
	}
	defer s.calls.Leave()
	ctx, cancel := s.bounded(caller, limit)
	defer cancel()
	return s.call(caller, ctx, doing, kind, do)
}

// bounded is the caller's context with the limit of a call.
func (s *Store) bounded(caller context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, bounded := caller.Deadline(); !bounded && limit == 0 {
		limit = s.opts.StatementTimeout
	}
	if limit == 0 {
		return caller, func() {}
	}
	return context.WithTimeout(caller, limit)
}

// call is what run does between enter and Leave, with the bounded context.
func (s *Store) call(caller, ctx context.Context, doing string, kind stage, do func(context.Context, *pgx.Conn) error) error {
	for n := 1; ; n++ {
		at, err := s.once(ctx, kind, do)
		if err == nil {
			return nil
		}
		mapped, again := verdict(caller, doing, at, err)
		most, pause := maxTries, time.Duration(0)
		if isConflict(err) {
			most, pause = maxTriesContended, randomPart(time.Duration(n)*contendedPause)
		}
		if !again || n >= most || ctx.Err() != nil {
			return mapped
		}
		sleepFor(ctx, pause)
		s.opts.Logger.Debug("postgres: tried again", "doing", doing, "error", err)
	}
}

func (s *Store) once(ctx context.Context, kind stage, do func(context.Context, *pgx.Conn) error) (stage, error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return stageAcquiring, err
	}
	defer conn.Release()
	if kind != stageWriting {
		return kind, do(ctx, conn.Conn())
	}
	heard := conn.Conn().PgConn().CustomData()
	delete(heard, unreplicated)
	err = do(ctx, conn.Conn())
	if err == nil && heard[unreplicated] != nil {
		err = fmt.Errorf("%w: committed, but the wait for a synchronous standby was cancelled", backend.ErrIndeterminate)
	}
	return kind, err
}

// isConflict reports whether transactions were in each other's way.
func isConflict(err error) bool {
	pg := serverError(err)
	return pg != nil && pg.Code == "40001"
}

// randomPart is a random part of a time.
func randomPart(most time.Duration) time.Duration {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return most * time.Duration(binary.BigEndian.Uint16(b[:])) >> 16
}

// sleepFor waits for d, or until ctx ends.
func sleepFor(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// enter is the start of every call; s.calls.Leave ends it.
func (s *Store) enter(ctx context.Context) error {
	if err := s.calls.Enter(ctx); err != nil {
		return err
	}
	if s.life.Err() != nil { // Close has begun, and what it ends first may be gone
		s.calls.Leave()
		return backend.ErrClosed
	}
	return nil
}

// Close implements backend.Store. It waits for the calls under way, at most as
// long as these may take, and leaves the pool open.
func (s *Store) Close() error {
	s.end()
	s.calls.Close()
	s.done.Wait()
	return nil
}
