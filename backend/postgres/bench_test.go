package postgres_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/postgres"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
)

// benchRecords is how many records lists are measured among; FOB_POSTGRES_RECORDS
// says otherwise.
func benchRecords(b *testing.B) int {
	text := os.Getenv("FOB_POSTGRES_RECORDS")
	if text == "" {
		return 1_000_000
	}
	n, err := strconv.Atoi(text)
	require.NoError(b, err)
	return n
}

// compare measures two ways in turns, so that what else the machine does falls on
// both, and reports the first's time and its ratio to the second's.
func compare(b *testing.B, store, bare func(i int)) {
	const turn = 50
	var a, c time.Duration
	n := 0
	for b.Loop() {
		if n%turn == 0 {
			start := time.Now()
			for i := range turn {
				bare(n + i)
			}
			c += time.Since(start)
		}
		start := time.Now()
		store(n)
		a += time.Since(start)
		n++
	}
	turns := (n + turn - 1) / turn
	b.ReportMetric(float64(a.Nanoseconds())/float64(n), "ns/store")
	b.ReportMetric(float64(c.Nanoseconds())/float64(turns*turn), "ns/bare")
	b.ReportMetric(float64(a)/float64(n)/(float64(c)/float64(turns*turn)), "store/bare")
}

// A point read against a bare read of the same row through the same pool.
func BenchmarkGet(b *testing.B) {
	s, p := open(b, postgres.Options{})
	const n = 10_000
	fill(b, p, n)
	bare := p.fill("SELECT kind, owner, parent, created, expires, purge_at, version, body FROM {schema}.record WHERE id = $1")
	ids := listIDs(b, p)
	compare(b, func(i int) {
		rec, err := s.Get(context.Background(), ids[i*7919%n])
		if err != nil || rec.ID != ids[i*7919%n] || len(rec.Body) != 200 {
			b.Fatal("wrong record", err)
		}
	}, func(i int) {
		var kind int16
		var owner, parent, body []byte
		var created, expires, purge, version int64
		id := ids[i*7919%n]
		err := p.pool.QueryRow(context.Background(), bare, id[:]).Scan(&kind, &owner, &parent, &created, &expires, &purge, &version, &body)
		if err != nil || len(body) != 200 {
			b.Fatal("wrong record", err)
		}
	})
}

func listIDs(b *testing.B, p *place) []backend.ID {
	rows, err := p.pool.Query(context.Background(), p.fill("SELECT id FROM {schema}.record"))
	require.NoError(b, err)
	ids, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (backend.ID, error) {
		var id []byte
		err := row.Scan(&id)
		return backend.ID(id), err
	})
	require.NoError(b, err)
	return ids
}

