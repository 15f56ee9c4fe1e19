package postgres_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/internal/await"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// surelyNot is the answer to a write that has not been made and will not be.
func surelyNot(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotErrorIs(t, err, backend.ErrIndeterminate)
}

// A caller that gives up while its record waits knows that it will not be written;
// one whose record is on its way does not know. Nobody else suffers for it.
func TestGivingUpOnANewRecord(t *testing.T) {
	k := newStuck(t, postgres.Options{},
		`CREATE FUNCTION {schema}.gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.owner = 'gate' THEN PERFORM pg_advisory_xact_lock(4242); END IF; RETURN NEW; END $$`,
		`CREATE TRIGGER gate BEFORE INSERT ON {schema}.record FOR EACH ROW EXECUTE FUNCTION {schema}.gate()`)
	ctx, cancel := context.WithCancel(t.Context())
	gone := k.put(ctx, record(1))
	await.Until(t, "a record that waits", func() bool { return k.Waiting() == 1 })
	cancel()
	<-gone.done
	require.ErrorIs(t, gone.err, context.Canceled)
	surelyNot(t, gone.err)
	require.Zero(t, k.Waiting(), "it is not kept")

	ctx, cancel = context.WithCancel(t.Context())
	rec := record(2)
	gone = k.put(ctx, rec)
	await.Until(t, "a record that waits", func() bool { return k.Waiting() == 1 })
	other := record(3)
	other.Owner = "gate"
	stays := k.putAll(t, other)[0]
	gate := begin(t, k.place.url)
	_, err := gate.Exec(t.Context(), "SELECT pg_advisory_xact_lock(4242)")
	require.NoError(t, err)
	require.NoError(t, k.tx.Rollback(t.Context()))
	for _, o := range k.held {
		<-o.done
	}
	k.place.blocked(t, 1)
	cancel()
	<-gone.done
	require.ErrorIs(t, gone.err, context.Canceled)
	require.ErrorIs(t, gone.err, backend.ErrIndeterminate)
	copy(rec.Body, "the caller's again")
	require.NoError(t, gate.Rollback(t.Context()))
	k.calls.Wait()
	require.NoError(t, stays.err)
	got, err := k.Get(t.Context(), rec.ID)
	require.NoError(t, err, "it went with the other")
	require.Equal(t, record(2).Body, got.Body, "as it was when Put was called")
	_, err = k.Get(t.Context(), record(1).ID)
	require.ErrorIs(t, err, backend.ErrNotFound)
}

// Whatever the moment at which callers give up: an answer is a version or an error,
// what has a version is there with it, and what was surely not written is not.
func TestGivingUpAtAnyMoment(t *testing.T) {
	t.Parallel() // it mostly waits
	s, _ := open(t, postgres.Options{})
	const writers, each = 32, 80
	var mu sync.Mutex // guards what is below
	made, sure, unknown := map[backend.ID]uint64{}, map[backend.ID]bool{}, 0
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				rec := record(uint64(w*1000 + i))
				ctx, cancel := context.Background(), func() {}
				if (w+i)%4 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(1+i*7%20)*500*time.Microsecond)
				}
				version, err := s.Put(ctx, rec, backend.IfAbsent())
				if (err == nil) != (version != 0) {
					t.Errorf("version %d and error %v", version, err)
				}
				if err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("not the caller's own: %v", err)
				}
				cancel()
				copy(rec.Body, "the caller's again")
				mu.Lock()
				switch {
				case err == nil:
					made[rec.ID] = version
				case errors.Is(err, backend.ErrIndeterminate):
					unknown++
				default:
					sure[rec.ID] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d made, %d surely not, %d unknown", len(made), len(sure), unknown)
	require.GreaterOrEqual(t, len(made), writers*each*3/4, "those without a limit")
	for id, version := range made {
		got, err := s.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, version, got.Version)
		require.Equal(t, record(0).Body, got.Body)
	}
	for id := range sure {
		_, err := s.Get(t.Context(), id)
		require.ErrorIs(t, err, backend.ErrNotFound)
	}
}

// When the last caller has gone, so is its statement: it holds up no other, and no
// Close.
func TestNothingOutlastsItsCallers(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, k *stuck){
		"Close": func(t *testing.T, k *stuck) {
			require.NoError(t, k.Close()) // StatementTimeout, which is an hour, is not waited for
		},
		"others": func(t *testing.T, k *stuck) {
			require.NoError(t, k.tx.Rollback(t.Context()))
			create(t, k, 77)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, server(t).URL("postgres"), nil)
			k := &stuck{Store: p.open(t, postgres.Options{StatementTimeout: time.Hour}), place: p, tx: begin(t, p.url)}
			k.SetLongFlight(time.Hour)
			_, err := k.tx.Exec(t.Context(), p.fill("LOCK TABLE {schema}.record IN SHARE MODE"))
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			for i := range postgres.MaxLanes {
				k.put(ctx, record(uint64(i)))
			}
			p.blocked(t, postgres.MaxLanes)
			later, cancelLater := context.WithCancel(t.Context())
			for i := range 8 {
				k.put(later, record(uint64(100+i)))
			}
			await.Until(t, "eight that wait", func() bool { return k.Waiting() == 8 })
			cancel()
			// What the lanes have taken next is one statement of eight.
			await.Until(t, "eight that are on their way", func() bool { return k.Waiting() == 0 })
			p.blocked(t, 1)
			cancelLater()
			k.calls.Wait()
			end(t, k)
		})
	}
}

