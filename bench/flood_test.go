package bench_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/stretchr/testify/require"
)

// garbage makes n sound texts of keys that do not exist.
func garbage(n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = keytext.Format("acme_live", keytext.NewID(time.Now()), keytext.NewSecret())
	}
	return texts
}

// BenchmarkVerifyUnknown is the refusal of sound texts that name no key: each for
// the first time (a read of the store), and again (from memory).
func BenchmarkVerifyUnknown(b *testing.B) {
	refuse := func(b *testing.B, m *fob.Manager, texts []string) {
		b.Helper()
		b.ReportAllocs()
		ctx, i := b.Context(), 0
		for b.Loop() {
			if _, err := m.Verify(ctx, texts[i]); !errors.Is(err, fob.ErrUnknown) {
				b.Fatal(err)
			}
			if i++; i == len(texts) {
				i = 0
			}
		}
	}
	b.Run("new_on_memory", func(b *testing.B) {
		// Far more than are remembered, so that none is when its turn comes again.
		refuse(b, newManager(b, memory.New(), fob.Config{}), garbage(100_000))
	})
	b.Run("new_on_badger", func(b *testing.B) {
		store, err := badger.Open(b.TempDir(), badger.Options{})
		require.NoError(b, err)
		defer func() { require.NoError(b, store.Close()) }()
		m := newManager(b, store, fob.Config{})
		issue(b, m, live, 1000)
		refuse(b, m, garbage(100_000))
	})
	b.Run("again", func(b *testing.B) {
		m := newManager(b, memory.New(), fob.Config{MaxStaleness: time.Hour})
		texts := garbage(100)
		refuse(b, m, texts)
		// Two that fall on one place of what was glimpsed push each other out.
		if st := m.CacheStats(); b.N > 100*len(texts) && st.NegativeHits < uint64(b.N)*9/10 {
			b.Fatalf("%d of %d from memory", st.NegativeHits, b.N)
		}
	})
}

// BenchmarkFlood is the time of good verifications, of 10,000 cached keys in turn,
// in batches that come right after ten times as many unknown keys (flood), or after
// hashing for as long, which touches no memory (idle). Only the good ones are timed:
// what is compared is a unit of work for a unit of processor time. A batch that
// comes right after other good ones (quiet) is faster than both: whatever else runs
// for some milliseconds costs the processor's caches, and its neighbours use them too.
// So the same flood also goes to another Manager (elsewhere), which has nothing in common
// with this one but the processor: what a flood costs beyond that is fob's. Of all batches
// of a kind the median counts: whatever else the machine does hits some of them.
func BenchmarkFlood(b *testing.B) {
	const batch, times = 1000, 10
	store := &counted{Store: memory.New()}
	m := newManager(b, store, fob.Config{CacheEntries: 2 * live, MaxStaleness: time.Hour, UsageInterval: time.Hour})
	texts := issue(b, m, live, 1000)
	for _, text := range texts {
		_, err := m.Verify(b.Context(), text)
		require.NoError(b, err)
	}
	other := newManager(b, memory.New(), fob.Config{CacheEntries: 2 * live, MaxStaleness: time.Hour, UsageInterval: time.Hour})
	unknown := garbage(8192) // more than are remembered
	ctx, good, bad := b.Context(), 0, 0
	verified := func(n int) time.Duration {
		begun := time.Now()
		for range n {
			if _, err := m.Verify(ctx, texts[good]); err != nil {
				b.Fatal(err)
			}
			good = (good + 1) % len(texts)
		}
		return time.Since(begun)
	}
	refused := func(m *fob.Manager) time.Duration {
		begun := time.Now()
		for range times * batch {
			if _, err := m.Verify(ctx, unknown[bad]); !errors.Is(err, fob.ErrUnknown) {
				b.Fatal(err)
			}
			bad = (bad + 1) % len(unknown)
		}
		return time.Since(begun)
	}
	var quiet, idle, elsewhere, flood []time.Duration
	var flooded time.Duration
	hashed := byte(0)
	for b.Loop() {
		verified(times * batch)
		quiet = append(quiet, verified(batch))
		for begun := time.Now(); time.Since(begun) < flooded; {
			for range 100 {
				hashed |= blockSum(unknown[0])[0]
			}
		}
		idle = append(idle, verified(batch))
		verified(times * batch)
		refused(other)
		elsewhere = append(elsewhere, verified(batch))
		verified(times * batch)
		flooded = refused(m)
		flood = append(flood, verified(batch))
	}
	if hashed == 0 && len(idle) > 1 {
		b.Fatal("nothing was hashed")
	}
	if st := m.CacheStats(); st.Keys.Evicted != 0 || st.Keys.Entries < live {
		b.Fatalf("%d evicted, %d left", st.Keys.Evicted, st.Keys.Entries)
	}
	median := func(took []time.Duration) float64 {
		slices.Sort(took)
		return float64(took[len(took)/2].Nanoseconds())
	}
	b.ReportMetric(median(quiet)/batch, "ns/good-quiet")
	b.ReportMetric(median(idle)/batch, "ns/good-idle")
	b.ReportMetric(median(flood)/batch, "ns/good-flood")
	b.ReportMetric(100*(median(flood)/median(quiet)-1), "%-over-quiet")
	b.ReportMetric(100*(median(flood)/median(idle)-1), "%-over-idle")
	b.ReportMetric(100*(median(flood)/median(elsewhere)-1), "%-over-elsewhere")
}
