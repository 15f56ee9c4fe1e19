package fob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// The grammar of imported keys: 8 bytes to MaxLength of visible ASCII.
func TestWhatAnImportedKeyMayLookLike(t *testing.T) {
	m := newManager(t, nil, fob.Config{Imported: &fob.ImportedKeys{MaxLength: 40}})
	for text, ok := range map[string]bool{
		"!!!!!!!!": true, "~~~~~~~~": true, strings.Repeat("a", 8): true, strings.Repeat("b", 40): true,
		"":        false,
		"!~!~!~!": false, strings.Repeat("b", 41): false,
		"with a space": false, "ends-with-one ": false, "tab\tinside": false, "line-end\n": false, "zero\x00byte": false,
		"delete-\x7f-byte": false, "beyond-ascii-\x80": false, "ümlaut-inside": false,
	} {
		key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: text})
		if ok {
			require.NoError(t, err, "%q", text)
			require.Equal(t, key.ID(), mustVerify(t, m, text).ID())
		} else {
			require.ErrorIs(t, err, fob.ErrInvalid, "%q", text)
			mustReject(t, m, text, fob.ErrMalformed)
		}
	}
}

// A digest of the other system has 16 to 64 bytes, and there is a function for it; a
// Locator is one that Locate can find.
func TestTheBoundsOfWhatIsImported(t *testing.T) {
	both, none := newManager(t, nil, fob.Config{Imported: located()}), newManager(t, nil, fob.Config{Imported: &fob.ImportedKeys{}})
	for n, ok := range map[int]bool{0: false, 15: false, 16: true, 64: true, 65: false} {
		f := fob.ImportedKey{Digest: bytes.Repeat([]byte{byte(n)}, n)}
		_, err := both.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, f)
		if ok {
			require.NoError(t, err, n)
		} else {
			require.ErrorIs(t, err, fob.ErrInvalid, n)
		}
		_, err = none.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, f)
		require.ErrorIs(t, err, fob.ErrInvalid, n)
	}
	sum := sha256.Sum256([]byte(importedText))
	for locator, ok := range map[string]bool{strings.Repeat("l", 256): true, strings.Repeat("l", 257): false, "line\nend": false} {
		_, err := both.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: hex.EncodeToString(sum[:]), Locator: locator})
		if ok {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, fob.ErrInvalid, "%q", locator)
		}
	}
	for _, f := range []fob.ImportedKey{{Secret: importedText, Locator: "ab12cd"}, {Hash: hex.EncodeToString(sum[:]), Locator: "ab12cd"}, bcrypted(t, importedText)} {
		_, err := none.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, f)
		require.ErrorIs(t, err, fob.ErrInvalid, "nobody could find it by a locator")
	}
}

// Another system may make keys of the native form; with a prefix that is none of ours
// they are text of another system like any other.
func TestANativeFormWithAnotherPrefixIsTextOfAnotherSystem(t *testing.T) {
	m := newManager(t, nil, fob.Config{Imported: &fob.ImportedKeys{}})
	text, _ := mustIssue(t, m, fob.KeySpec{})
	theirs := relabel(t, text, "other_live")
	mustReject(t, m, theirs, fob.ErrUnknown)
	key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: theirs})
	require.NoError(t, err)
	require.Equal(t, key.ID(), mustVerify(t, m, theirs).ID())
	require.NotEqual(t, key.ID(), mustVerify(t, m, text).ID())
	_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: text})
	require.ErrorIs(t, err, fob.ErrInvalid)
}

// A text is looked for by what Locate and Digest say of it, and by nothing that they do
// not say; each place is looked at once.
func TestWhereAnImportedTextIsLookedFor(t *testing.T) {
	for name, c := range map[string]struct {
		locator string
		ok      bool
		digest  []byte
		reads   int
		found   bool
	}{
		"by all":                       {"ab12cd", true, otherDigest(otherImportedText), 3, true},
		"without a digest":             {"ab12cd", true, nil, 2, true},
		"with a digest of one byte":    {"ab12cd", true, []byte{1}, 3, true},
		"no key with a locator":        {"ab12cd", false, nil, 1, false},
		"a locator of nothing":         {"", true, nil, 1, false},
		"none of both, but its digest": {"", false, otherDigest(otherImportedText), 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			fault := backendtest.NewFault(memory.New())
			importUntil(t, bare{fault}, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText, Locator: "ab12cd"}, finished)
			// A place whose import has not finished leads nowhere, and is no reason to look again.
			importUntil(t, bare{fault}, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: otherImportedText}, onlyClaimed)
			m := newManager(t, bare{fault}, fob.Config{Imported: &fob.ImportedKeys{
				Locate: func(string) (string, bool) { return c.locator, c.ok },
				Digest: func(string) []byte { return c.digest },
			}})
			looked := onEach(fault, callsOf(backendtest.OpGet, fob.RecordAlias), backendtest.Injection{})
			_, err := m.Verify(t.Context(), otherImportedText)
			require.ErrorIs(t, err, fob.ErrRejected)
			looks := looked()
			if c.found {
				looks-- // the second place of its locator, which is empty
			}
			require.Equal(t, c.reads, looks)
			if c.found {
				mustVerify(t, m, importedText)
			} else {
				mustReject(t, m, importedText, fob.ErrUnknown)
			}
		})
	}
}