// Where the application has all of the pool, a record that finds no connection was
// surely not written, and is not written later.
func TestWithoutAConnectionNothingWasWritten(t *testing.T) {
	p := newPlace(t, server(t).URL("postgres"), func(c *pgxpool.Config) { c.MaxConns = 4 })
	s := p.open(t, postgres.Options{})
	var conns []*pgxpool.Conn
	for range 4 {
		conn, err := p.pool.Acquire(t.Context())
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.SetLongFlight(time.Hour)
	k := &stuck{Store: s, place: p}
	var puts []*outcome
	for i := range 60 {
		puts = append(puts, k.put(ctx, record(uint64(i))))
	}
	await.Until(t, "records that wait", func() bool { return k.Waiting() > 50 })
	cancel()
	k.calls.Wait()
	for _, conn := range conns {
		conn.Release()
	}
	for i, o := range puts {
		surelyNot(t, o.err)
		_, err := s.Get(t.Context(), record(uint64(i)).ID)
		require.ErrorIs(t, err, backend.ErrNotFound)
	}
	create(t, s, 1)
}

// Without a deadline of the caller's, StatementTimeout bounds all of the wait: for a
// lane, with others, and alone after the server has refused them together.
func TestWaitingForOthersIsBounded(t *testing.T) {
	t.Parallel() // it mostly waits
	const timeout = 4 * time.Second
	// On a busy machine the steps may come too late for their order.
	await.Until(t, "a Put that is sent in half of its time and answered at its end", func() bool {
		k := newStuck(t, postgres.Options{StatementTimeout: timeout}, slowTrigger...)
		start := time.Now()
		recs := records(2)
		recs[0].Owner, recs[1].Owner = "poison", "slow"
		puts := []*outcome{k.put(context.Background(), recs[0])}
		await.Until(t, "a record that waits", func() bool { return k.Waiting() > 0 })
		puts = append(puts, k.put(context.Background(), recs[1])) // behind the other
		time.Sleep(time.Until(start.Add(timeout / 2)))
		require.NoError(t, k.tx.Rollback(t.Context()))
		<-puts[1].done
		took := time.Since(start)
		<-puts[0].done
		require.NotErrorIs(t, puts[1].err, context.DeadlineExceeded, "it is none of the caller's")
		require.ErrorContains(t, puts[1].err, "StatementTimeout")
		require.Error(t, puts[0].err)
		return took < timeout*3/2 && errors.Is(puts[1].err, backend.ErrIndeterminate) && !errors.Is(puts[0].err, backend.ErrIndeterminate)
	})
}

// slowTrigger makes the server take its time for some owners, and refuse some.
var slowTrigger = []string{
	`CREATE FUNCTION {schema}.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.owner = 'poison' THEN RAISE EXCEPTION 'poison'; ELSIF NEW.owner = 'slow' THEN PERFORM pg_sleep(30); END IF; RETURN NEW; END $$`,
	`CREATE TRIGGER slow BEFORE INSERT ON {schema}.record FOR EACH ROW EXECUTE FUNCTION {schema}.slow()`,
}

// Also after a refusal no more than the lanes' share of the pool is used.
func TestAfterARefusalThePoolIsNotTaken(t *testing.T) {
	k := newStuck(t, postgres.Options{},
		`CREATE FUNCTION {schema}.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RAISE EXCEPTION 'no'; END $$`,
		`CREATE TRIGGER no BEFORE INSERT ON {schema}.record FOR EACH ROW EXECUTE FUNCTION {schema}.no()`)
	puts := k.putAll(t, records(40)...)
	require.NoError(t, k.tx.Rollback(t.Context()))
	ended := make(chan struct{})
	go func() {
		k.calls.Wait()
		close(ended)
	}()
	most := int32(0)
	for running := true; running; {
		select {
		case <-ended:
			running = false
		case <-time.After(time.Millisecond):
			most = max(most, k.place.pool.Stat().AcquiredConns())
		}
	}
	require.LessOrEqual(t, most, int32(postgres.MaxLanes)+1, "and the one that notifies")
	for _, o := range puts {
		surelyNot(t, o.err)
	}
}

// What is wrong with the server is not asked again for each record.
func TestARefusalOfAllIsOne(t *testing.T) {
	for name, breaks := range map[string]func(t *testing.T, k *stuck){
		"no table": func(t *testing.T, k *stuck) {
			_, err := k.tx.Exec(t.Context(), k.place.fill("ALTER TABLE {schema}.change RENAME TO gone"))
			require.NoError(t, err)
			require.NoError(t, k.tx.Commit(t.Context()))
		},
		"no connection": func(t *testing.T, k *stuck) {
			k.place.link.sever()
			require.NoError(t, k.tx.Rollback(t.Context()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var acquired atomic.Int64
			p := newPlace(t, server(t).URL("postgres"), nil)
			p.pool, p.link = newPool(t, p.url, func(c *pgxpool.Config) {
				c.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { acquired.Add(1); return nil }
				c.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) { acquired.Add(1); return true, nil }
			})
			k := stuckAt(t, p, postgres.Options{})
			puts := k.putAll(t, records(60)...)
			acquired.Store(0)
			breaks(t, k)
			k.calls.Wait()
			require.Less(t, acquired.Load(), int64(30))
			for _, o := range puts {
				if !errors.Is(o.err, backend.ErrIndeterminate) || name == "no table" {
					require.ErrorIs(t, o.err, backend.ErrUnavailable)
				}
			}
		})
	}
}

// A statement that does not come back, because its connection died without a sign, or
// somebody has the turn of its ID, does not hold up others, even where its callers
// have all the time in the world.
func TestOthersGoOnBesideWhatHangs(t *testing.T) {
	t.Parallel() // it mostly waits
	p := newPlace(t, server(t).URL("postgres"), nil)
	var mu sync.Mutex // guards conns
	var conns []*icy
	p.pool, p.link = newPool(t, p.url, func(c *pgxpool.Config) {
		dial := c.ConnConfig.DialFunc
		c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, &icy{Conn: conn, cold: make(chan struct{})})
			return conns[len(conns)-1], nil
		}
	})
	k := &stuck{Store: p.open(t, postgres.Options{}), place: p, tx: begin(t, p.url)}
	_, err := k.tx.Exec(t.Context(), p.fill("SELECT {turn}"), idOf(1))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var hang []*outcome
	for range postgres.MaxLanes {
		hang = append(hang, k.put(ctx, record(1)))
	}
	p.blocked(t, postgres.MaxLanes)
	others := func(n uint64) {
		t.Helper()
		for i := range uint64(20) {
			_, err := k.Put(t.Context(), record(n+i), backend.IfAbsent())
			require.NoError(t, err)
		}
	}
	others(100)

	// Now nothing arrives any more on the connections that are open.
	mu.Lock()
	for _, c := range conns {
		close(c.cold)
	}
	mu.Unlock()
	await.Until(t, "a Put on a connection that works", func() bool { // those that are idle fail one by one
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := k.Put(short, record(200), backend.IfAbsent())
		return err == nil || errors.Is(err, backend.ErrConflict)
	})
	others(300)
	cancel()
	k.calls.Wait()
	for _, o := range hang {
		require.ErrorIs(t, o.err, context.Canceled)
	}
}

