package bench_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// BenchmarkRevokeParent ends every token that hangs from a key, of a thousand and
// of a million cached ones, by disabling the key: the same write, and the same
// invalidation, as revoking it, and it can be done again. In the end the key is
// revoked, and the next verification of each token must fail.
func BenchmarkRevokeParent(b *testing.B) {
	for _, children := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprintf("children=%d", children), func(b *testing.B) {
			m := newManager(b, memory.New(), fob.Config{
				CacheEntries: 2 * children, CacheBytes: int64(children) << 12, MaxStaleness: time.Hour,
				Tokens: &fob.TokenConfig{
					Issuer: "acme", Audiences: []string{"api"}, Protocol: fob.V4Local, SealKey: bytes.Repeat([]byte{7}, 32), TTL: time.Hour, MaxTTL: time.Hour,
				},
			})
			ctx := b.Context()
			secret, key, err := m.IssueKey(ctx, fob.KeySpec{Subject: fob.App("app-42"), Scopes: fob.Scopes{"orders:read"}})
			require.NoError(b, err)
			texts := make([]string, children)
			for i := range texts {
				issued, err := m.ExchangeKey(ctx, secret.Reveal(), fob.TokenSpec{Audience: "api"})
				if err != nil {
					b.Fatal(err)
				}
				texts[i] = issued.Access.Reveal()
				if _, err := m.Verify(ctx, texts[i]); err != nil {
					b.Fatal(err)
				}
			}
			if st := m.CacheStats(); st.Tokens.Entries != children {
				b.Fatalf("%d cached, want %d", st.Tokens.Entries, children)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Disable(ctx, key.ID(), ""); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := m.Enable(ctx, key.ID()); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			_, err = m.Revoke(ctx, key.ID(), "leaked")
			require.NoError(b, err)
			for _, text := range texts {
				if _, err := m.Verify(ctx, text); !errors.Is(err, fob.ErrRevoked) {
					b.Fatal("accepted after its parent was revoked: ", err)
				}
			}
		})
	}
}
