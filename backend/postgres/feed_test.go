package postgres_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/internal/await"
	"github.com/fobkit/fob/internal/pgtest"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func record(n uint64) backend.Record {
	r := backend.Record{Kind: 1, Owner: fmt.Sprintf("app-%d", n%100), Created: 1_700_000_000_000 + int64(n), Body: make([]byte, 200)}
	binary.BigEndian.PutUint64(r.ID[:], n*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(r.ID[8:], n+1)
	return r
}

// create puts a new record and returns its version.
func create(t testing.TB, s backend.Store, n uint64) uint64 {
	t.Helper()
	v, err := s.Put(context.Background(), record(n), backend.IfAbsent())
	require.NoError(t, err)
	return v
}

// watch is a Watch in a goroutine, and what it delivered.
type watch struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // after done

	mu      sync.Mutex // guards what is below
	seen    map[backend.ID]uint64
	changes int
	batches int
	resets  int
	largest int
	last    backend.Batch
}

func follow(t testing.TB, s backend.Watcher, from backend.Token) *watch {
	t.Helper()
	return followEvery(t, 0, s, from)
}

// followEvery asks for a proof so often.
func followEvery(t testing.TB, every time.Duration, s backend.Watcher, from backend.Token) *watch {
	t.Helper()
	ctx, cancel := context.WithCancel(backend.WithProofEvery(context.Background(), every))
	w := &watch{cancel: cancel, done: make(chan struct{}), seen: make(map[backend.ID]uint64)}
	go func() {
		defer close(w.done)
		w.err = begun(w, func() error {
			return s.Watch(ctx, from, func(b backend.Batch) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				for _, c := range b.Changes {
					w.seen[c.ID] = max(w.seen[c.ID], c.Version)
				}
				w.changes += len(b.Changes)
				w.largest = max(w.largest, len(b.Changes))
				w.batches++
				if b.Reset {
					w.resets++
				}
				b.Token = slices.Clone(b.Token)
				w.last = b
				return nil
			})
		})
	}()
	t.Cleanup(w.stop)
	w.until(t, "the first batch", func() bool { return w.batches > 0 })
	return w
}

// begun calls a Watch again that a busy server did not let begin: the first poll has two
// seconds for its answer.
func begun(w *watch, watch func() error) error {
	for {
		err := watch()
		if !errors.Is(err, backend.ErrUnavailable) || look(w, func() int { return w.batches }) > 0 {
			return err
		}
	}
}

func (w *watch) stop() {
	w.cancel()
	<-w.done
}

// until waits for something in what was delivered.
func (w *watch) until(t testing.TB, what string, there func() bool) {
	t.Helper()
	await.Until(t, what, func() bool {
		if look(w, there) {
			return true
		}
		select {
		case <-w.done:
			require.FailNow(t, "the Watch ended before "+what, "%v", w.err)
		default:
		}
		return false
	})
}

func (w *watch) sees(t testing.TB, n, version uint64) {
	t.Helper()
	w.until(t, fmt.Sprint("record ", n), func() bool { return w.seen[record(n).ID] >= version })
}

// look reads something of it.
func look[T any](w *watch, read func() T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	return read()
}

func (w *watch) token() backend.Token {
	return look(w, func() backend.Token { return w.last.Token })
}

// moves waits for a token after another one. The log has to reach the disk first,
// for which a commit sees; a quiet server may take its time.
func (w *watch) moves(t testing.TB, p *place, from backend.Token) {
	t.Helper()
	_, err := p.pool.Exec(context.Background(), "SELECT pg_logical_emit_message(true, '', '')")
	require.NoError(t, err)
	w.until(t, "another token", func() bool { return !bytes.Equal(w.last.Token, from) })
}

// begin opens a transaction that has a number, so that it holds the horizon of
// every snapshot until it ends.
func begin(t testing.TB, url string) pgx.Tx {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	require.NoError(t, err)
	tx, err := conn.Begin(context.Background())
	require.NoError(t, err)
	_, err = tx.Exec(context.Background(), "SELECT pg_current_xact_id()")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return tx
}

