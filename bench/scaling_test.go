package bench_test

import (
	"bytes"
	"crypto/sha256"
	"testing"
	"time"
	"unsafe"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// BenchmarkScaling is cached verification on several cores at once, beside the
// floor: the same hashes, and lookups in a Go map that nobody writes to. Run it
// with -cpu 1,2,4,8,16; twice the cores should be twice the rate.
func BenchmarkScaling(b *testing.B) {
	m := newManager(b, memory.New(), fob.Config{UsageInterval: time.Hour, Tokens: &fob.TokenConfig{
		Issuer: "acme", Audiences: []string{"api"}, SealKey: bytes.Repeat([]byte{7}, 32), TTL: time.Hour,
	}})
	keys, tokens := issue(b, m, live, 1000), issueTokens(b, m, live)
	byDigest := make(map[[sha256.Size]byte]*int, live)
	for _, text := range keys {
		byDigest[blockSum(text)] = new(int)
	}
	for _, text := range append(keys[:live:live], tokens...) {
		_, err := m.Verify(b.Context(), text)
		require.NoError(b, err)
	}
	accepted := func(text string) bool {
		cred, err := m.Verify(b.Context(), text)
		return err == nil && cred != nil
	}
	for _, a := range accesses {
		order := a.order(live)
		b.Run("floor/"+a.name, func(b *testing.B) {
			parallel(b, order, func(at int) bool { return byDigest[blockSum(keys[at])] != nil })
		})
		b.Run("key/"+a.name, func(b *testing.B) {
			parallel(b, order, func(at int) bool { return accepted(keys[at]) })
		})
		b.Run("token/"+a.name, func(b *testing.B) {
			parallel(b, order, func(at int) bool { return accepted(tokens[at]) })
		})
	}
}

// blockSum hashes the 49 characters that a key's digest is made over.
func blockSum(text string) [sha256.Size]byte {
	all := unsafe.Slice(unsafe.StringData(text), len(text))
	return sha256.Sum256(all[len(all)-55 : len(all)-6])
}
