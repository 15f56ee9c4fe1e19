package bench_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/badger"
	"github.com/stretchr/testify/require"
)

// BenchmarkMillion compares a database of 1,000,000 keys with one of 10,000: how
// long loading, opening and an uncached verification take, and what memory it
// holds open. heap-MB is the Go heap after a collection; mapped-MB is what of the
// files is mapped and resident, which is the kernel's to take back.
//
//	go test -run '^$' -bench Million ./bench
func BenchmarkMillion(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		var dir string
		var texts []string // 10,000 of them: all would be most of the heap
		b.Run(fmt.Sprintf("load/%d", n), func(sub *testing.B) {
			for sub.Loop() {
				dir, texts = b.TempDir(), nil
				store, err := badger.Open(dir, badger.Options{})
				require.NoError(sub, err)
				m, err := fob.New(store, fob.Config{Prefix: "acme_live"})
				require.NoError(sub, err)
				for range n / 10_000 {
					loaded := issue(sub, m, 10_000, 1000)
					texts = append(texts, loaded[:10_000*10_000/n]...)
				}
				require.EqualValues(sub, n, store.Stats().Writes)
				require.NoError(sub, m.Close())
				require.NoError(sub, store.Close())
			}
			sub.ReportMetric(float64(n)*float64(sub.N)/sub.Elapsed().Seconds(), "keys/s")
		})
		b.Run(fmt.Sprintf("open/%d", n), func(b *testing.B) {
			for b.Loop() {
				store, err := badger.Open(dir, badger.Options{})
				if err != nil {
					b.Fatal(err)
				}
				m, err := fob.New(store, fob.Config{Prefix: "acme_live"})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := m.Verify(b.Context(), texts[0]); err != nil {
					b.Fatal(err)
				}
				require.NoError(b, m.Close())
				require.NoError(b, store.Close())
			}
		})
		b.Run(fmt.Sprintf("verify/%d", n), func(b *testing.B) {
			m := newManager(b, openBadger(b, dir), fob.Config{CacheEntries: 4096, MaxStaleness: time.Hour, UsageInterval: time.Hour})
			for _, text := range texts {
				_, err := m.Verify(b.Context(), text)
				require.NoError(b, err)
			}
			verify(b, m, texts)
			var mem runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&mem)
			b.ReportMetric(float64(mem.HeapAlloc)/(1<<20), "heap-MB")
			b.ReportMetric(mapped(b), "mapped-MB")
		})
	}
}

// mapped is the resident part of mapped files in MB, or 0 where the kernel does
// not tell.
func mapped(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			var kb float64
			_, err := fmt.Sscan(rest, &kb)
			require.NoError(b, err)
			return kb / 1024
		}
	}
	return 0
}
