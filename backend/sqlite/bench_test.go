package sqlite_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/sqlite"
	"github.com/stretchr/testify/require"
)

func openBench(b *testing.B) (*sqlite.Store, string) {
	file := filepath.Join(b.TempDir(), "fob.db")
	s, err := sqlite.Open(file, sqlite.Options{})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	return s, file
}

// bare is what database/sql and the driver do by themselves on the same file.
func bare(b *testing.B, file string) *sql.DB {
	db, err := sql.Open("sqlite", "file:"+file)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	return db
}

// load fills a file with n records past the store, in one transaction.
func load(b *testing.B, db *sql.DB, n int) {
	tx, err := db.Begin()
	require.NoError(b, err)
	put, err := tx.Prepare(`INSERT INTO fob_record VALUES (?, 1, ?, NULL, ?, NULL, 0, ?, ?, ?)`)
	require.NoError(b, err)
	label, err := tx.Prepare(`INSERT INTO fob_label VALUES (1, ?, ?, ?)`)
	require.NoError(b, err)
	for i := range uint64(n) {
		r := record(i)
		// IDs that rise with time, as the Manager makes them.
		binary.BigEndian.PutUint64(r.ID[:], i)
		r.Owner = fmt.Sprintf("app-%d", i%(uint64(n)/200+1))
		// A label of the same name, with its length before it, as the store writes it.
		_, err := put.Exec(r.ID[:], []byte(r.Owner), r.Created, int64(i+1), r.Body, append([]byte{byte(len(r.Owner))}, r.Owner...))
		require.NoError(b, err)
		_, err = label.Exec([]byte(r.Owner), r.Created, r.ID[:])
		require.NoError(b, err)
	}
	require.NoError(b, tx.Commit())
}

// A point read of this store against a bare prepared statement for the same row,
// both among 10,000.
func BenchmarkGet(b *testing.B) {
	const n = 10_000
	s, file := openBench(b)
	db := bare(b, file)
	load(b, db, n)
	id := func(i uint64) backend.ID {
		r := record(i % n)
		binary.BigEndian.PutUint64(r.ID[:], i%n)
		return r.ID
	}
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	contexts := map[string]context.Context{"background": context.Background(), "cancellable": cancellable}
	for name, ctx := range contexts {
		b.Run("bare/"+name, func(b *testing.B) {
			get, err := db.Prepare(`SELECT kind, owner, parent, created, coalesce(expires, 0), purge_at, version, body FROM fob_record WHERE id = ?`)
			require.NoError(b, err)
			b.ReportAllocs()
			i := uint64(0)
			for b.Loop() {
				i++
				id := id(i)
				var kind, created, expires, purgeAt, version int64
				var owner, parent, body []byte
				err := get.QueryRowContext(ctx, id[:]).Scan(&kind, &owner, &parent, &created, &expires, &purgeAt, &version, &body)
				if err != nil || len(body) != 200 {
					b.Fatal("wrong row", err)
				}
			}
		})
		b.Run("store/"+name, func(b *testing.B) {
			b.ReportAllocs()
			i := uint64(0)
			for b.Loop() {
				i++
				id := id(i)
				got, err := s.Get(ctx, id)
				if err != nil || got.ID != id || len(got.Body) != 200 {
					b.Fatal("wrong record", err)
				}
			}
		})
	}
}

// Durable writes of new records: how much more many writers do than one.
func BenchmarkPutDurable(b *testing.B) {
	for _, writers := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s, _ := openBench(b)
			var next atomic.Uint64
			var wg sync.WaitGroup
			b.ReportAllocs()
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
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			st := s.Stats()
			if st.Writes != uint64(b.N) {
				b.Fatalf("%d writes, want %d", st.Writes, b.N)
			}
			b.ReportMetric(float64(st.Writes)/float64(st.Commits), "writes/commit")
		})
	}
}