// A transaction that stays open, here or in another database of the server, holds
// nothing back; what it commits late is delivered, though others with higher
// numbers were before it; and nothing is delivered twice meanwhile.
func TestAnOpenTransactionHoldsNothingBack(t *testing.T) {
	s, p := open(t, postgres.Options{})
	other := fmt.Sprint("other_", time.Now().UnixNano())
	_, err := p.pool.Exec(t.Context(), "CREATE DATABASE "+other)
	require.NoError(t, err)
	create(t, s, 0)
	w := follow(t, s, nil)
	begun := w.token()

	here, there := begin(t, p.url), begin(t, server(t).URL(other))
	late := record(1_000_000)
	_, err = here.Exec(t.Context(), s.SQL()["insert"], postgres.InsertArgs(late)...)
	require.NoError(t, err)
	const n = 200
	for i := range uint64(n) {
		w.sees(t, i+1, create(t, s, i+1))
	}
	resumed := follow(t, s, w.token())
	require.Zero(t, look(resumed, func() uint64 { return resumed.seen[late.ID] }), "not yet committed")
	require.NoError(t, here.Commit(t.Context()))
	for _, w := range []*watch{w, resumed} {
		w.until(t, "what was committed late", func() bool { return w.seen[late.ID] > 0 })
	}

	create(t, s, n+1)
	w.sees(t, n+1, 1)
	require.NoError(t, there.Commit(t.Context()))
	create(t, s, n+2)
	w.sees(t, n+2, 1)
	last := look(w, func() int { return w.batches })
	w.until(t, "some more polls", func() bool { return w.batches > last+3 })
	told := look(w, func() int { return w.changes })
	require.LessOrEqual(t, told, 2*(n+3), "each change as it is announced, and once more with the proof")
	last = look(w, func() int { return w.batches })
	w.until(t, "some more polls", func() bool { return w.batches > last+3 })
	require.Equal(t, told, look(w, func() int { return w.changes }), "and then no more")
	require.Zero(t, look(w, func() int { return w.resets + resumed.resets }))

	all := follow(t, s, begun)
	for i := range uint64(n + 2) {
		all.sees(t, i+1, 1)
	}
	all.until(t, "what was committed late", func() bool { return all.seen[late.ID] > 0 })
}

// Many writers whose transactions stay open for a while, in an order of their
// own: a cursor by sequence number misses most of them.
func TestTransactionsThatCommitOutOfOrder(t *testing.T) {
	t.Parallel() // it mostly waits
	s, p := open(t, postgres.Options{})
	w := follow(t, s, nil)
	const writers, each = 12, 25
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		wg.Go(func() {
			for n := range each {
				rec := record(uint64(i*each + n))
				errs[i] = errors.Join(errs[i], pgx.BeginFunc(context.Background(), p.pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(context.Background(), s.SQL()["insert"], postgres.InsertArgs(rec)...)
					time.Sleep(time.Duration((i*7+n*13)%20) * time.Millisecond) // the order of commits is not that of numbers
					return err
				}))
			}
		})
	}
	// A consumer that resumes from a token all the time, beside the one that stays.
	got, token, stop := map[backend.ID]bool{}, w.token(), errors.New("stop")
	resume := func() {
		await.Until(t, "a Watch that begins", func() bool {
			err := s.Watch(t.Context(), token, func(b backend.Batch) error {
				for _, c := range b.Changes {
					got[c.ID] = true
				}
				token = b.Token
				return stop
			})
			if errors.Is(err, backend.ErrUnavailable) {
				return false
			}
			require.ErrorIs(t, err, stop)
			return true
		})
	}
	written := make(chan struct{})
	go func() { defer close(written); wg.Wait() }()
	for writing := true; writing; {
		select {
		case <-written:
			writing = false
		default:
		}
		resume()
	}
	require.NoError(t, errors.Join(errs...))
	resume()
	for n := range uint64(writers * each) {
		w.sees(t, n, 1)
		require.True(t, got[record(n).ID], "record %d was missed by resuming", n)
	}
}

// A prepared transaction is open too, and outlives its session.
func TestAPreparedTransaction(t *testing.T) {
	s, p := open(t, postgres.Options{})
	w := follow(t, s, nil)
	rec := record(7)
	tx := begin(t, p.url)
	_, err := tx.Exec(t.Context(), s.SQL()["insert"], postgres.InsertArgs(rec)...)
	require.NoError(t, err)
	name := fmt.Sprint("'t", time.Now().UnixNano(), "'")
	_, err = tx.Exec(t.Context(), "PREPARE TRANSACTION "+name)
	require.NoError(t, err)
	w.sees(t, 8, create(t, s, 8))
	require.Zero(t, look(w, func() uint64 { return w.seen[rec.ID] }))
	_, err = p.pool.Exec(t.Context(), "COMMIT PREPARED "+name)
	require.NoError(t, err)
	w.sees(t, 7, 1)
}

