package bench_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	oracle "aidanwoods.dev/go-paseto"
	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/stretchr/testify/require"
)

const liveTokens = 10_000

func tokenManager(b testing.TB, p fob.Protocol, entries int) *fob.Manager {
	b.Helper()
	return newManager(b, memory.New(), fob.Config{CacheEntries: entries, Tokens: &fob.TokenConfig{
		Issuer: "acme", Audiences: []string{"api"}, Protocol: p, SealKey: bytes.Repeat([]byte{7}, 32), TTL: time.Hour,
	}})
}

func issueTokens(b testing.TB, m *fob.Manager, n int) []string {
	b.Helper()
	texts := make([]string, n)
	for i := range texts {
		issued, err := m.IssueToken(context.Background(), fob.TokenSpec{
			Subject: fob.User(fmt.Sprintf("user-%d", i%1000)), Scopes: fob.Scopes{"orders:read", "orders:list"},
			Grants: fob.Grants{{Type: "orders", Actions: []string{"write"}, Identifiers: []string{"42"}}},
		})
		require.NoError(b, err)
		texts[i] = issued.Access.Reveal()
	}
	return texts
}

// BenchmarkToken measures tokens beside their floors: SHA-256 of the same bytes
// and a lookup in a Go map of the same 10,000; Ed25519 alone; and
// aidanwoods.dev/go-paseto parsing the same tokens, without rules.
func BenchmarkToken(b *testing.B) {
	for _, p := range []fob.Protocol{fob.V4Local, fob.V4Public, fob.V2Local, fob.V2Public} {
		m := tokenManager(b, p, 2*liveTokens)
		texts := issueTokens(b, m, liveTokens)
		for _, text := range texts {
			_, err := m.Verify(b.Context(), text)
			require.NoError(b, err)
		}
		byDigest := make(map[[sha256.Size]byte]*int, len(texts))
		for _, text := range texts {
			byDigest[sha256.Sum256([]byte(text))] = new(int)
		}
		b.Run(fmt.Sprintf("%v/floor_hash_and_map", p), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				text := texts[i]
				if byDigest[sha256.Sum256(unsafe.Slice(unsafe.StringData(text), len(text)))] == nil {
					b.Fatal("not found")
				}
				if i++; i == len(texts) {
					i = 0
				}
			}
		})
		b.Run(fmt.Sprintf("%v/cached", p), func(b *testing.B) { verify(b, m, texts) })
		b.Run(fmt.Sprintf("%v/issue", p), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.IssueToken(b.Context(), fob.TokenSpec{Subject: fob.User("user-7"), Scopes: fob.Scopes{"orders:read"}}); err != nil {
					b.Fatal(err)
				}
			}
		})
		// Another Manager, whose cache holds two tokens.
		cold := func(b *testing.B, store backend.Store) {
			b.Helper()
			cfg := fob.Config{Prefix: "acme_live", SweepInterval: -1, CacheEntries: 2, Tokens: &fob.TokenConfig{
				Issuer: "acme", Audiences: []string{"api"}, Protocol: p, SealKey: bytes.Repeat([]byte{7}, 32), TTL: time.Hour,
			}}
			m, err := fob.New(store, cfg)
			require.NoError(b, err)
			defer func() { require.NoError(b, m.Close()) }()
			texts := issueTokens(b, m, 100)
			verify(b, m, texts)
		}
		b.Run(fmt.Sprintf("%v/cold", p), func(b *testing.B) { cold(b, memory.New()) })
		b.Run(fmt.Sprintf("%v/cold_badger", p), func(b *testing.B) { cold(b, openBadger(b, b.TempDir())) })
	}
}

// BenchmarkTokenFloor is what a cold verification cannot go below.
func BenchmarkTokenFloor(b *testing.B) {
	m := tokenManager(b, fob.V4Public, 10)
	text := issueTokens(b, m, 1)[0]
	b.Run("ed25519", func(b *testing.B) {
		public, secret, err := ed25519.GenerateKey(nil)
		require.NoError(b, err)
		message := []byte(text[:len(text)-86])
		sig := ed25519.Sign(secret, message)
		b.ReportAllocs()
		for b.Loop() {
			if !ed25519.Verify(public, message, sig) {
				b.Fatal("not verified")
			}
		}
	})
	parser := oracle.MakeParser(nil)
	payload := `{"aud":"api","exp":"2036-11-23T08:15:00Z","iat":"2026-11-23T08:00:00Z","iss":"acme","jti":"0ZqKJ3vT9xWm4cRb","nbf":"2026-11-23T08:00:00Z",` +
		`"scope":"orders:read orders:list","sub":"user-7","sub_type":"user","use":"access","authorization_details":[{"type":"orders","actions":["write"],"identifiers":["42"]}]}`
	footer := `{"kid":"k4.lid.` + strings.Repeat("A", 44) + `"}`
	b.Run("go-paseto/v4.local", func(b *testing.B) {
		sym, err := paseto.NewSymmetricKey(paseto.V4Local)
		require.NoError(b, err)
		text, err := sym.Seal(payload, footer, "")
		require.NoError(b, err)
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(sym.PASERK(), "k4.local."))
		require.NoError(b, err)
		theirs, err := oracle.V4SymmetricKeyFromBytes(raw)
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parser.ParseV4Local(theirs, text, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("go-paseto/v4.public", func(b *testing.B) {
		theirs := oracle.NewV4AsymmetricSecretKey()
		token, err := oracle.NewTokenFromClaimsJSON([]byte(payload), []byte(footer))
		require.NoError(b, err)
		text := token.V4Sign(theirs, nil)
		public := theirs.Public()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parser.ParseV4Public(public, text, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}