// Durable writes of new records: how much more many writers do than one. Commits
// share the sync of the log, so the slower that is, the more; where it takes a
// fraction of a millisecond, two processors are the limit long before. Hence the
// same with a commit that takes two milliseconds longer (commit_delay), as on a
// network disk or with a synchronous standby.
func BenchmarkPutDurable(b *testing.B) {
	for _, disk := range []string{"disk", "disk+2ms"} {
		var alone float64
		for _, writers := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("sync=%s/writers=%d", disk, writers), func(b *testing.B) {
				p := newPlace(b, server(b).URL("postgres"), nil)
				p.pool, p.link = newPool(b, p.url, func(c *pgxpool.Config) {
					c.MaxConns = 66
					if disk != "disk" {
						c.ConnConfig.RuntimeParams["commit_delay"] = "2000"
						c.ConnConfig.RuntimeParams["commit_siblings"] = "0"
					}
				})
				s := p.open(b, postgres.Options{})
				var next atomic.Uint64
				var wg sync.WaitGroup
				b.ResetTimer()
				for range writers {
					wg.Go(func() {
						for i := next.Add(1); i <= uint64(b.N); i = next.Add(1) {
							if _, err := s.Put(context.Background(), record(i), backend.IfAbsent()); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				rate := float64(b.N) / b.Elapsed().Seconds()
				b.ReportMetric(rate, "writes/s")
				if writers == 1 {
					alone = rate
				}
				b.ReportMetric(rate/alone, "times-one-writer")
				var records, changes int
				require.NoError(b, p.pool.QueryRow(context.Background(), p.fill(
					"SELECT (SELECT count(*) FROM {schema}.record), (SELECT count(*) FROM {schema}.change)")).Scan(&records, &changes))
				if records != b.N || changes != b.N {
					b.Fatalf("%d records and %d changes, want %d", records, changes, b.N)
				}
			})
		}
	}
}

// A page of 100 by owner and by label, the oldest and the newest first, out of a million
// records, against a bare query for as many rows by the index of the owner.
func BenchmarkList(b *testing.B) {
	s, p := open(b, postgres.Options{})
	n := benchRecords(b)
	fill(b, p, n)
	bare := p.fill(`SELECT id, kind, owner, parent, created, expires, purge_at, version, body
		FROM {schema}.record WHERE kind = $1 AND owner = $2 AND owner <> '' ORDER BY created, id LIMIT 100`)
	owner := func(i int) string { return fmt.Sprint("app-", 1+i*7919%(n/200-1)) }
	for name, query := range map[string]func(i int) backend.Query{
		"owner":        func(i int) backend.Query { return backend.Query{Kind: 1, Owner: owner(i), Limit: 100} },
		"owner/newest": func(i int) backend.Query { return backend.Query{Kind: 1, Owner: owner(i), Newest: true, Limit: 100} },
		"label":        func(i int) backend.Query { return backend.Query{Kind: 1, Label: owner(i), Limit: 100} },
		"label/newest": func(i int) backend.Query { return backend.Query{Kind: 1, Label: owner(i), Newest: true, Limit: 100} },
		"kind/newest":  func(int) backend.Query { return backend.Query{Kind: 1, Newest: true, Limit: 100} },
	} {
		b.Run(name, func(b *testing.B) {
			compare(b, func(i int) {
				q := query(i)
				page, err := s.List(context.Background(), q)
				if err != nil || len(page.Records) != 100 || name != "kind/newest" && page.Records[0].Owner != owner(i) {
					b.Fatal("wrong page", len(page.Records), err)
				}
			}, func(i int) {
				rows, err := p.pool.Query(context.Background(), bare, 1, []byte(owner(i)))
				if err != nil {
					b.Fatal(err)
				}
				got := 0
				var id, owner, parent, body []byte
				var kind int16
				var created, expires, purge, version int64
				_, err = pgx.ForEachRow(rows, []any{&id, &kind, &owner, &parent, &created, &expires, &purge, &version, &body}, func() error { got++; return nil })
				if err != nil || got != 100 {
					b.Fatal("wrong page", got, err)
				}
			})
		})
	}
}

// How long after a revocation has returned another process's Watch delivers it,
// woken by NOTIFY; and for comparison a bare round trip.
func BenchmarkFeedLatency(b *testing.B) {
	for _, busy := range []int{0, 8} {
		b.Run(fmt.Sprintf("writers=%d", busy), func(b *testing.B) {
			s, p := open(b, postgres.Options{})
			q := *p
			q.pool, _ = newPool(b, p.url, nil)
			writer := q.open(b, postgres.Options{})
			arrived := make(chan time.Time, 1)
			var want atomic.Uint64
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = s.Watch(ctx, nil, func(batch backend.Batch) error {
					for _, c := range batch.Changes {
						if v := want.Load(); v != 0 && c.ID == record(0).ID && c.Version >= v {
							want.Store(0)
							arrived <- time.Now()
						}
					}
					return nil
				})
			}()
			var stop atomic.Bool
			var wg sync.WaitGroup
			for i := range busy {
				wg.Go(func() {
					for n := uint64(1 + i*1_000_000); !stop.Load(); n++ {
						if _, err := writer.Put(context.Background(), record(n), backend.IfAbsent()); err != nil {
							b.Error(err)
						}
					}
				})
			}
			time.Sleep(200 * time.Millisecond) // it listens
			v := create(b, writer, 0)
			var delays []time.Duration
			for b.Loop() {
				want.Store(v + 1)
				var err error
				if v, err = writer.Put(context.Background(), record(0), backend.IfVersion(v)); err != nil {
					b.Fatal(err)
				}
				returned := time.Now()
				delays = append(delays, (<-arrived).Sub(returned))
				if busy == 0 {
					time.Sleep(7 * time.Millisecond) // past the shortest time between two NOTIFYs
				}
			}
			stop.Store(true)
			wg.Wait()
			cancel()
			<-done
			slices.Sort(delays)
			b.ReportMetric(float64(delays[len(delays)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(delays[len(delays)*99/100].Microseconds()), "p99-us")
		})
	}
}

// What an idle Watch costs the server: one poll, against one bare point read.
func BenchmarkIdlePoll(b *testing.B) {
	s, p := open(b, postgres.Options{})
	fill(b, p, 100_000)
	ids := listIDs(b, p)
	bare := p.fill("SELECT version FROM {schema}.record WHERE id = $1")
	poll := s.SQL()["poll"]
	compare(b, func(int) {
		var snapshot, identity string
		var floor, inserted, flushed int64
		var a, v []int64
		var found [][]byte
		if err := p.pool.QueryRow(context.Background(), poll, []int64{}, 0, 0, int64(1)<<62, 0, 10_000).Scan(&snapshot, &floor, &identity, &inserted, &flushed, &a, &v, &found); err != nil || len(a) != 0 {
			b.Fatal("wrong poll", err)
		}
	}, func(i int) {
		var v int64
		if err := p.pool.QueryRow(context.Background(), bare, ids[i%len(ids)][:]).Scan(&v); err != nil {
			b.Fatal(err)
		}
	})
}
