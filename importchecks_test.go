package fob_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

// secretPart is what stands after the dot in importedText.
const secretPart = "s3cr3t-of-another-system"

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func bcryptOf(t *testing.T, text string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(text), bcrypt.MinCost)
	require.NoError(t, err)
	return string(hash)
}

// What can never be verified is not imported, and the error says what is wrong with it.
func TestWhatCanNeverBeVerifiedIsNotImported(t *testing.T) {
	slow, sum := bcryptOf(t, secretPart), sha512.Sum512([]byte(importedText))
	const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of an empty text
	short := &fob.ImportedKeys{MaxLength: 16, Locate: func(presented string) (string, bool) { return "ab12cd", len(presented) == 20 }}
	for name, c := range map[string]struct {
		keys  *fob.ImportedKeys // located() if nil
		given fob.ImportedKey
		want  string
	}{
		"nothing":                     {nil, fob.ImportedKey{Locator: "ab12cd"}, "want one of Secret, Hash and Digest"},
		"two things":                  {nil, fob.ImportedKey{Hash: nothing, Secret: importedText}, "want one of Secret, Hash and Digest"},
		"a long locator":              {nil, fob.ImportedKey{Hash: slow, Locator: strings.Repeat("x", 257)}, "locator"},
		"a locator for nobody":        {&fob.ImportedKeys{}, fob.ImportedKey{Hash: slow, Locator: "ab12cd"}, "a Locator without Config.Imported.Locate"},
		"a part of a text":            {nil, fob.ImportedKey{Secret: importedText, HashAfter: "ab12cd.", Locator: "ab12cd"}, "a HashAfter without a Hash"},
		"a part of a digest":          {nil, fob.ImportedKey{Digest: otherDigest(importedText), HashAfter: "ab12cd.", Locator: "ab12cd"}, "a HashAfter without a Hash"},
		"a part, no locator":          {nil, fob.ImportedKey{Hash: sha256Hex(secretPart), HashAfter: "ab12cd."}, "give a Locator"},
		"SHA-512, no locator":         {nil, fob.ImportedKey{Hash: hex.EncodeToString(sum[:])}, "give a Locator"},
		"bcrypt, no locator":          {nil, fob.ImportedKey{Hash: slow}, "give a Locator, or compute the hash in Config.Imported.Digest"},
		"no separator":                {nil, fob.ImportedKey{Hash: slow, HashAfter: "ab12cd", Locator: "ab12cd"}, "with the separator"},
		"another locator":             {nil, fob.ImportedKey{Hash: slow, HashAfter: "ef34gh.", Locator: "ab12cd"}, "does not find this Locator"},
		"the wrong way round":         {nil, fob.ImportedKey{Hash: slow, HashAfter: ".ab12cd", Locator: "ab12cd"}, "does not find this Locator"},
		"a space":                     {nil, fob.ImportedKey{Hash: slow, HashAfter: "ab 12cd.", Locator: "ab 12cd"}, "visible ASCII"},
		"too long":                    {nil, fob.ImportedKey{Hash: slow, HashAfter: strings.Repeat("a", 512) + ".", Locator: strings.Repeat("a", 200)}, "visible ASCII"},
		"longer than a key may be":    {short, fob.ImportedKey{Hash: slow, HashAfter: "ab12cd.", Locator: "ab12cd"}, "visible ASCII"},
		"no hash":                     {nil, fob.ImportedKey{Hash: "x", Locator: "ab12cd"}, "SHA-256 has 64 hex digits"},
		"SHA-1":                       {nil, fob.ImportedKey{Hash: strings.Repeat("a1", 20)}, "Config.Imported.Digest"},
		"Gitea's as it stands there":  {nil, fob.ImportedKey{Hash: strings.Repeat("a1", 50), Locator: "ab12cd"}, "$pbkdf2-sha256$i=<rounds>$<salt>$<digest>"},
		"too slow":                    {nil, fob.ImportedKey{Hash: strings.Replace(slow, "$04$", "$16$", 1), Locator: "ab12cd"}, "costs too much"},
		"of nothing":                  {nil, fob.ImportedKey{Hash: nothing}, "the hash of an empty text"},
		"of nothing behind a locator": {nil, fob.ImportedKey{Hash: nothing, HashAfter: "ab12cd.", Locator: "ab12cd"}, "the hash of an empty text"},
		"of too many lanes": {nil, fob.ImportedKey{Hash: "$argon2id$v=19$m=128,t=1,p=16$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
			HashAfter: "ab12cd.", Locator: "ab12cd"}, "SlowChecks is 2"},
		"a short digest":     {nil, fob.ImportedKey{Digest: make([]byte, 15)}, "a Digest of 16 to 64 bytes"},
		"a long digest":      {nil, fob.ImportedKey{Digest: make([]byte, 65)}, "a Digest of 16 to 64 bytes"},
		"a digest of no one": {&fob.ImportedKeys{}, fob.ImportedKey{Digest: make([]byte, 32)}, "want Config.Imported.Digest"},
		"a short text":       {nil, fob.ImportedKey{Secret: "short"}, "visible ASCII"},
		"another text":       {nil, fob.ImportedKey{Secret: importedText, Locator: "ef34gh"}, "does not find this Locator in the key"},
	} {
		t.Run(name, func(t *testing.T) {
			keys := c.keys
			if keys == nil {
				keys = located()
			}
			keys.SlowChecks = 2
			store := memory.New()
			m := newManager(t, store, fob.Config{Imported: keys})
			_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, c.given)
			require.ErrorIs(t, err, fob.ErrInvalid)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), secretPart)
			page, err := m.List(t.Context(), fob.Query{})
			require.NoError(t, err)
			require.Empty(t, page.Items, "nothing was written")
		})
	}
}

