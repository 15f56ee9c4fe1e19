package postgres_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/fobkit/fob/internal/await"
	network "github.com/fobkit/fob/internal/link"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

const hour = time.Hour

// hears waits until a Watch that wants a proof less often listens: then it polls no more.
func (w *watch) hears(t testing.TB) {
	t.Helper()
	last := -1
	w.until(t, "it listens", func() bool {
		w.mu.Unlock()
		time.Sleep(3 * backend.HeartbeatEvery / 2)
		w.mu.Lock()
		quiet := w.batches == last
		last = w.batches
		return quiet
	})
}

// announces sends a NOTIFY, as anybody can who may connect to the database.
func (p *place) announces(t testing.TB, s *postgres.Store, payload string) {
	t.Helper()
	_, err := p.pool.Exec(t.Context(), "SELECT pg_notify($1::text, $2::text)", s.Channel(), payload)
	require.NoError(t, err)
}

// Another process hears of a change by NOTIFY, long before it would poll.
func TestNotifyWakes(t *testing.T) {
	s, p := open(t, postgres.Options{})
	q := *p
	q.pool, _ = newPool(t, p.url, nil)
	writer := q.open(t, postgres.Options{})
	w := followEvery(t, hour, s, nil)
	w.hears(t)
	n := uint64(0)
	for range 20 {
		w.sees(t, n, create(t, writer, n))
		n++
	}
	await.Quick(t, "news of a change", 40*time.Millisecond, func() {
		w.sees(t, n, create(t, writer, n))
		n++
	})
	v, err := writer.Put(t.Context(), record(0), backend.IfVersion(1))
	require.NoError(t, err)
	w.sees(t, 0, v)
	require.NoError(t, writer.Delete(t.Context(), record(0).ID, v))
	w.sees(t, 0, v+1)
}

// A pool may have its own handler for notifications. A Watch then does not learn what is
// announced, only that something is.
func TestNotifyWakesWhereTheCallerHandlesIt(t *testing.T) {
	var heard atomic.Int64
	p := newPlace(t, server(t).URL("postgres"), func(c *pgxpool.Config) {
		c.ConnConfig.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) { heard.Add(1) }
	})
	s := p.open(t, postgres.Options{})
	w := followEvery(t, hour, s, nil)
	w.hears(t)
	for n := range uint64(3) {
		w.sees(t, n, create(t, s, n))
	}
	require.Positive(t, heard.Load())
}

// A change that somebody has announced before it was made is delivered when it is made.
func TestAnAnnouncementHidesNothing(t *testing.T) {
	s, p := open(t, postgres.Options{})
	version := create(t, s, 1)
	w := followEvery(t, hour, s, nil)
	w.hears(t)
	id := record(1).ID
	p.announces(t, s, s.Announcement(backend.Change{ID: id, Version: version + 1}))
	w.until(t, "what was announced", func() bool { return w.seen[id] == version+1 })
	look(w, func() bool { delete(w.seen, id); return true })
	_, err := p.pool.Exec(t.Context(), p.fill("INSERT INTO {schema}.change (version, id) VALUES ($1::bigint, $2::bytea)"), int64(version+1), id[:])
	require.NoError(t, err)
	p.announces(t, s, "look")
	w.sees(t, 1, version+1)
}

// What is not sealed by a process on the store names nothing, and only makes a Watch look.
func TestAnnouncementsOfOthers(t *testing.T) {
	s, p := open(t, postgres.Options{})
	other, _ := open(t, postgres.Options{})
	w := followEvery(t, hour, s, nil)
	w.hears(t)
	good := s.Announcement(backend.Change{ID: record(1).ID, Version: 1})
	for name, payload := range map[string]string{
		"empty": "", "text": "hello", "of another store": other.Announcement(backend.Change{ID: record(1).ID, Version: 1}),
		"changed": strings.Replace(good, good[30:31], string(good[30]^1), 1), "cut": good[:24], "longer": good + good, "no changes": s.Announcement(),
	} {
		batches := look(w, func() int { return w.batches })
		p.announces(t, s, payload)
		w.until(t, name, func() bool { return w.batches > batches })
		require.Empty(t, look(w, func() int { return w.changes }), name)
	}
	p.announces(t, s, good)
	w.sees(t, 1, 1)
	require.NotEqual(t, good, s.Announcement(backend.Change{ID: record(1).ID, Version: 1}), "whoever listens learns nothing, not even that it is the same again")

	// Where the schema is told from its copy by a new name, that is the name from then on.
	_, err := p.pool.Exec(t.Context(), p.fill("UPDATE {schema}.meta SET instance = gen_random_uuid()"))
	require.NoError(t, err)
	p.announces(t, s, "look")
	w.until(t, "a Reset", func() bool { return w.resets == 1 })
	id := record(3).ID
	p.announces(t, s, good)
	p.announces(t, s, s.Announcement(backend.Change{ID: id, Version: 1}))
	w.until(t, "what is announced under the new name", func() bool { return w.seen[id] == 1 })
	create(t, s, 2)
	w.sees(t, 2, 1)
}

