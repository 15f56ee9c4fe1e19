package fleettest_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/internal/link"
	"github.com/stretchr/testify/require"
)

// BenchmarkStorm is one process that revokes as much as it can, up to 10,000 a second, and
// another one that follows it from some way away: how late what was revoked is refused
// there, how old its feed gets, and how much of what nobody revoked it reads again.
func BenchmarkStorm(b *testing.B) {
	for _, kind := range []string{"sqlite", "postgres", "etcd"} {
		for _, what := range []string{"keys", "tokens", "sessions", "subjects"} {
			for _, delay := range []time.Duration{100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond} {
				if kind == "sqlite" && delay != time.Millisecond {
					continue // there is no connection
				}
				b.Run(fmt.Sprintf("%s/%s/%v", kind, what, delay), func(b *testing.B) {
					s := newStorm(b, engines.get(b, kind), delay)
					b.ResetTimer()
					s.rage(b, what, max(b.N, stormSize()), 10_000)
					s.report(b)
				})
			}
		}
	}
}

// stormSize is how many revocations a storm has.
func stormSize() int {
	if n, err := strconv.Atoi(os.Getenv("FOB_STORM")); err == nil {
		return n
	}
	return 20_000
}

// storm is two Managers on one store, and what was seen of it.
type storm struct {
	here, there *fob.Manager

	began   time.Time
	took    time.Duration
	n       int
	late    []time.Duration // of the probes: from the return of the revocation to the first refusal
	oldest  time.Duration   // of the feed there
	hits    uint64          // of the verifications of what nobody revokes
	lookups uint64
}

func newStorm(t testing.TB, e engine, delay time.Duration) *storm {
	t.Helper()
	at := e.fresh(t)
	far, l := e.through(t, at)
	far.Conns = 24 // a probe is refused by a read that takes the delay, and there are 500 probes a second
	s := new(storm)
	s.here, s.there = stormManager(t, at), stormManager(t, far)
	if l != nil {
		l.Set(link.Way{Delay: delay / 2}, link.Way{Delay: delay / 2})
	}
	return s
}