// A text that would be taken for a token is no key, whatever stands behind it.
func TestAHashAfterTheBeginningOfAToken(t *testing.T) {
	cfg := tokenConfig()
	cfg.Imported = located()
	m := newManager(t, nil, cfg)
	_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: bcryptOf(t, secretPart), HashAfter: "v4.", Locator: "v4"})
	require.ErrorIs(t, err, fob.ErrInvalid)
	require.ErrorContains(t, err, "begins as a token does")
}

// The locator may stand anywhere in the key, and Locate may ask for the length of it all.
func TestWhereALocatorMayStand(t *testing.T) {
	part := func(from, to int) func(string) (string, bool) {
		return func(s string) (string, bool) { return s[min(from, len(s)):min(to, len(s))], len(s) > to }
	}
	last := func(s string) (string, bool) { return s[len(s)-4:], len(s) > 7 }
	ofLength := func(n int) func(string) (string, bool) {
		return func(s string) (string, bool) { return s[:7], len(s) == n }
	}
	for name, c := range map[string]struct {
		locate         func(string) (string, bool)
		after, locator string
		secret         string // "" if the import is refused
	}{
		"before the part":       {until("|"), "17|", "17", "a-long-secret"},
		"behind a label":        {func(s string) (string, bool) { return strings.Split(s+"__", "_")[1], true }, "sk_k7f2_", "k7f2", "secret"},
		"first of the part":     {part(3, 7), "sk_", "AbCd", "AbCd-secret"},
		"first of the key":      {part(0, 7), "sk_", "sk_AbCd", "AbCd-secret"},
		"last of the part":      {last, "sk_", "wxyz", "secret-wxyz"},
		"after one character":   {part(1, 5), "s", "AbCd", "AbCd-secret"},
		"of 8 characters":       {ofLength(8), "k7f2abc", "k7f2abc", "x"},
		"of 270 characters":     {ofLength(270), "k7f2abc", "k7f2abc", strings.Repeat("x", 263)},
		"of 271 characters":     {ofLength(271), "k7f2abc", "k7f2abc", ""},
		"of what is not secret": {ofLength(8), "k7f2abcd", "k7f2abc", ""},
		"of no place at all":    {func(string) (string, bool) { return "other", true }, "k7f2.", "k7f2", ""},
		"first, of another":     {part(0, 7), "sk_", "pk_AbCd", ""},
		"first, not in front":   {part(0, 7), "sk_", "xsk_AbC", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t, nil, fob.Config{Imported: &fob.ImportedKeys{Locate: c.locate}})
			secret := c.secret
			key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: sha256Hex(secret), HashAfter: c.after, Locator: c.locator})
			if secret == "" {
				require.ErrorIs(t, err, fob.ErrInvalid)
				require.ErrorContains(t, err, "does not find this Locator")
				return
			}
			require.NoError(t, err)
			require.Equal(t, key.ID(), mustVerify(t, m, c.after+secret).ID())
		})
	}
}

