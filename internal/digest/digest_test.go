package digest_test

import (
	"encoding/hex"
	"testing"

	"github.com/fobkit/fob/internal/digest"
	"github.com/stretchr/testify/require"
)

// The examples of FIPS 180-4 and of RFC 4231, test case 2.
func TestDigestsAreThoseOfTheStandards(t *testing.T) {
	plain := digest.Of([]byte("abc"))
	require.Equal(t, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", hex.EncodeToString(plain[:]))
	keyed := digest.Keyed([]byte("Jefe"), []byte("what do ya want for nothing?"))
	require.Equal(t, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", hex.EncodeToString(keyed[:]))
}

// Each bit counts, also in the last byte.
func TestEqualSeesEachBit(t *testing.T) {
	d := digest.Of([]byte("abc"))
	for n := range len(d) * 8 {
		other := d
		require.True(t, d.Equal(&other))
		other[n/8] ^= 1 << (n % 8)
		require.False(t, d.Equal(&other), "bit %d", n)
		require.False(t, other.Equal(&d), "bit %d", n)
	}
}
