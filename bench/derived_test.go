package bench_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// BenchmarkDerivedToken measures a cached token that a key was exchanged for: its use
// counts for the key.
func BenchmarkDerivedToken(b *testing.B) {
	for name, keys := range map[string]int{"one_key": 1, "many_keys": 100} {
		m := newManager(b, memory.New(), fob.Config{MaxStaleness: time.Hour, Tokens: &fob.TokenConfig{
			Issuer: "acme", Audiences: []string{"api"}, SealKey: bytes.Repeat([]byte{7}, 32), TTL: time.Hour,
		}})
		texts := make([]string, liveTokens/10)
		secrets := make([]string, keys)
		for i := range secrets {
			secret, _, err := m.IssueKey(b.Context(), fob.KeySpec{Subject: fob.App("app-42"), Scopes: fob.Scopes{"orders:read"}})
			require.NoError(b, err)
			secrets[i] = secret.Reveal()
		}
		for i := range texts {
			issued, err := m.ExchangeKey(b.Context(), secrets[i%keys], fob.TokenSpec{Scopes: fob.Scopes{"orders:read"}})
			require.NoError(b, err)
			texts[i] = issued.Access.Reveal()
			_, err = m.Verify(b.Context(), texts[i])
			require.NoError(b, err)
		}
		b.Run(name, func(b *testing.B) { verify(b, m, texts) })
	}
}