// A hash of a part is found again in whatever spelling it stands in the table, and by the
// text of its key. The same hash of a whole key is of another key.
func TestAHashOfAPartIsImportedOnce(t *testing.T) {
	sum := sha256.Sum256([]byte(secretPart))
	spelled := []string{hex.EncodeToString(sum[:]), strings.ToUpper(hex.EncodeToString(sum[:])), base64.StdEncoding.EncodeToString(sum[:]), fmt.Sprintf("sha256:%x", sum)}
	spec := fob.KeySpec{Subject: fob.App("a")}
	for _, used := range []bool{false, true} {
		m := newManager(t, nil, fob.Config{Imported: located()})
		whole, err := m.ImportKey(t.Context(), spec, fob.ImportedKey{Hash: spelled[0]})
		require.NoError(t, err)
		key, err := m.ImportKey(t.Context(), spec, fob.ImportedKey{Hash: spelled[0], HashAfter: "ab12cd.", Locator: "ab12cd"})
		require.NoError(t, err)
		if used {
			mustVerify(t, m, importedText)
		}
		for _, hash := range spelled {
			_, err = m.ImportKey(t.Context(), spec, fob.ImportedKey{Hash: hash, HashAfter: "ab12cd.", Locator: "ab12cd", Another: true})
			require.ErrorIs(t, err, fob.ErrAlready, hash)
			_, err = m.ImportKey(t.Context(), spec, fob.ImportedKey{Hash: hash})
			require.ErrorIs(t, err, fob.ErrAlready, hash)
		}
		_, err = m.ImportKey(t.Context(), spec, fob.ImportedKey{Secret: importedText, Locator: "ab12cd"})
		require.ErrorIs(t, err, fob.ErrAlready)
		require.Equal(t, key.ID(), mustVerify(t, m, importedText).ID())
		require.Equal(t, whole.ID(), mustVerify(t, m, secretPart).ID())
	}
}

// A bcrypt hash of an empty part lets nobody in by the public part alone.
func TestAnEmptySecretPartIsNone(t *testing.T) {
	m := newManager(t, nil, fob.Config{Imported: located()})
	_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: bcryptOf(t, ""), HashAfter: "ab12cd34.", Locator: "ab12cd34"})
	require.NoError(t, err)
	mustReject(t, m, "ab12cd34.", fob.ErrUnknown)
}

// A record whose hash of a part is broken says nothing of the text: that is no rejection.
func TestABrokenHashOfAPart(t *testing.T) {
	hash := sha256Hex(secretPart)
	for _, kept := range []string{"part:", "part:7", "part::ab12cd." + hash, "part:0:" + hash, "part:-1:" + hash, "part:x:ab12cd." + hash,
		"part:99999999999999999999:ab12cd." + hash, "part:8:ab12cd." + hash, "part:6:ab12cd." + hash, "part:71:ab12cd." + hash, "part:72:ab12cd." + hash} {
		store := memory.New()
		m := newManager(t, bare{store}, fob.Config{Imported: located()})
		key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: hash, HashAfter: "ab12cd.", Locator: "ab12cd"})
		require.NoError(t, err)
		rec, err := store.Get(t.Context(), idOf(key))
		require.NoError(t, err)
		fields := fieldsOf(t, rec)
		changed := 0
		for i := range fields {
			if fields[i].v == "part:7:ab12cd."+hash {
				fields[i].v, changed = kept, changed+1
			}
		}
		require.Equal(t, 1, changed)
		rewrite(t, store, rec, fields...)
		_, err = newManager(t, bare{store}, fob.Config{Imported: located()}).Verify(t.Context(), importedText)
		mustBeUnsure(t, err)
		require.ErrorIs(t, err, fob.ErrCorrupt, kept)
	}
}
