package badger_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	bopts "github.com/dgraph-io/badger/v4/options"
	"github.com/fobkit/fob/backend"
	"github.com/stretchr/testify/require"
)

// BenchmarkFirstPage reads the first page of a list of 50,000 in a store of 200,000, oldest
// and newest first. A bare BadgerDB, with the same keys and values, walks 100 keys of
// the same list and reads what they name.
func BenchmarkFirstPage(b *testing.B) {
	const n, page = 200_000, 100
	s := openBench(b)
	dir := b.TempDir()
	bare, err := badgerdb.Open(badgerdb.DefaultOptions(dir).WithLogger(nil).WithMemTableSize(16 << 20).WithNumMemtables(3).
		WithNumCompactors(2).WithValueLogFileSize(16 << 20).WithCompression(bopts.None).WithBlockCacheSize(0).WithMetricsEnabled(false))
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, bare.Close()) })
	wb := bare.NewWriteBatch()
	for i := range uint64(n) {
		rec := record(i)
		label := fmt.Sprint("label ", i%4)
		require.NoError(b, wb.Set(fmt.Appendf(nil, "t%s%016x%s", label, rec.Created, rec.ID[:]), nil))
		require.NoError(b, wb.Set(append([]byte{'c'}, rec.ID[:]...), make([]byte, 280)))
	}
	require.NoError(b, wb.Flush())
	var wg sync.WaitGroup
	var next atomic.Uint64
	for range 256 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
				rec := record(i)
				rec.Labels = []string{fmt.Sprint("label ", i%4)}
				if _, err := s.Put(context.Background(), rec, backend.IfAbsent()); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	plain := func(newest bool) {
		got := 0
		err := bare.View(func(txn *badgerdb.Txn) error {
			it := txn.NewIterator(badgerdb.IteratorOptions{Prefix: []byte("tlabel 1"), Reverse: newest})
			defer it.Close()
			start := []byte("tlabel 1")
			if newest {
				start = append(start, 0xff)
			}
			for it.Seek(start); it.Valid() && got < page; it.Next() {
				key := it.Item().Key()
				item, err := txn.Get(append([]byte{'c'}, key[len(key)-16:]...))
				if err != nil {
					return err
				}
				value, err := item.ValueCopy(nil)
				if err != nil || len(value) != 280 {
					b.Fatal("wrong value", err)
				}
				got++
			}
			return nil
		})
		if err != nil || got != page {
			b.Fatal(got, err)
		}
	}
	for name, q := range map[string]backend.Query{
		"kind": {Kind: 1}, "kind, newest": {Kind: 1, Newest: true}, "label": {Kind: 1, Label: "label 1"}, "label, newest": {Kind: 1, Label: "label 1", Newest: true},
	} {
		b.Run(name, func(b *testing.B) {
			var theirs, ours time.Duration
			for b.Loop() { // in turn, so that both see the same machine
				at := time.Now()
				plain(q.Newest)
				theirs += time.Since(at)
				at = time.Now()
				got, err := s.List(b.Context(), q)
				ours += time.Since(at)
				if err != nil || len(got.Records) != page || got.Next == "" || (got.Records[0].Created < got.Records[1].Created) == q.Newest {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(ours)/float64(theirs), "times-a-bare-list")
		})
	}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			got, err := s.Count(b.Context(), backend.Query{Kind: 1, Label: "label 1"}, math.MaxInt)
			if err != nil || got != n/4 {
				b.Fatal(got, err)
			}
		}
		b.ReportMetric(float64(n/4*b.N)/b.Elapsed().Seconds(), "keys/s")
	})
}