// Of a salted hash nobody knows the SHA-256 of the key, not even that it is zero.
func TestASaltedHashHasNoPlaceOfItsOwn(t *testing.T) {
	m := newManager(t, nil, fob.Config{Imported: located()})
	_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Hash: strings.Repeat("0", 64)})
	require.NoError(t, err)
	_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, bcrypted(t, importedText))
	require.NoError(t, err)
}

// What leads to an imported key and cannot be read is neither a rejection nor nothing: the
// key cannot be checked, and not be imported over it.
func TestAnAliasThatCannotBeRead(t *testing.T) {
	at := recordNamed(3, "locator", "ab12cd")
	of := strings.Repeat("x", 16)
	for name, fields := range map[string][]field{
		"no target":             {{43, "\x01\x00" + of}},
		"half a target":         {{23, "12345678"}},
		"a target of zeros":     {{23, string(make([]byte, 16))}},
		"pending, but not one":  {{23, "1234567890123456"}, {36, "\x02"}},
		"pending and more":      {{23, "1234567890123456"}, {36, "\x01\x01"}},
		"a print of one byte":   {{23, "1234567890123456"}, {43, "\x01"}},
		"a print of two bytes":  {{23, "1234567890123456"}, {43, "\x01\x00"}},
		"a print too short":     {{23, "1234567890123456"}, {43, "\x01\x00" + of[1:]}},
		"a print too long":      {{23, "1234567890123456"}, {43, "\x01\x00x" + of}},
		"a print, pepper short": {{23, "1234567890123456"}, {43, "\x01\x02p" + of}},
		"a field of a key":      {{1, "\x01"}, {23, "1234567890123456"}},
		"a field of tomorrow":   {{23, "1234567890123456"}, {43, "\x01\x00" + of}, {99, "x"}},
		"damaged":               nil,
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			importUntil(t, store, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText, Locator: "ab12cd"}, finished)
			rec, err := store.Get(t.Context(), at)
			require.NoError(t, err)
			if fields == nil {
				rec.Body[5] ^= 1
				_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
				require.NoError(t, err)
			} else {
				rewrite(t, store, rec, fields...)
			}
			m := newManager(t, bare{store}, fob.Config{Imported: located()})
			_, err = m.Verify(t.Context(), importedText)
			require.ErrorIs(t, err, fob.ErrCorrupt)
			mustBeUnsure(t, err)
			_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText, Locator: "ab12cd"})
			require.ErrorIs(t, err, fob.ErrCorrupt)
			require.NotErrorIs(t, err, fob.ErrConflict)
		})
	}
}

// The hash in an imported key's record is one that can be compared with, or the key
// cannot be checked. A digest of nothing fits no text, also where it stands in a record.
func TestAnImportedHashThatCannotBeRead(t *testing.T) {
	for hash, told := range map[string]error{
		"own:" + hex.EncodeToString(otherDigest(importedText)): nil,
		"own:": fob.ErrUnknown, "own:00112233445566778899aabbccddeeff": fob.ErrUnknown, "own:no hex": fob.ErrCorrupt, "$md5$x": fob.ErrCorrupt,
	} {
		for _, digest := range []func(string) []byte{otherDigest, func(string) []byte { return nil }, nil} {
			store := memory.New()
			m := newManager(t, bare{store}, fob.Config{Imported: located()})
			key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, inForm(t, "located digest", importedText))
			require.NoError(t, err)
			rec, err := store.Get(t.Context(), idOf(key))
			require.NoError(t, err)
			fields := fieldsOf(t, rec)
			for n := range fields {
				if fields[n].n == 19 {
					fields[n].v = hash
				}
			}
			rewrite(t, store, rec, fields...)
			known := located()
			known.Digest = digest
			_, err = newManager(t, bare{store}, fob.Config{Imported: known}).Verify(t.Context(), importedText)
			switch want := told; {
			case digest == nil: // Config lacks what it takes
				require.ErrorIs(t, err, fob.ErrCorrupt, hash)
				mustBeUnsure(t, err)
			case want == nil && digest("") != nil:
				require.NoError(t, err)
			case want == nil:
				require.ErrorIs(t, err, fob.ErrUnknown, hash)
			default:
				require.ErrorIs(t, err, want, hash)
			}
		}
	}
}