// icy is a connection on which nothing arrives any more once it is cold.
type icy struct {
	net.Conn
	cold chan struct{}
}

func (c *icy) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.cold:
		for err == nil {
			n, err = c.Conn.Read(b)
		}
	default:
	}
	return n, err
}

// Those who wait when the connections break, or when the store is closed, are
// answered.
func TestWaitingWhenTheServerGoes(t *testing.T) {
	k := newStuck(t, postgres.Options{})
	recs := records(10)
	puts := k.putAll(t, recs...)
	heal := k.place.link.sever()
	k.calls.Wait()
	for _, o := range k.held {
		require.ErrorIs(t, o.err, backend.ErrIndeterminate)
	}
	heal()
	require.NoError(t, k.tx.Rollback(t.Context()))
	for i, o := range puts {
		// It may have got a connection that was just about to be cut.
		if errors.Is(o.err, backend.ErrIndeterminate) {
			continue
		}
		require.ErrorIs(t, o.err, backend.ErrUnavailable)
		await.Until(t, "it was not sent", func() bool {
			_, err := k.Get(t.Context(), recs[i].ID)
			return errors.Is(err, backend.ErrNotFound)
		})
	}
	await.Until(t, "a Put on a connection that works", func() bool {
		_, err := k.Put(t.Context(), record(100), backend.IfAbsent())
		return err == nil
	})

	k = newStuck(t, postgres.Options{})
	puts = k.putAll(t, records(10)...)
	closed := make(chan error, 1)
	go func() { closed <- k.Close() }()
	await.Until(t, "ErrClosed", func() bool {
		_, err := k.Get(t.Context(), record(1).ID)
		return errors.Is(err, backend.ErrClosed)
	})
	k.let(t)
	for _, o := range puts {
		require.NoError(t, o.err, "it was accepted before Close")
	}
	require.NoError(t, <-closed)
}