// The server takes payloads of less than 8,000 bytes.
func TestAnnouncementsHaveRoom(t *testing.T) {
	s, p := open(t, postgres.Options{})
	w := followEvery(t, hour, s, nil)
	w.hears(t)
	var most []backend.Change
	for n := range uint64(postgres.PerNotify) {
		most = append(most, backend.Change{ID: record(n).ID, Version: 1<<63 - 1})
	}
	p.announces(t, s, s.Announcement(most...))
	for n := range uint64(postgres.PerNotify) {
		w.sees(t, n, 1<<63-1)
	}
}

// FuzzAnnouncement reads what anybody may send.
func FuzzAnnouncement(f *testing.F) {
	const instance = "0190-a"
	c := backend.Change{ID: backend.ID{1, 2, 3}, Version: 7}
	f.Add(postgres.Announcement(instance, c))
	f.Add(postgres.Announcement("0190-b", c))
	f.Add(postgres.Announcement(instance))
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, payload string) {
		changes, ok := postgres.ReadAnnouncement(instance, payload)
		require.Equal(t, ok, len(changes) > 0)
		if ok {
			again, ok := postgres.ReadAnnouncement(instance, postgres.Announcement(instance, changes...))
			require.True(t, ok)
			require.Equal(t, changes, again)
		}
	})
}

// sessions is how many connections to the server have a name.
func sessions(t testing.TB, p *place, name string) (n int) {
	t.Helper()
	require.NoError(t, p.pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1::text", name).Scan(&n))
	return n
}

// A Watch has one connection, however often it loses that, and none when it has ended: one
// that nobody reads would fill the server's queue of announcements.
func TestAWatchHasOneConnection(t *testing.T) {
	p := newPlace(t, server(t).URL("postgres"), nil)
	name := fmt.Sprint("one ", time.Now().UnixNano())
	q := *p
	q.pool, q.link = newPool(t, p.url, func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams["application_name"] = name
	})
	s := q.open(t, postgres.Options{})
	beside := func() int { return sessions(t, p, name) - int(q.pool.Stat().TotalConns()) }
	w := followEvery(t, hour, s, nil)
	for n := range uint64(3) {
		w.hears(t)
		await.Until(t, "one connection", func() bool { return beside() == 1 })
		q.link.sever()()
		w.sees(t, n, create(t, s, n))
	}
	w.hears(t)
	await.Until(t, "one connection, and no more", func() bool { return beside() == 1 })
	w.stop()
	await.Until(t, "none", func() bool { return beside() == 0 })
}

// While it listens, a Watch asks the server once for each proof, and no more often than the
// consumer wants one.
func TestAnIdleWatchAsksForItsProofsOnly(t *testing.T) {
	t.Parallel() // it mostly waits
	database := fmt.Sprint("idle_", time.Now().UnixNano())
	at := newPlace(t, server(t).URL("postgres"), nil)
	_, err := at.pool.Exec(t.Context(), "CREATE DATABASE "+database)
	require.NoError(t, err)
	transactions := func() (n int) {
		require.NoError(t, at.pool.QueryRow(t.Context(), "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1::text", database).Scan(&n))
		return n
	}
	p := newPlace(t, server(t).URL(database), nil)
	const every = 200 * time.Millisecond
	w := followEvery(t, every, p.open(t, postgres.Options{}), nil)
	w.hears(t)
	const proofs = 25 // the server may count transactions some proofs later
	before, first, began := transactions(), look(w, func() int { return w.batches }), time.Now()
	w.until(t, "proofs", func() bool { return w.batches >= first+proofs })
	told := look(w, func() int { return w.batches }) - first
	require.LessOrEqual(t, told, int(time.Since(began)/every)+2)
	asked := transactions() - before
	require.Greater(t, asked, proofs/2, "it counts what is meant")
	require.Less(t, asked, 2*told, "questions, for %d proofs", told)
}

// A connection that has silently died, as behind a gateway that has forgotten it, is found
// out by the question that has no answer on it: then another one takes over, before what
// the consumer holds is too old.
func TestAWakeUpThatHasSilentlyDied(t *testing.T) {
	t.Parallel() // it mostly waits
	p := newPlace(t, server(t).URL("postgres"), nil)
	far, err := network.Start(server(t).Address())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, far.Close()) })
	n := uint64(0)
	await.Until(t, "a proof in time", func() bool {
		n++
		require.NoError(t, far.Mend())
		var direct atomic.Bool
		q := *p
		q.pool, q.link = newPool(t, p.url, func(c *pgxpool.Config) {
			c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if !direct.Load() {
					addr = far.Addr()
				}
				return new(net.Dialer).DialContext(ctx, network, addr)
			}
		})
		s := q.open(t, postgres.Options{})
		w := followEvery(t, 500*time.Millisecond, s, nil)
		w.hears(t)
		direct.Store(true)
		q.pool.Reset()
		far.Silence()
		silent := time.Now()
		w.until(t, "a proof from another connection", func() bool { return w.last.AsOf.After(silent) })
		took := time.Since(silent)
		w.sees(t, n, create(t, s, n))
		w.stop()
		require.NoError(t, s.Close())
		return took < 2*time.Second // some attempts are late where the machine is busy
	})
}
