package fleettest_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// BenchmarkStores does the same to every store, in one run: the table of docs/stores.md.
func BenchmarkStores(b *testing.B) {
	for _, kind := range []string{"memory", "badger", "sqlite", "postgres", "etcd"} {
		b.Run(kind, func(b *testing.B) {
			store := openStore(b, kind)
			b.Run("get", func(b *testing.B) {
				ids := fill(b, store, 1000)
				i := 0
				for b.Loop() {
					rec, err := store.Get(b.Context(), ids[i%len(ids)])
					if err != nil || len(rec.Body) != bodySize {
						b.Fatal(err, len(rec.Body))
					}
					i++
				}
			})
			for _, writers := range []int{1, 64} {
				b.Run(fmt.Sprintf("put/%d_writers", writers), func(b *testing.B) {
					var next atomic.Int64
					var wg sync.WaitGroup
					for range writers {
						wg.Go(func() {
							for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
								if v, err := store.Put(b.Context(), sample(), backend.IfAbsent()); err != nil || v == 0 {
									b.Error(err)
									return
								}
							}
						})
					}
					wg.Wait()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
				})
			}
		})
	}
}

func openStore(b *testing.B, kind string) backend.Store {
	b.Helper()
	var store backend.Store
	switch kind {
	case "memory":
		store = memory.New()
	case "badger":
		s, err := badger.Open(b.TempDir(), badger.Options{})
		require.NoError(b, err)
		store = s
	default:
		s, closeStore, err := engines.get(b, kind).fresh(b).open(context.Background())
		require.NoError(b, err)
		b.Cleanup(closeStore)
		return s
	}
	b.Cleanup(func() { require.NoError(b, store.Close()) })
	return store
}

// bodySize is about that of a key's record.
const bodySize = 160

var records atomic.Uint64

// sample is a new record as a key's is.
func sample() backend.Record {
	rec := backend.Record{Kind: 1, Owner: "1app-42", Created: 1_764_000_000_000, Body: make([]byte, bodySize)}
	copy(rec.ID[:], "bench")
	binary.BigEndian.PutUint64(rec.ID[8:], records.Add(1))
	return rec
}

func fill(b *testing.B, store backend.Store, n int) []backend.ID {
	b.Helper()
	ids := make([]backend.ID, n)
	var wg sync.WaitGroup
	for w := range 50 {
		wg.Go(func() {
			for i := w; i < n; i += 50 {
				rec := sample()
				ids[i] = rec.ID
				if _, err := store.Put(b.Context(), rec, backend.IfAbsent()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return ids
}
