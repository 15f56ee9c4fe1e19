package imported_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/imported"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

const part = "s3cr3t-of-another-system" // of text

// partForms are hashes of part only, as the other system wrote them.
func partForms(t *testing.T, part string) map[string]string {
	t.Helper()
	sum, long := sha256.Sum256([]byte(part)), sha512.Sum512([]byte(part))
	slow, err := bcrypt.GenerateFromPassword([]byte(part), bcrypt.MinCost)
	require.NoError(t, err)
	doubled := sha256.Sum256([]byte(part))
	django, err := bcrypt.GenerateFromPassword([]byte(hex.EncodeToString(doubled[:])), bcrypt.MinCost)
	require.NoError(t, err)
	return map[string]string{
		"sha256":        hex.EncodeToString(sum[:]),
		"sha256 base64": base64.RawURLEncoding.EncodeToString(sum[:]),
		"sha512":        "sha512$$" + hex.EncodeToString(long[:]),
		"bcrypt":        string(slow),
		"bcrypt django": "bcrypt_sha256$$2b" + strings.TrimPrefix(string(django), "$2a"),
	}
}

// mustImport checks a key and imports it.
func mustImport(t *testing.T, s *imported.Store, f imported.Key) *keystate.State {
	t.Helper()
	f, err := s.Check(f)
	require.NoError(t, err)
	k := newKey("a")
	require.NoError(t, s.Import(t.Context(), k, f, begun))
	return k
}

// The hash is of a part of the key, and the key is the whole text: whoever has the part
// presents it with nothing else in front.
func TestAHashOfAPartIsOfOneText(t *testing.T) {
	for name, hash := range partForms(t, part) {
		t.Run(name, func(t *testing.T) {
			s := newStore(memory.New())
			// The locators of this system are no more strict than those of many: letters of any
			// case, and zeros in front, are the same locator.
			s.Locate = func(presented string) (string, bool) {
				locator, _, ok := strings.Cut(presented, ".")
				return strings.ToLower(strings.TrimLeft(locator, "0")), ok
			}
			made := mustImport(t, s, imported.Key{Hash: hash, HashAfter: "ab12cd.", Locator: "ab12cd"})
			other := mustImport(t, s, imported.Key{Hash: partForms(t, "of-somebody-else")[name], HashAfter: "ef34gh.", Locator: "ef34gh"})
			require.NotEqual(t, made.ID, other.ID)
			for _, presented := range []string{
				part, "." + part, "AB12CD." + part, "00ab12cd." + part, "ef34gh." + part, "ab12cd." + "of-somebody-else", "ab12cd..", "ab12cd.",
				"ab12cd.." + part, "ab12cd.x" + part, "ab12cd." + part + "x", "xab12cd." + part, "zz." + part, "ab12cd." + hash, hash, "part:7:ab12cd." + hash,
			} {
				k, _, _ := found(t, s, presented)
				require.Nil(t, k, "%q", presented)
			}
			k, _, _ := found(t, s, text)
			require.Equal(t, made, k)
			require.NotContains(t, k.ImportedHash, part)
			k, _, _ = found(t, s, "ef34gh.of-somebody-else")
			require.Equal(t, other, k)
		})
	}
}

// Keys whose hashes are of any form share a locator, and each is its own.
func TestHashesOfEveryFormShareALocator(t *testing.T) {
	s := newStore(memory.New())
	var made []*keystate.State
	var texts []string
	for n, name := range []string{"sha256", "bcrypt", "sha512", "bcrypt django", "sha256 base64"} {
		secret := fmt.Sprintf("secret-number-%d", n)
		made = append(made, mustImport(t, s, imported.Key{Hash: partForms(t, secret)[name], HashAfter: "ab12cd.", Locator: "ab12cd", Another: true}))
		texts = append(texts, "ab12cd."+secret)
	}
	for n, name := range []string{"sha256", "bcrypt", "sha512"} {
		texts = append(texts, fmt.Sprintf("ab12cd.whole-key-%d", n))
		made = append(made, mustImport(t, s, imported.Key{Hash: partForms(t, texts[len(texts)-1])[name], Locator: "ab12cd", Another: true}))
	}
	for n, text := range texts {
		k, _, _ := found(t, s, text)
		require.Equal(t, made[n], k, text)
	}
	k, _, _ := found(t, s, "ab12cd.secret-number-9")
	require.Nil(t, k)
	f, err := s.Check(imported.Key{Hash: partForms(t, "ninth-secret")["sha256"], HashAfter: "ab12cd.", Locator: "ab12cd", Another: true})
	require.NoError(t, err)
	require.EqualError(t, s.Import(t.Context(), newKey("a"), f, begun), "fob: changed meanwhile: 8 other keys have this locator")
}
