package peers_test

import (
	"context"
	"crypto/sha256"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	tokencache "k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/user"
)

// keys are the same texts for all libraries.
type keys struct {
	store backend.Store
	texts []string
	bad   map[string]string
}

func issueKeys(tb testing.TB, n int) keys {
	tb.Helper()
	k := keys{store: memory.New(), texts: make([]string, n)}
	m := newFob(tb, k.store, fob.Config{})
	issue := func(m *fob.Manager, subject string) string {
		secret, _, err := m.IssueKey(tb.Context(), fob.KeySpec{Subject: fob.App(subject), Scopes: fob.Scopes{"orders:read", "orders:list"}})
		require.NoError(tb, err)
		return secret.Reveal()
	}
	for i := range k.texts {
		k.texts[i] = issue(m, subject(i))
	}
	// One behind the other, for all libraries alike: what a server has just read from a
	// connection is near.
	all := strings.Join(k.texts, "")
	for i, text := range k.texts {
		k.texts[i], all = all[:len(text)], all[len(text):]
	}
	k.bad = map[string]string{
		"changed": changed(k.texts[0]),
		"unknown": issue(newFob(tb, memory.New(), fob.Config{}), subject(0)),
	}
	return k
}

func (k keys) peer(name string, check func(context.Context, string) (string, error)) *peer {
	return &peer{name: name, check: check, texts: k.texts, bad: k.bad}
}

// counted counts the reads.
type counted struct {
	backend.Store
	gets atomic.Int64
}

func (s *counted) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	s.gets.Add(1)
	return s.Store.Get(ctx, id)
}

func (s *counted) Unwrap() backend.Store { return s.Store }

// fob is a Manager of its own on the store of the keys, and the count of the
// reads of that.
func (k keys) fob(tb testing.TB, entries int) (*peer, *atomic.Int64) {
	tb.Helper()
	store := &counted{Store: k.store}
	return k.peer("fob", fobCheck(newFob(tb, store, fob.Config{CacheEntries: entries}))), &store.gets
}

// lookup is the least that checks a key: its digest, found in a map.
type lookup struct {
	accounts map[[sha256.Size]byte]account
	calls    atomic.Int64
}

type account struct {
	subject string
	scopes  []string
}

var _ authenticator.Token = (*lookup)(nil)

func newLookup(texts []string) *lookup {
	l := &lookup{accounts: make(map[[sha256.Size]byte]account, len(texts))}
	for i, text := range texts {
		l.accounts[sha256.Sum256([]byte(text))] = account{subject(i), []string{"orders:read", "orders:list"}}
	}
	return l
}

// AuthenticateToken implements authenticator.Token.
func (l *lookup) AuthenticateToken(_ context.Context, text string) (*authenticator.Response, bool, error) {
	l.calls.Add(1)
	a, ok := l.accounts[sha256.Sum256(unsafe.Slice(unsafe.StringData(text), len(text)))]
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: a.subject, Groups: a.scopes}}, true, nil
}

func authenticated(a authenticator.Token) func(context.Context, string) (string, error) {
	return func(ctx context.Context, text string) (string, error) {
		resp, ok, err := a.AuthenticateToken(ctx, text)
		if err != nil {
			return "", err
		}
		if !ok {
			return "", errRefused
		}
		return resp.User.GetName(), nil
	}
}

// floor is that lookup with nothing before it.
func (k keys) floor() (*peer, *atomic.Int64) {
	l := newLookup(k.texts)
	return k.peer("floor", authenticated(l)), &l.calls
}

// kubernetes is its token cache over that lookup, and the count of the lookups.
func (k keys) kubernetes(name string, success, failure time.Duration) (*peer, *atomic.Int64) {
	l := newLookup(k.texts)
	return k.peer(name, authenticated(tokencache.New(l, false, success, failure))), &l.calls
}

// BenchmarkCachedKey asks for keys that have been seen before: 10,000 of them in
// turn, or one.
func BenchmarkCachedKey(b *testing.B) {
	keys := issueKeys(b, live)
	own, reads := keys.fob(b, 2*live)
	kubernetes, calls := keys.kubernetes("kubernetes", time.Hour, time.Hour)
	own.warm(b)
	kubernetes.warm(b)
	warm := reads.Load() // the keys, and what it must know of their subjects
	require.GreaterOrEqual(b, warm, int64(live))
	defer func() { // after all below, however many times that ran
		require.Equal(b, warm, reads.Load(), "fob did not answer from its cache")
		require.EqualValues(b, live, calls.Load(), "Kubernetes did not answer from its cache")
	}()
	for _, access := range []struct {
		name string
		run  func(*peer, *testing.B)
	}{
		{"uniform", func(p *peer, b *testing.B) { p.serial(b, live) }},
		{"one_hot_key", func(p *peer, b *testing.B) { p.serial(b, 1) }},
		{"parallel_uniform", (*peer).parallel},
	} {
		for _, p := range []*peer{own, kubernetes} {
			b.Run(access.name+"/"+p.name, func(b *testing.B) { access.run(p, b) })
		}
	}
}

// BenchmarkUncachedKey asks for 10,000 keys in turn where the cache forgets each
// before it comes again. The cache of fob has room for one. That of Kubernetes
// has no bound but time: it remembers for 1 ns, and so fills and forgets as that
// of fob does; and, as kubernetes_no_ttl, it looks but remembers nothing. The
// floor has no cache.
func BenchmarkUncachedKey(b *testing.B) {
	keys := issueKeys(b, live)
	own, reads := keys.fob(b, 1)
	kubernetes, calls := keys.kubernetes("kubernetes", 1, 1)
	without, callsWithout := keys.kubernetes("kubernetes_no_ttl", 0, 0)
	floor, callsFloor := keys.floor()
	for _, c := range []struct {
		peer   *peer
		looked *atomic.Int64
	}{{own, reads}, {kubernetes, calls}, {without, callsWithout}, {floor, callsFloor}} {
		b.Run("uniform/"+c.peer.name, func(b *testing.B) {
			c.looked.Store(0)
			c.peer.serial(b, live)
			if c.looked.Load() < int64(b.N) {
				b.Fatalf("%d lookups for %d checks", c.looked.Load(), b.N)
			}
		})
	}
}
