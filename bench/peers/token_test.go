package peers_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	paseto "aidanwoods.dev/go-paseto"
	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
	tokencache "k8s.io/apiserver/pkg/authentication/token/cache"
)

// claims are those of fob's own tokens: the peers seal the same ones.
type claims struct {
	payloads []string
	bad      map[string]string
	footer   string
}

// newClaims takes the claims, and the footer, out of n signed tokens of fob.
func newClaims(tb testing.TB, n int) claims {
	tb.Helper()
	c := claims{payloads: make([]string, n)}
	for i, text := range fobTokens(tb, fob.V4Public, 1, n).texts {
		part := strings.Split(text, ".") // v4, public, payload and signature, footer
		sealed, err := base64.RawURLEncoding.DecodeString(part[2])
		require.NoError(tb, err)
		c.payloads[i] = string(sealed[:len(sealed)-64])
		footer, err := base64.RawURLEncoding.DecodeString(part[3])
		require.NoError(tb, err)
		c.footer = string(footer)
	}
	edited := func(changes map[string]any) string {
		var all map[string]any
		require.NoError(tb, json.Unmarshal([]byte(c.payloads[0]), &all))
		for name, value := range changes {
			require.Contains(tb, all, name)
			all[name] = value
		}
		text, err := json.Marshal(all)
		require.NoError(tb, err)
		return string(text)
	}
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	c.bad = map[string]string{
		"of another issuer":    edited(map[string]any{"iss": "evil"}),
		"for another audience": edited(map[string]any{"aud": "billing"}),
		"expired":              edited(map[string]any{"iat": at(-2 * time.Hour), "nbf": at(-2 * time.Hour), "exp": at(-time.Hour)}),
		"not yet valid":        edited(map[string]any{"nbf": at(time.Hour), "exp": at(2 * time.Hour)}),
	}
	return c
}

// sealed is a peer whose texts are these claims under its seal.
func (c claims) sealed(tb testing.TB, p *peer, seal func(payload string) (string, error)) *peer {
	tb.Helper()
	must := func(payload string) string {
		text, err := seal(payload)
		require.NoError(tb, err)
		return text
	}
	p.bad = map[string]string{"changed": changed(must(c.payloads[0]))}
	for what, payload := range c.bad {
		p.bad[what] = must(payload)
	}
	for _, payload := range c.payloads {
		p.texts = append(p.texts, must(payload))
	}
	return p
}

// fobTokens is a Manager with room for so many answers, and n tokens.
func fobTokens(tb testing.TB, protocol fob.Protocol, entries, n int) *peer {
	tb.Helper()
	manager := func(store backend.Store, issuer string, clock func() time.Time) *fob.Manager {
		return newFob(tb, store, fob.Config{CacheEntries: entries, Clock: clock, Tokens: &fob.TokenConfig{
			Issuer: issuer, Audiences: []string{audience}, Protocol: protocol, SealKey: bytes.Repeat([]byte{7}, 32), TTL: time.Hour,
		}})
	}
	issue := func(m *fob.Manager, spec fob.TokenSpec) string {
		spec.Scopes = fob.Scopes{"orders:read", "orders:list"}
		spec.Grants = fob.Grants{{Type: "orders", Actions: []string{"write"}, Identifiers: []string{"42"}}}
		issued, err := m.IssueToken(tb.Context(), spec)
		require.NoError(tb, err)
		return issued.Access.Reveal()
	}
	store := memory.New()
	// Two hours ago it made the key that signs now as well.
	earlier := manager(store, issuer, func() time.Time { return time.Now().Add(-2 * time.Hour) })
	expired := issue(earlier, fob.TokenSpec{Subject: fob.User(subject(0))})
	m := manager(store, issuer, nil)
	p := &peer{name: "fob_" + protocol.String(), check: fobCheck(m), texts: make([]string, n)}
	for i := range p.texts {
		p.texts[i] = issue(m, fob.TokenSpec{Subject: fob.User(subject(i))})
	}
	p.bad = map[string]string{
		"changed":              changed(p.texts[0]),
		"of another issuer":    issue(manager(memory.New(), "evil", nil), fob.TokenSpec{Subject: fob.User(subject(0))}),
		"for another audience": issue(m, fob.TokenSpec{Subject: fob.User(subject(0)), Audience: "billing"}),
		"expired":              expired,
		"not yet valid":        issue(m, fob.TokenSpec{Subject: fob.User(subject(0)), NotBefore: time.Now().Add(30 * time.Minute)}),
	}
	return p
}

// signed are the peers whose tokens anybody can check who has a public key.
func (c claims) signed(tb testing.TB) []*peer {
	tb.Helper()
	return []*peer{
		fobTokens(tb, fob.V4Public, 1, len(c.payloads)),
		fobTokens(tb, fob.V2Public, 1, len(c.payloads)),
		c.pasetoV4Public(tb),
		c.pasetoV2Public(tb),
		c.jwtEdDSA(tb),
	}
}

// sharedKey are the peers whose tokens need the key that made them.
func (c claims) sharedKey(tb testing.TB) []*peer {
	tb.Helper()
	return []*peer{
		fobTokens(tb, fob.V4Local, 1, len(c.payloads)),
		fobTokens(tb, fob.V2Local, 1, len(c.payloads)),
		c.pasetoV4Local(tb),
		c.pasetoV2Local(tb),
		c.jwtHS256(tb),
	}
}

// cached are the peers that remember what they have seen, and the count of what
// the second of them has seen for the first time.
func (c claims) cached(tb testing.TB, protocol fob.Protocol) ([]*peer, *atomic.Int64) {
	tb.Helper()
	inner := c.pasetoV4Public
	if protocol == fob.V4Local {
		inner = c.pasetoV4Local
	}
	p := inner(tb)
	v := &verifying{check: p.check}
	p.check = authenticated(tokencache.New(v, false, time.Hour, time.Hour))
	p.name = strings.Replace(p.name, "go-paseto", "kubernetes", 1)
	return []*peer{fobTokens(tb, protocol, 2*len(c.payloads), len(c.payloads)), p}, &v.calls
}

// BenchmarkToken verifies access tokens; see the comment of the package.
func BenchmarkToken(b *testing.B) {
	few := newClaims(b, cold)
	for _, s := range []struct {
		name  string
		peers []*peer
	}{
		{"signed", few.signed(b)},
		{"shared_key", few.sharedKey(b)},
		{"opaque", opaque(b, cold)},
	} {
		for _, p := range s.peers {
			b.Run(s.name+"/"+p.name, func(b *testing.B) {
				p.serial(b, cold)
				// What fob remembers it finds without allocating; the peers remember nothing.
				require.Positive(b, p.allocations(b), "%s answered from a cache", p.name)
			})
		}
	}
	many := newClaims(b, live)
	for _, s := range []struct {
		name     string
		protocol fob.Protocol
	}{{"cached_signed", fob.V4Public}, {"cached_shared_key", fob.V4Local}} {
		peers, verified := many.cached(b, s.protocol)
		for _, p := range peers {
			p.warm(b)
			b.Run(s.name+"/"+p.name, func(b *testing.B) { p.serial(b, live) })
		}
		require.Zero(b, peers[0].allocations(b), "fob did not answer from its cache")
		require.EqualValues(b, live, verified.Load(), "Kubernetes did not answer from its cache")
	}
}

// rules are what go-paseto is told to check besides the seal.
func rules() paseto.Parser {
	return paseto.MakeParser([]paseto.Rule{
		paseto.IssuedBy(issuer), paseto.ForAudience(audience), paseto.NotExpired(), paseto.NotBeforeNbf(),
	})
}