// An imported key is in the cache like one that was issued here: it is not read twice,
// but by who asks for it, and is accepted while the store is down as long as Config says.
func TestAnImportedKeyIsRemembered(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	clock := newClock()
	m := newManager(t, bare{fault}, fob.Config{Imported: located(), MaxStaleness: 500 * time.Millisecond, StaleIfError: time.Second, Clock: clock.Now})
	_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
	require.NoError(t, err)
	mustVerify(t, m, importedText)
	before := gets(fault)
	for range 3 {
		mustVerify(t, m, importedText)
	}
	require.Equal(t, before, gets(fault))
	_, err = m.Fresh().Verify(t.Context(), importedText)
	require.NoError(t, err)
	require.Greater(t, gets(fault), before)

	fault.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Unavailable() })
	clock.Add(time.Second)
	mustVerify(t, m, importedText)
	_, err = m.Fresh().Verify(t.Context(), importedText)
	mustBeUnsure(t, err)
	_, err = m.Verify(t.Context(), otherImportedText)
	mustBeUnsure(t, err)
	clock.Add(500 * time.Millisecond)
	_, err = m.Verify(t.Context(), importedText)
	mustBeUnsure(t, err)
}

// Each read of a verification can fail: that is no rejection.
func TestAnImportedCheckFailsWithEachOfItsReads(t *testing.T) {
	for n := 1; ; n++ {
		fault := backendtest.NewFault(memory.New())
		importUntil(t, bare{fault}, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText}, finished)
		m := newManager(t, bare{fault}, fob.Config{Imported: located()})
		calls := onNth(fault, n, callsOf("", fob.RecordAlias, fob.RecordKey, fob.RecordSubject), backendtest.Unavailable())
		_, err := m.Verify(t.Context(), importedText)
		if calls() < n {
			require.NoError(t, err)
			require.Equal(t, 5, n, "two places, the key and its subject")
			return
		}
		require.ErrorIs(t, err, backend.ErrUnavailable, n)
		mustBeUnsure(t, err)
		require.NoError(t, m.Close())
	}
}

// Once one was told that a key is there, nobody is told afterwards that it is none, by
// what was read before.
func TestAKeyThatIsImportedWhileItIsLookedFor(t *testing.T) {
	store := memory.New()
	fault := backendtest.NewFault(store)
	m := newManager(t, bare{fault}, fob.Config{Imported: located(), MaxStaleness: time.Minute})
	mustReject(t, m, importedText, fob.ErrUnknown) // the second time it is remembered
	at := recordNamed(3, "sha256", under(nil, importedText))
	met := onNth(fault, 1, callsAbout(backendtest.OpGet, at), backendtest.Injection{After: func() {
		importUntil(t, store, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText}, finished)
		_, err := m.ImportKey(context.Background(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
		require.ErrorIs(t, err, fob.ErrAlready)
	}})
	_, _ = m.Verify(t.Context(), importedText) // began before: either is right
	require.NotZero(t, met())
	mustVerify(t, m, importedText)
}

// Also a text whose locator three keys have is remembered as unknown, and costs nothing.
func TestAnUnknownTextOfASharedLocatorIsRemembered(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, bare{fault}, fob.Config{Imported: located(), MaxStaleness: time.Minute})
	for n := range 3 {
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: fmt.Sprintf("ab12cd.secret-number-%d", n), Locator: "ab12cd"})
		require.NoError(t, err)
	}
	for range 3 {
		mustReject(t, m, importedText, fob.ErrUnknown)
	}
	before := gets(fault)
	mustReject(t, m, importedText, fob.ErrUnknown)
	require.Equal(t, before, gets(fault))
}

// An imported key that is about to be imported is printed by nobody.
func TestAnImportedKeyPrintsNothing(t *testing.T) {
	f := fob.ImportedKey{Secret: importedText, Hash: importedText, Digest: []byte(importedText), Locator: importedText}
	text, err := f.MarshalText()
	require.NoError(t, err)
	asJSON, err := json.Marshal(f)
	require.NoError(t, err)
	for _, printed := range []string{
		f.String(), fmt.Sprint(f), fmt.Sprintf("%v", f), fmt.Sprintf("%+v", &f), fmt.Sprintf("%#v", f), fmt.Sprintf("%x", f), fmt.Sprintf("%d", f),
		string(text), string(bytes.Trim(asJSON, `"`)), f.LogValue().String(),
	} {
		require.Equal(t, fmt.Sprint(fob.Secret{}), printed)
		require.NotEmpty(t, printed)
	}
	binary, err := f.MarshalBinary()
	require.Error(t, err)
	require.Nil(t, binary)
}