// A page of 100 by owner and by label among many, against a bare query by the index of the
// owner for as many rows. FOB_SQLITE_RECORDS sets how many there are.
func BenchmarkList(b *testing.B) {
	n := 100_000
	if v, err := strconv.Atoi(os.Getenv("FOB_SQLITE_RECORDS")); err == nil {
		n = v
	}
	s, file := openBench(b)
	db := bare(b, file)
	load(b, db, n)
	owners := n/200 + 1
	b.Run("bare", func(b *testing.B) {
		list, err := db.Prepare(`SELECT id, kind, owner, parent, created, coalesce(expires, 0), purge_at, version, body FROM fob_record
WHERE kind = 1 AND owner = ? ORDER BY created, id LIMIT 100`)
		require.NoError(b, err)
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			rows, err := list.Query(fmt.Appendf(nil, "app-%d", i*7919%owners))
			require.NoError(b, err)
			got := 0
			for rows.Next() {
				var kind, created, expires, purgeAt, version int64
				var id, owner, parent, body []byte
				if err := rows.Scan(&id, &kind, &owner, &parent, &created, &expires, &purgeAt, &version, &body); err != nil {
					b.Fatal(err)
				}
				got++
			}
			if rows.Err() != nil || got != 100 {
				b.Fatal("wrong rows", got, rows.Err())
			}
		}
	})
	for name, query := range map[string]func(of string) backend.Query{
		"owner":        func(of string) backend.Query { return backend.Query{Kind: 1, Owner: of, Limit: 100} },
		"owner/newest": func(of string) backend.Query { return backend.Query{Kind: 1, Owner: of, Newest: true, Limit: 100} },
		"label":        func(of string) backend.Query { return backend.Query{Kind: 1, Label: of, Limit: 100} },
		"label/newest": func(of string) backend.Query { return backend.Query{Kind: 1, Label: of, Newest: true, Limit: 100} },
		"kind/newest":  func(string) backend.Query { return backend.Query{Kind: 1, Newest: true, Limit: 100} },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				of := fmt.Sprintf("app-%d", i*7919%owners)
				page, err := s.List(context.Background(), query(of))
				if err != nil || len(page.Records) != 100 || page.Next == "" || name != "kind/newest" && page.Records[0].Owner != of {
					b.Fatal("wrong page", len(page.Records), err)
				}
			}
		})
	}
}

// How long after a Put in another process has returned the feed tells of it.
func BenchmarkFeedAcrossProcesses(b *testing.B) {
	for _, every := range []time.Duration{5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond} {
		b.Run(every.String(), func(b *testing.B) {
			all := latencies(b, max(b.N, 100), sqlite.Options{PollEvery: every})
			b.ReportMetric(float64(all[len(all)/2])/1e6, "p50-ms")
			b.ReportMetric(float64(all[len(all)*99/100])/1e6, "p99-ms")
			b.ReportMetric(0, "ns/op") // what a child takes to write says nothing
		})
	}
}

// Many records at once: all of a kind by a Scan and by pages, and a thousand of them by one
// call and by one call for each.
func BenchmarkBulk(b *testing.B) {
	const n = 200_000
	s, file := openBench(b)
	load(b, bare(b, file), n)
	ids := make([]backend.ID, backend.MaxLimit)
	for i := range ids {
		rec := record(uint64(i * 97 % n))
		binary.BigEndian.PutUint64(rec.ID[:], uint64(i*97%n))
		ids[i] = rec.ID
	}
	for _, c := range []struct {
		name string
		most int
		read func() (int, error)
	}{
		{"scan", n, func() (got int, err error) {
			err = s.Scan(b.Context(), 1, func(recs []backend.Record) error { got += len(recs); return nil })
			return got, err
		}},
		{"pages", n, func() (got int, err error) {
			for q := (backend.Query{Kind: 1, Limit: backend.MaxLimit}); ; {
				page, err := s.List(b.Context(), q)
				got += len(page.Records)
				if q.After = page.Next; err != nil || q.After == "" {
					return got, err
				}
			}
		}},
		{"many", len(ids), func() (int, error) {
			recs, err := s.GetMany(b.Context(), ids)
			return len(recs), err
		}},
		{"each", len(ids), func() (int, error) {
			for _, id := range ids {
				if _, err := s.Get(b.Context(), id); err != nil {
					return 0, err
				}
			}
			return len(ids), nil
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				got, err := c.read()
				require.NoError(b, err)
				require.Equal(b, c.most, got)
			}
			b.ReportMetric(float64(c.most*b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
