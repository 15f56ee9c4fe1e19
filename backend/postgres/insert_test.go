package postgres_test

import (
	"context"
	"errors"
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

// stuck is a store all of whose lanes wait for the server: what is put into it
// waits for them, until let is called.
type stuck struct {
	*postgres.Store
	place *place
	tx    pgx.Tx
	held  []*outcome // what the lanes are held by
	calls sync.WaitGroup
}

// outcome is what a Put has returned, once done is closed.
type outcome struct {
	version uint64
	err     error
	done    chan struct{}
}

func newStuck(t *testing.T, opts postgres.Options, prepare ...string) *stuck {
	t.Helper()
	return stuckAt(t, newPlace(t, server(t).URL("postgres"), nil), opts, prepare...)
}

func stuckAt(t *testing.T, p *place, opts postgres.Options, prepare ...string) *stuck {
	t.Helper()
	for _, sql := range prepare {
		_, err := p.pool.Exec(t.Context(), p.fill(sql))
		require.NoError(t, err)
	}
	k := &stuck{Store: p.open(t, opts), place: p}
	k.SetLongFlight(time.Hour)
	t.Cleanup(k.calls.Wait)
	k.tx = begin(t, p.url) // closed before, should the test fail
	_, err := k.tx.Exec(t.Context(), p.fill("LOCK TABLE {schema}.record IN SHARE MODE"))
	require.NoError(t, err)
	for i := range postgres.MaxLanes {
		k.held = append(k.held, k.put(context.Background(), record(uint64(1_000_000+i))))
	}
	p.blocked(t, postgres.MaxLanes)
	return k
}

// blocked waits until so many statements with new records wait for a lock.
func (p *place) blocked(t *testing.T, want int) {
	t.Helper()
	var conn *pgx.Conn
	conn, err := pgx.Connect(t.Context(), p.url) // the pool may be in use
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	const begins = "WITH turn"
	await.Until(t, "statements that wait for a lock", func() bool {
		var n int
		err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1::text || '%' || $2::text || '%'`, begins, p.fill("INSERT INTO {schema}.record")).Scan(&n)
		return err == nil && n == want
	})
}

// put begins a Put of a record that is not to be there yet.
func (k *stuck) put(ctx context.Context, rec backend.Record) *outcome {
	o := &outcome{done: make(chan struct{})}
	k.calls.Go(func() {
		defer close(o.done)
		o.version, o.err = k.Put(ctx, rec, backend.IfAbsent())
	})
	return o
}

// putAll begins several, and returns once all wait.
func (k *stuck) putAll(t *testing.T, recs ...backend.Record) (out []*outcome) {
	t.Helper()
	before := k.Waiting()
	for _, rec := range recs {
		out = append(out, k.put(context.Background(), rec))
		await.Until(t, "a record that waits", func() bool { return k.Waiting() == before+len(out) })
	}
	return out
}

// let lets the server go on, and waits for all that was begun.
func (k *stuck) let(t *testing.T) {
	t.Helper()
	require.NoError(t, k.tx.Rollback(t.Context()))
	k.calls.Wait()
	for _, o := range k.held {
		require.NoError(t, o.err)
	}
}

// transactions is how many have made the first n records.
func (p *place) transactions(t *testing.T, n int) (txs int) {
	t.Helper()
	ids := make([][]byte, n)
	for i := range ids {
		id := record(uint64(i)).ID
		ids[i] = id[:]
	}
	require.NoError(t, p.pool.QueryRow(t.Context(), p.fill("SELECT count(DISTINCT txid) FROM {schema}.change WHERE id = ANY ($1::bytea[])"), ids).Scan(&txs))
	return txs
}

func records(n int) (recs []backend.Record) {
	for i := range n {
		recs = append(recs, record(uint64(i)))
	}
	return recs
}

// New records that come while others are being written go together: one
// transaction, one sync of the log.
func TestNewRecordsShareACommit(t *testing.T) {
	k := newStuck(t, postgres.Options{})
	w := follow(t, k, nil)
	recs := records(60)
	puts := k.putAll(t, recs...)
	k.let(t)
	seen := make(map[uint64]bool)
	for i, o := range puts {
		require.NoError(t, o.err)
		require.False(t, seen[o.version], "versions are of one record")
		seen[o.version] = true
		got, err := k.Get(t.Context(), recs[i].ID)
		require.NoError(t, err)
		want := recs[i]
		want.Version = o.version
		require.Equal(t, want, got)
		w.sees(t, uint64(i), o.version)
	}
	require.Equal(t, 1, k.place.transactions(t, len(recs)))
	require.Zero(t, k.Waiting())
	create(t, k, 200)
}

// A statement takes no more than it should: sixty-four records, a megabyte.
func TestOneStatementTakesABoundedPart(t *testing.T) {
	for name, c := range map[string]struct{ n, body, most int }{
		"records": {150, 10, 64},
		"bytes":   {40, backend.MaxBody, 16},
	} {
		t.Run(name, func(t *testing.T) {
			k := newStuck(t, postgres.Options{})
			recs := records(c.n)
			for i := range recs {
				recs[i].Body = make([]byte, c.body)
			}
			puts := k.putAll(t, recs...)
			k.let(t)
			for _, o := range puts {
				require.NoError(t, o.err)
			}
			require.GreaterOrEqual(t, k.place.transactions(t, c.n), (c.n+c.most-1)/c.most)
			require.LessOrEqual(t, k.place.transactions(t, c.n), (c.n+c.most-1)/c.most+postgres.MaxLanes)
		})
	}
}

// Each of those that share a statement has an answer of its own.
func TestEachNewRecordHasItsOwnAnswer(t *testing.T) {
	k := newStuck(t, postgres.Options{})
	_, err := k.tx.Exec(t.Context(), k.place.fill(`INSERT INTO {schema}.record SELECT $1::bytea, 1, '', NULL, 0, 0, 0, {version}, '', '{}'`), idOf(2))
	require.NoError(t, err)
	// 1 twice, 2 is there, 3 is fine.
	puts := k.putAll(t, record(1), record(1), record(2), record(3))
	require.NoError(t, k.tx.Commit(t.Context()))
	k.calls.Wait()
	first, second := puts[0].err, puts[1].err // whichever lane was quicker
	if second == nil {
		first, second = second, first
	}
	require.NoError(t, first)
	require.ErrorIs(t, second, backend.ErrConflict)
	require.ErrorIs(t, puts[2].err, backend.ErrConflict)
	require.NoError(t, puts[3].err)
	for i, o := range puts {
		require.Equal(t, o.err == nil, o.version != 0, i)
	}
}

func idOf(n uint64) []byte {
	id := record(n).ID
	return id[:]
}

// A record whose ID somebody else has the turn of, here a delete under way, waits for
// it by itself and gets a higher number; the others do not wait.
func TestTheOthersDoNotWaitForOnesTurn(t *testing.T) {
	k := newStuck(t, postgres.Options{}, `INSERT INTO {schema}.record SELECT decode('ff000000000000000000000000000000', 'hex'), 1, '', NULL, 0, 0, 0, {version}, '', '{}'`)
	last := record(1)
	last.ID = backend.ID{0xff} // after all others
	more := begin(t, k.place.url)
	_, err := more.Exec(t.Context(), k.place.fill("SELECT {turn}"), last.ID[:])
	require.NoError(t, err)
	puts := k.putAll(t, record(1), record(2), last)
	require.NoError(t, k.tx.Rollback(t.Context()))
	_, err = more.Exec(t.Context(), k.place.fill("DELETE FROM {schema}.record WHERE id = $1::bytea"), last.ID[:])
	require.NoError(t, err)
	k.place.blocked(t, 1)
	for _, o := range puts[:2] {
		<-o.done
	}
	var deleted int64
	require.NoError(t, more.QueryRow(t.Context(), k.place.fill("SELECT {version}")).Scan(&deleted))
	require.NoError(t, more.Commit(t.Context()))
	k.calls.Wait()
	for _, o := range puts {
		require.NoError(t, o.err)
	}
	require.Greater(t, puts[2].version, uint64(deleted))
}

// What the server refuses for one of them, the others do not suffer for.
func TestARefusedRecordDoesNotTakeOthersAlong(t *testing.T) {
	k := newStuck(t, postgres.Options{}, `ALTER TABLE {schema}.record ADD CHECK (owner <> 'poison')`)
	recs := records(20)
	recs[7].Owner = "poison"
	puts := k.putAll(t, recs...)
	k.let(t)
	for i, o := range puts {
		if i == 7 {
			require.ErrorIs(t, o.err, backend.ErrUnavailable)
			require.NotErrorIs(t, o.err, backend.ErrIndeterminate)
			continue
		}
		require.NoError(t, o.err, i)
	}
}

// However many statements insert at once, with the same IDs in any order, each
// record is made once, and nobody waits for a deadlock to be found.
func TestManyInsertTheSame(t *testing.T) {
	p := newPlace(t, server(t).URL("postgres"), nil)
	var stores []*postgres.Store
	for range 2 {
		q := *p
		q.pool, _ = newPool(t, p.url, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["deadlock_timeout"] = "10min" })
		stores = append(stores, q.open(t, postgres.Options{StatementTimeout: 2 * time.Minute}))
	}
	const rounds, n = 60, 24
	for round := range uint64(rounds) {
		var made [n]atomic.Int64
		var wg sync.WaitGroup
		for i := range n {
			for w, s := range stores {
				wg.Go(func() {
					i := (i + w*n/2) % n // the others' order is another
					_, err := s.Put(context.Background(), record(round*n+uint64(i)), backend.IfAbsent())
					switch {
					case err == nil:
						made[i].Add(1)
					case !errors.Is(err, backend.ErrConflict):
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		for i := range made {
			require.Equal(t, int64(1), made[i].Load())
		}
	}
}

// What is hard to write into arrays, in every mode of pgx.
func TestSharedStatementsInEveryMode(t *testing.T) {
	hard := []string{"", "NULL", `{"a",b}\\`, "it's \x00 \xff \"", ",", "null"}
	for name, m := range map[string]pgx.QueryExecMode{
		"cache statement": pgx.QueryExecModeCacheStatement, "cache describe": pgx.QueryExecModeCacheDescribe,
		"describe exec": pgx.QueryExecModeDescribeExec, "exec": pgx.QueryExecModeExec, "simple protocol": pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(name, func(t *testing.T) {
			k := stuckAt(t, newPlace(t, server(t).URL("postgres"), mode(m)), postgres.Options{})
			recs := records(len(hard))
			for i := range recs {
				recs[i].Owner, recs[i].Body = hard[i], []byte(hard[i])
				if i%2 == 0 {
					recs[i].Parent = record(uint64(77 + i)).ID
				}
				recs[i].Kind, recs[i].Expires, recs[i].PurgeAt = backend.Kind(250+i), 1<<63-1, int64(i)
			}
			puts := k.putAll(t, recs...)
			k.let(t)
			for i, o := range puts {
				require.NoError(t, o.err)
				got, err := k.Get(t.Context(), recs[i].ID)
				require.NoError(t, err)
				require.Equal(t, hard[i], string(got.Body))
				recs[i].Version, got.Body = o.version, recs[i].Body
				require.Equal(t, recs[i], got)
			}
			require.Equal(t, 1, k.place.transactions(t, len(recs)))
		})
	}
}

// Transactions of many records would conflict with each other where they are
// serializable, although the records do not: there each goes by itself.
func TestABurstAtEveryIsolationLevel(t *testing.T) {
	for _, level := range []string{"read committed", "repeatable read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			p := newPlace(t, server(t).URL("postgres"), func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_isolation"] = level })
			s := p.open(t, postgres.Options{})
			var wg sync.WaitGroup
			for w := range 32 {
				wg.Go(func() {
					for i := range 25 {
						rec := record(uint64(w*1000 + i))
						v, err := s.Put(context.Background(), rec, backend.IfAbsent())
						if err == nil && i%3 == 0 {
							_, err = s.Put(context.Background(), rec, backend.IfVersion(v))
						}
						if err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
