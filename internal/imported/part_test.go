package imported_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/imported"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
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

// The key is imported once, in whatever spelling its hash stands in the table, and is
// recognised by its text.
func TestAHashOfAPartIsImportedOnce(t *testing.T) {
	sum := sha256.Sum256([]byte(part))
	spelled := []string{hex.EncodeToString(sum[:]), strings.ToUpper(hex.EncodeToString(sum[:])), base64.StdEncoding.EncodeToString(sum[:]), fmt.Sprintf("sha256:%x", sum)}
	s := newStore(memory.New())
	mustImport(t, s, imported.Key{Hash: spelled[0], HashAfter: "ab12cd.", Locator: "ab12cd"})
	for _, hash := range spelled {
		f, err := s.Check(imported.Key{Hash: hash, HashAfter: "ab12cd.", Locator: "ab12cd"})
		require.NoError(t, err)
		require.ErrorIs(t, s.Import(t.Context(), newKey("a"), f, begun), errs.ErrAlready, hash)
	}
	require.ErrorIs(t, s.Import(t.Context(), newKey("a"), imported.Key{Secret: text, Locator: "ab12cd"}, begun), errs.ErrAlready)
	whole, err := s.Check(imported.Key{Hash: spelled[0], Locator: "ab12cd"})
	require.NoError(t, err)
	require.ErrorIs(t, s.Import(t.Context(), newKey("a"), whole, begun), errs.ErrConflict, "the same hash of a whole key is of another key; nobody can tell that from its hash")
	whole.Another = true
	require.NoError(t, s.Import(t.Context(), newKey("b"), whole, begun))
	k, _, _ := found(t, s, text)
	_, _, name := k.Subject()
	require.Equal(t, "a", name)
	k, _, _ = found(t, s, part)
	require.Nil(t, k, "it has no locator")
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

// A record whose hash is broken says nothing about the text.
func TestABrokenHashOfAPart(t *testing.T) {
	const hash = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
	for _, kept := range []string{"part:", "part:7", "part::ab12cd." + hash, "part:0:" + hash, "part:-1:" + hash, "part:x:ab12cd." + hash, "part:99999:ab12cd." + hash, "part:8:ab12cd." + hash, "part:6:ab12cd." + hash, "part:71:ab12cd." + hash} {
		store := memory.New()
		s := newStore(store)
		k := mustImport(t, s, imported.Key{Hash: hash, HashAfter: "ab12cd.", Locator: "ab12cd"})
		require.Equal(t, "part:7:ab12cd."+hash, k.ImportedHash)
		k.ImportedHash = kept
		_, err := store.Put(t.Context(), s.RecordOf(k), backend.IfVersion(k.Version))
		require.NoError(t, err)
		_, _, err = s.Find(t.Context(), text, digest.Of([]byte(text)), func(record.ID) {})
		require.ErrorIs(t, err, errs.ErrCorrupt, kept)
	}
}

// What can never be verified is not imported, and the error says what is wrong with it.
func TestWhatCanNeverBeVerified(t *testing.T) {
	hash := partForms(t, part)["sha256"]
	slow := partForms(t, part)["bcrypt"]
	for name, c := range map[string]struct {
		f    imported.Key
		want string
	}{
		"nothing":                  {imported.Key{Locator: "ab12cd"}, "want one of Secret, Hash and Digest"},
		"two things":               {imported.Key{Hash: hash, Secret: text}, "want one of Secret, Hash and Digest"},
		"a locator of 257 bytes":   {imported.Key{Hash: hash, Locator: strings.Repeat("x", 257)}, "locator"},
		"a part of a text":         {imported.Key{Secret: text, HashAfter: "ab12cd.", Locator: "ab12cd"}, "a HashAfter without a Hash"},
		"a part of a digest":       {imported.Key{Digest: ownDigest(text), HashAfter: "ab12cd.", Locator: "ab12cd"}, "a HashAfter without a Hash"},
		"a part, no locator":       {imported.Key{Hash: hash, HashAfter: "ab12cd."}, "give a Locator"},
		"SHA-512, no locator":      {imported.Key{Hash: partForms(t, part)["sha512"]}, "give a Locator"},
		"bcrypt, no locator":       {imported.Key{Hash: slow}, "give a Locator, or compute the hash in Config.Imported.Digest"},
		"no separator":             {imported.Key{Hash: slow, HashAfter: "ab12cd", Locator: "ab12cd"}, "with the separator"},
		"another locator":          {imported.Key{Hash: slow, HashAfter: "ef34gh.", Locator: "ab12cd"}, "does not find this Locator"},
		"the wrong way round":      {imported.Key{Hash: slow, HashAfter: ".ab12cd", Locator: "ab12cd"}, "does not find this Locator"},
		"a space":                  {imported.Key{Hash: slow, HashAfter: "ab 12cd.", Locator: "ab 12cd"}, "no text of a key"},
		"too long":                 {imported.Key{Hash: slow, HashAfter: strings.Repeat("a", 64) + ".", Locator: strings.Repeat("a", 64)}, "no text of a key"},
		"no hash":                  {imported.Key{Hash: "x", Locator: "ab12cd"}, "imported hash: unknown or malformed: SHA-256 has 64 hex digits"},
		"of nothing":               {imported.Key{Hash: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}, "the hash of an empty text"},
		"of nothing, after a part": {imported.Key{Hash: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", HashAfter: "ab12cd.", Locator: "ab12cd"}, "the hash of an empty text"},
		"three lanes":              {imported.Key{Hash: "$argon2id$v=19$m=64,t=1,p=3$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Locator: "ab12cd"}, "SlowChecks is 2"},
		"a short digest":           {imported.Key{Digest: make([]byte, 15)}, "a Digest of 16 to 64 bytes"},
		"a long digest":            {imported.Key{Digest: make([]byte, 65)}, "a Digest of 16 to 64 bytes"},
		"a text of none":           {imported.Key{Secret: "short"}, "no text of a key"},
		"a text of another":        {imported.Key{Secret: text, Locator: "ef34gh"}, "does not find this Locator in the key"},
	} {
		s := newStore(memory.New())
		_, err := s.Check(c.f)
		require.ErrorIs(t, err, errs.ErrInvalid, name)
		require.ErrorContains(t, err, c.want, name)
		require.NotContains(t, err.Error(), part)
	}
	s := newStore(memory.New())
	s.Locate, s.Digest = nil, nil
	_, err := s.Check(imported.Key{Hash: hash, Locator: "ab12cd"})
	require.ErrorContains(t, err, "a Locator without Config.Imported.Locate")
	_, err = s.Check(imported.Key{Digest: ownDigest(text)})
	require.ErrorContains(t, err, "want Config.Imported.Digest")
}

// The locator may stand anywhere in the key, and Locate may ask for the length of it all.
func TestWhereALocatorMayStand(t *testing.T) {
	slow := partForms(t, part)["bcrypt"]
	for name, c := range map[string]struct {
		locate         func(string) (string, bool)
		after, locator string
		refused        bool
	}{
		"before the part":     {func(s string) (string, bool) { l, _, ok := strings.Cut(s, "|"); return l, ok }, "17|", "17", false},
		"behind a label":      {func(s string) (string, bool) { return strings.Split(s+"__", "_")[1], true }, "sk_k7f2_", "k7f2", false},
		"first of the part":   {func(s string) (string, bool) { return s[3:min(7, len(s))], len(s) > 7 }, "sk_", "AbCd", false},
		"first of the key":    {func(s string) (string, bool) { return s[:min(7, len(s))], len(s) > 7 }, "sk_", "sk_AbCd", false},
		"last of the part":    {func(s string) (string, bool) { return s[max(0, len(s)-4):], len(s) > 7 }, "sk_", "wxyz", false},
		"of 40 characters":    {func(s string) (string, bool) { return s[:min(4, len(s))], len(s) == 40 }, "k7f2", "k7f2", false},
		"of 41, never":        {func(s string) (string, bool) { return s[:min(4, len(s))], len(s) == 65 }, "k7f2", "k7f2", true},
		"of no place at all":  {func(string) (string, bool) { return "other", true }, "k7f2.", "k7f2", true},
		"first, of another":   {func(s string) (string, bool) { return s[:min(7, len(s))], true }, "sk_", "pk_AbCd", true},
		"first, not in front": {func(s string) (string, bool) { return s[:min(7, len(s))], true }, "sk_", "xsk_AbC", true},
	} {
		s := newStore(memory.New())
		s.Locate = c.locate
		f, err := s.Check(imported.Key{Hash: slow, HashAfter: c.after, Locator: c.locator})
		require.Equal(t, c.refused, err != nil, name)
		require.Equal(t, slow, f.Hash)
	}
}