// What was trimmed is never passed over in silence: a token from before it gets a
// Reset, one from after it goes on.
func TestResumeAcrossRetention(t *testing.T) {
	s, p := open(t, postgres.Options{})
	create(t, s, 0)
	w := follow(t, s, nil)
	old := w.token()
	w.sees(t, 1, create(t, s, 1))
	w.moves(t, p, old)

	count := func() (n int) {
		require.NoError(t, p.pool.QueryRow(t.Context(), p.fill("SELECT count(*) FROM {schema}.change")).Scan(&n))
		return n
	}
	require.NoError(t, s.Maintain(t.Context()), "nothing is old enough")
	require.Equal(t, 2, count())
	follow(t, s, old).sees(t, 1, 1)

	// An open transaction may still write what nobody has seen.
	open := begin(t, p.url)
	w.sees(t, 2, create(t, s, 2))
	require.NoError(t, s.TrimOlder(t.Context(), -time.Hour))
	require.Equal(t, 1, count(), "what is later than a running transaction stays")
	held := w.token()
	require.NoError(t, open.Rollback(t.Context()))
	w.moves(t, p, held)
	require.NoError(t, s.TrimOlder(t.Context(), -time.Hour))
	require.Zero(t, count())
	for range 2 { // the poll that brings the second token began after the trim
		w.moves(t, p, w.token())
	}

	for name, c := range map[string]struct {
		token  backend.Token
		resets int
	}{"old": {old, 1}, "fresh": {w.token(), 0}} {
		w := follow(t, s, c.token)
		require.Equal(t, c.resets, look(w, func() int { return w.resets }), name)
		n := uint64(100 + c.resets)
		w.sees(t, n, create(t, s, n))
	}
	last := look(w, func() int { return w.batches })
	w.until(t, "some more polls", func() bool { return w.batches > last+3 })
	require.Zero(t, look(w, func() int { return w.resets }), "who keeps up never loses anything")
}

// A dump brings the floor of the server that it was made on, which may have been
// much further on. It means nothing here: no Watch is reset by it, and trimming
// sets one that does.
func TestTheFloorOfAnotherServer(t *testing.T) {
	s, p := open(t, postgres.Options{})
	fill := p.fill
	_, err := p.pool.Exec(t.Context(), fill("UPDATE {schema}.meta SET floor = 1::bigint << 40"))
	require.NoError(t, err)
	w := follow(t, s, nil)
	old := w.token()
	w.sees(t, 1, create(t, s, 1))
	w.moves(t, p, old)
	require.Zero(t, look(w, func() int { return w.resets }))
	require.NoError(t, s.TrimOlder(t.Context(), -time.Hour))
	var floor int64
	require.NoError(t, p.pool.QueryRow(t.Context(), fill("SELECT floor FROM {schema}.meta")).Scan(&floor))
	require.Less(t, floor, int64(1)<<40)
	resumed := follow(t, s, old)
	require.Equal(t, 1, look(resumed, func() int { return resumed.resets }), "what it had not seen was trimmed")
}

