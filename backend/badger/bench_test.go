package badger_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	badgerdb "github.com/dgraph-io/badger/v4"
	bopts "github.com/dgraph-io/badger/v4/options"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/stretchr/testify/require"
)

func record(n uint64) backend.Record {
	r := backend.Record{Kind: 1, Owner: fmt.Sprintf("app-%d", n%100), Created: 1_700_000_000_000 + int64(n), Body: make([]byte, 200)}
	binary.BigEndian.PutUint64(r.ID[:], n*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(r.ID[8:], n+1)
	return r
}

func openBench(b *testing.B) *badger.Store {
	s, err := badger.Open(b.TempDir(), badger.Options{})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	return s
}

// A point read of this store against a bare BadgerDB read of a value of the same
// size, both among 10,000.
func BenchmarkGet(b *testing.B) {
	const n = 10_000
	s := openBench(b)
	var wg sync.WaitGroup
	var next atomic.Uint64
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1); i <= n; i = next.Add(1) {
				if _, err := s.Put(context.Background(), record(i-1), backend.IfAbsent()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	bare, err := badgerdb.Open(badgerdb.DefaultOptions(b.TempDir()).WithLogger(nil).WithMemTableSize(16 << 20).
		WithNumMemtables(3).WithNumCompactors(2).WithValueLogFileSize(16 << 20).WithCompression(bopts.None).
		WithBlockCacheSize(0).WithMetricsEnabled(false))
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, bare.Close()) })
	value := make([]byte, 264)
	wb := bare.NewWriteBatch()
	for i := range uint64(n) {
		r := record(i)
		require.NoError(b, wb.Set(append([]byte{'c'}, r.ID[:]...), value))
	}
	require.NoError(b, wb.Flush())

	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		i := uint64(0)
		for b.Loop() {
			r := record(i % n)
			i++
			err := bare.View(func(txn *badgerdb.Txn) error {
				item, err := txn.Get(append([]byte{'c'}, r.ID[:]...))
				if err != nil {
					return err
				}
				v, err := item.ValueCopy(nil)
				if len(v) != len(value) {
					b.Fatal("wrong value")
				}
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("store", func(b *testing.B) {
		b.ReportAllocs()
		i := uint64(0)
		for b.Loop() {
			r := record(i % n)
			i++
			got, err := s.Get(context.Background(), r.ID)
			if err != nil || got.ID != r.ID || len(got.Body) != 200 {
				b.Fatal("wrong record", err)
			}
		}
	})
}

// Durable writes of new records: how much more many writers do than one.
func BenchmarkPutDurable(b *testing.B) {
	for _, writers := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := openBench(b)
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
