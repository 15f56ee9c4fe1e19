package peers_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

const (
	issuer   = "acme"
	audience = "api"
	// live is how many credentials are in use where they are cached.
	live = 10_000
	// cold is how many take turns where nothing may be remembered.
	cold = 1000
)

// peer is one library, set up to check one kind of credential.
type peer struct {
	name string
	// check is what a service asks on every request: whose is this?
	check func(ctx context.Context, text string) (subject string, err error)
	// texts are good: texts[i] is that of subject(i).
	texts []string
	// bad are texts to refuse, by what is wrong with them.
	bad map[string]string
}

var errRefused = errors.New("refused")

// subject is whose the credential i is: ten of them for each of 1,000 users.
func subject(i int) string { return fmt.Sprintf("user-%d", i%1000) }

func subjects(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = subject(i)
	}
	return names
}

// warm has every text checked once.
func (p *peer) warm(tb testing.TB) {
	tb.Helper()
	for i, text := range p.texts {
		got, err := p.check(tb.Context(), text)
		require.NoError(tb, err, p.name)
		require.Equal(tb, subject(i), got, p.name)
	}
}

// serial asks for the first n texts in turn.
func (p *peer) serial(b *testing.B, n int) {
	b.Helper()
	texts, want := p.texts[:n], subjects(n)
	ctx := b.Context()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		got, err := p.check(ctx, texts[i])
		if err != nil || got != want[i] {
			b.Fatalf("%q, not %q: %v", got, want[i], err)
		}
		if i++; i == n {
			i = 0
		}
	}
}

// parallel has each goroutine ask for all texts in turn, from elsewhere.
func (p *peer) parallel(b *testing.B) {
	b.Helper()
	want := subjects(len(p.texts))
	ctx := b.Context()
	var start atomic.Uint32
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		i := int(start.Add(1)) * 3571 % len(want)
		for pb.Next() {
			got, err := p.check(ctx, p.texts[i])
			if err != nil || got != want[i] {
				b.Errorf("%q, not %q: %v", got, want[i], err)
				return
			}
			if i++; i == len(want) {
				i = 0
			}
		}
	})
}

// allocations is how often one check allocates, in whole numbers.
func (p *peer) allocations(b *testing.B) float64 {
	b.Helper()
	i, ctx := 0, b.Context()
	return testing.AllocsPerRun(200, func() {
		_, err := p.check(ctx, p.texts[i%len(p.texts)])
		require.NoError(b, err)
		i++
	})
}

// changed is a text with one character in its middle changed.
func changed(text string) string {
	at, c := len(text)/2, "A"
	if text[at:at+1] == c {
		c = "B"
	}
	return text[:at] + c + text[at+1:]
}

func newFob(tb testing.TB, store backend.Store, cfg fob.Config) *fob.Manager {
	tb.Helper()
	cfg.Prefix, cfg.SweepInterval = "acme_live", -1
	// As long as what the peers are told to remember: neither reads again.
	cfg.MaxStaleness, cfg.UsageInterval = time.Hour, time.Hour
	m, err := fob.New(store, cfg)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, m.Close()) })
	// When the store's feed begins, what was remembered before is forgotten.
	if _, follows := backend.As[backend.Watcher](store); follows {
		await.Until(tb, "the feed", func() bool { return m.CacheStats().FeedAge >= 0 })
	}
	return m
}

// fobCheck asks a Manager.
func fobCheck(m *fob.Manager) func(context.Context, string) (string, error) {
	return func(ctx context.Context, text string) (string, error) {
		cred, err := m.Verify(ctx, text)
		if err != nil {
			return "", err
		}
		return cred.Subject().Name, nil
	}
}

// TestPeersAgree: what is measured is a check.
func TestPeersAgree(t *testing.T) {
	const n = 20
	keys := issueKeys(t, n)
	peers := []*peer{}
	for _, entries := range []int{1, 2 * n} {
		p, _ := keys.fob(t, entries)
		peers = append(peers, p)
	}
	floor, _ := keys.floor()
	peers = append(peers, floor)
	for _, ttl := range []time.Duration{0, 1, time.Hour} {
		p, _ := keys.kubernetes("kubernetes", ttl, ttl)
		peers = append(peers, p)
	}
	c := newClaims(t, n)
	peers = append(peers, c.signed(t)...)
	peers = append(peers, c.sharedKey(t)...)
	peers = append(peers, opaque(t, n)...)
	for _, p := range []fob.Protocol{fob.V4Public, fob.V4Local} {
		cached, _ := c.cached(t, p)
		peers = append(peers, cached...)
	}
	for _, p := range peers {
		for range 2 { // from a cache, where there is one, the second time
			p.warm(t)
			require.NotEmpty(t, p.bad, p.name)
			for what, text := range p.bad {
				got, err := p.check(t.Context(), text)
				require.Error(t, err, "%s accepts what is %s", p.name, what)
				require.Empty(t, got, "%s: %s", p.name, what)
			}
			_, err := p.check(t.Context(), "")
			require.Error(t, err, "%s accepts nothing at all", p.name)
		}
	}

	keysOf, values := newKeys(2 * n)
	for _, newCache := range caches() {
		c := newCache(t, 2*n)
		for i := range n {
			c.put(keysOf[i], values[i])
		}
		for i := range keysOf {
			got, ok := c.get(keysOf[i])
			require.Equal(t, i < n, ok, c.name)
			if ok {
				require.Same(t, values[i], got, c.name)
			}
		}
	}
}