// A backlog arrives whole, in bounded batches, none of which claims more than it proves.
func TestABacklogComesInPages(t *testing.T) {
	s, p := open(t, postgres.Options{})
	w := follow(t, s, nil)
	token := w.token()
	// More than two pages, in transactions of one and of very many changes.
	const n = 2*postgres.MaxChanges + 500
	fill := func(from, to int) {
		_, err := p.pool.Exec(t.Context(), p.fill(
			`INSERT INTO {schema}.change (version, id) SELECT {version}, decode(md5(i::text), 'hex') FROM generate_series($1::int, $2::int) i`), from, to)
		require.NoError(t, err)
	}
	// A restore may bring rows of a server that was further on.
	_, err := p.pool.Exec(t.Context(), p.fill(
		`INSERT INTO {schema}.change (txid, version, id) SELECT 1::bigint << 60, {version}, decode(md5('later'), 'hex')`))
	require.NoError(t, err)
	fill(1, 10)
	fill(11, n)
	for name, from := range map[string]backend.Token{"live": nil, "resumed": token} {
		one := w
		if from != nil {
			one = follow(t, s, from)
		}
		one.until(t, name, func() bool { return len(one.seen) == n })
		one.until(t, name, func() bool { return !one.last.AsOf.IsZero() })
		require.LessOrEqual(t, look(one, func() int { return one.largest }), postgres.MaxChanges, name)
	}
	// From every token on the way the rest is delivered.
	seen, stop := map[backend.ID]bool{}, errors.New("stop")
	var proven time.Time
	for len(seen) < n {
		before := time.Now()
		parts := 0
		err := s.Watch(t.Context(), token, func(b backend.Batch) error {
			for _, c := range b.Changes {
				seen[c.ID] = true
			}
			if len(seen) < n && b.AsOf.After(before) {
				t.Errorf("a batch claims to be complete, with %d of %d changes delivered", len(seen), n)
			}
			proven, token = b.AsOf, b.Token
			if parts++; parts < 3 {
				return nil // a page within one transaction cannot be resumed behind it
			}
			return stop
		})
		if errors.Is(err, backend.ErrUnavailable) {
			continue // a busy server did not let it begin
		}
		require.ErrorIs(t, err, stop)
	}
	require.False(t, proven.IsZero())
}

// A Watch goes on through a short outage, without a claim about it, and ends with
// the error of a long one.
func TestWatchInAnOutage(t *testing.T) {
	t.Parallel() // it mostly waits
	s, p := open(t, postgres.Options{})
	s.SetOutage(time.Hour)
	w := follow(t, s, nil)
	before := p.link.dialled()
	heal := p.link.sever()
	await.Until(t, "attempts to connect during the outage", func() bool { return p.link.dialled() > before+3 })
	heal()
	w.sees(t, 1, create(t, s, 1))
	w.stop()

	s = p.open(t, postgres.Options{})
	s.SetOutage(500 * time.Millisecond)
	w = follow(t, s, nil)
	defer p.link.sever()()
	<-w.done
	require.ErrorIs(t, w.err, backend.ErrUnavailable)
	require.ErrorIs(t, s.Watch(t.Context(), w.token(), func(backend.Batch) error { return nil }), backend.ErrUnavailable, "and does not begin in one")
}

// A server that does not answer holds a poll up for a while only, and proves
// nothing meanwhile.
func TestAPollThatHangs(t *testing.T) {
	t.Parallel() // it mostly waits
	s, p := open(t, postgres.Options{})
	w := follow(t, s, nil)
	tx := begin(t, p.url)
	_, err := tx.Exec(t.Context(), p.fill("LOCK TABLE {schema}.change IN ACCESS EXCLUSIVE MODE"))
	require.NoError(t, err)
	locked := time.Now()
	time.Sleep(2500 * time.Millisecond) // more than one poll may take
	require.False(t, look(w, func() bool { return w.last.AsOf.After(locked) }))
	require.NoError(t, tx.Rollback(t.Context()))
	w.sees(t, 1, create(t, s, 1))
}

// Without a connection to listen on a Watch polls, and says so once.
func TestWatchPollsWhereItCannotListen(t *testing.T) {
	p := newPlace(t, server(t).URL("postgres"), nil)
	var logged bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&logged, nil))
	pooler, err := server(t).Pooler(t.Context())
	if errors.Is(err, pgtest.ErrNoPooler) {
		t.Skip("watching behind a pooler: ", err)
	}
	require.NoError(t, err)
	defer func() { require.NoError(t, pooler.Close()) }()
	p.pool, p.link = newPool(t, pooler.URL("postgres"), simple)
	s := p.open(t, postgres.Options{Logger: logger})
	a, b := follow(t, s, nil), follow(t, s, nil)
	for _, w := range []*watch{a, b} {
		w.sees(t, 1, max(1, create1(s)))
	}
	a.stop()
	b.stop()
	require.NoError(t, s.Close())
	require.Equal(t, 1, bytes.Count(logged.Bytes(), []byte("polling instead")), logged.String())
}

func create1(s backend.Store) uint64 {
	v, _ := s.Put(context.Background(), record(1), backend.IfAbsent()) // the second finds it there
	return v
}