func stormManager(t testing.TB, at storeAt) *fob.Manager {
	t.Helper()
	store, done, err := at.open(t.Context())
	require.NoError(t, err)
	t.Cleanup(done)
	m, err := fob.New(store, fob.Config{
		Prefix: "acme_live", Tokens: &fob.TokenConfig{Issuer: "https://issuer.test", Audiences: []string{"api"}, SealKey: []byte(strings.Repeat("s", 32))},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

// victim is something that is going to be revoked: its text, and how.
type victim struct {
	text   string
	revoke func(context.Context) error
}

func (s *storm) victim(t testing.TB, what string, i int) victim {
	t.Helper()
	ctx := t.Context()
	subject := fmt.Sprintf("user-%d", i)
	if what == "keys" {
		text, key, err := s.here.IssueKey(ctx, fob.KeySpec{Subject: fob.App(subject)})
		require.NoError(t, err)
		return victim{text.Reveal(), func(ctx context.Context) error { _, err := s.here.Revoke(ctx, key.ID(), ""); return err }}
	}
	issued, err := s.here.IssueToken(ctx, fob.TokenSpec{Subject: fob.User(subject), Refreshable: what == "sessions"})
	require.NoError(t, err)
	v := victim{text: issued.Access.Reveal()}
	switch what {
	case "tokens":
		v.revoke = func(ctx context.Context) error { _, err := s.here.Revoke(ctx, issued.Token.ID(), ""); return err }
	case "sessions":
		v.revoke = func(ctx context.Context) error { _, err := s.here.Revoke(ctx, issued.Token.Session(), ""); return err }
	case "subjects":
		v.revoke = func(ctx context.Context) error {
			_, err := s.here.Revoke(ctx, fob.User(subject), "")
			return err
		}
	}
	return v
}

const (
	bystanders = 2000 // credentials that nobody revokes
	probeEvery = 20   // of so many revocations one is watched
)

// rage revokes n of a kind.
func (s *storm) rage(t testing.TB, what string, n, perSecond int) {
	t.Helper()
	victims := make([]victim, n)
	inParallel(64, n, func(i int) { victims[i] = s.victim(t, what, i) })
	var others [bystanders]string
	inParallel(64, bystanders, func(i int) { others[i] = s.victim(t, what, n+i).text })
	var probes []int
	for i := 0; i < n; i += probeEvery {
		probes = append(probes, i)
	}
	for _, text := range others {
		_, err := s.there.Verify(t.Context(), text)
		require.NoError(t, err)
	}
	for _, i := range probes {
		_, err := s.there.Verify(t.Context(), victims[i].text)
		require.NoError(t, err)
	}

	returned := make([]atomic.Int64, n) // since began, in nanoseconds
	var over atomic.Bool
	var watchers sync.WaitGroup
	s.n, s.began = n, time.Now()
	watchers.Go(func() { s.watchFeed(&over) })
	watchers.Go(func() { s.verifyOthers(t, others[:], &over) })
	watchers.Go(func() { s.watchProbes(t, victims, probes, returned) })
	inParallel(256, n, func(i int) {
		time.Sleep(time.Until(s.began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
		if err := victims[i].revoke(t.Context()); err != nil {
			t.Error(err)
		}
		returned[i].Store(int64(max(1, time.Since(s.began))))
	})
	s.took = time.Since(s.began)
	over.Store(true)
	watchers.Wait()
	slices.Sort(s.late)
}

// watchProbes verifies the probes, the oldest that is still accepted first, until all are
// refused. Many at once: one that is read from the store must not hold up the others.
func (s *storm) watchProbes(t testing.TB, victims []victim, probes []int, returned []atomic.Int64) {
	for open := slices.Clone(probes); len(open) > 0; {
		// Those that are not due for long are left alone.
		due := 64 + slices.IndexFunc(append(slices.Clone(open), -1), func(i int) bool { return i < 0 || returned[i].Load() == 0 })
		due = min(due, len(open))
		late := make([]time.Duration, due) // negative while it is accepted
		inParallel(64, due, func(n int) {
			late[n] = -1
			begun := time.Since(s.began)
			_, err := s.there.Verify(t.Context(), victims[open[n]].text)
			if back := returned[open[n]].Load(); err != nil && back > 0 {
				late[n] = max(0, begun-time.Duration(back))
			}
		})
		left := open[:0]
		for n, i := range open {
			if n < due && late[n] >= 0 {
				s.late = append(s.late, late[n])
			} else {
				left = append(left, i)
			}
		}
		open = left
		time.Sleep(200 * time.Microsecond)
	}
}

func (s *storm) watchFeed(over *atomic.Bool) {
	for !over.Load() {
		s.oldest = max(s.oldest, s.there.Health().FeedAge)
		time.Sleep(5 * time.Millisecond)
	}
}

// verifyOthers verifies what nobody revokes, 5,000 times a second.
func (s *storm) verifyOthers(t testing.TB, texts []string, over *atomic.Bool) {
	before := s.there.CacheStats()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; !over.Load(); i++ {
		if i%5 == 0 {
			<-tick.C
		}
		if _, err := s.there.Verify(t.Context(), texts[i%len(texts)]); err != nil {
			t.Errorf("a credential that nobody revoked: %v", err)
			return
		}
	}
	after := s.there.CacheStats()
	s.hits = after.Keys.Hits + after.Tokens.Hits - before.Keys.Hits - before.Tokens.Hits
	s.lookups = s.hits + after.Keys.Misses + after.Tokens.Misses - before.Keys.Misses - before.Tokens.Misses
}

func (s *storm) report(b *testing.B) {
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(s.n)/s.took.Seconds(), "revoked/s")
	b.ReportMetric(ms(quantile(s.late, 50)), "p50-ms")
	b.ReportMetric(ms(quantile(s.late, 99)), "p99-ms")
	b.ReportMetric(ms(s.late[len(s.late)-1]), "max-ms")
	b.ReportMetric(ms(s.oldest), "feed-ms")
	b.ReportMetric(100*float64(s.hits)/float64(s.lookups), "hits-%")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// inParallel calls do for 0 to n-1, from so many goroutines.
func inParallel(goroutines, n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	wg.Wait()
}
