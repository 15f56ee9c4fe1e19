package fob_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

const otherImportedText = "ab12cd.another-secret-of-that-system"

// formNames are the rows and the columns of the tables below.
var formNames = []string{"text", "located text", "hash", "located hash", "bcrypt", "digest", "located digest"}

// inForm is the key of a text in one of these forms.
func inForm(t *testing.T, name, text string) fob.ImportedKey {
	t.Helper()
	sum := sha256.Sum256([]byte(text))
	switch name {
	case "text":
		return fob.ImportedKey{Secret: text}
	case "located text":
		return fob.ImportedKey{Secret: text, Locator: "ab12cd"}
	case "hash":
		return fob.ImportedKey{Hash: hex.EncodeToString(sum[:])}
	case "located hash":
		return fob.ImportedKey{Hash: hex.EncodeToString(sum[:]), Locator: "ab12cd"}
	case "digest":
		return fob.ImportedKey{Digest: otherDigest(text)}
	case "located digest":
		return fob.ImportedKey{Digest: otherDigest(text), Locator: "ab12cd"}
	}
	return bcrypted(t, text)
}

// toldOfImport is what an import was told, as the tables write it: + it came through,
// = the key is there already, ? nobody can tell.
func toldOfImport(t *testing.T, err error) string {
	t.Helper()
	switch {
	case err == nil:
		return "+"
	case errors.Is(err, fob.ErrAlready):
		return "="
	}
	require.ErrorIs(t, err, fob.ErrConflict)
	require.NotErrorIs(t, err, fob.ErrContended)
	return "?"
}

// The stages at which an import can be cut off.
const (
	onlyClaimed = "claimed"  // its place, and no key is there yet
	keyWritten  = "written"  // the key too, and all but the last step is done
	finished    = "complete" // it was not cut off
	purged      = "purged"   // it was not, and its key is no longer kept
)

// importUntil imports a key by a process that dies after the stage.
func importUntil(t *testing.T, store backend.Store, cfg fob.Config, spec fob.KeySpec, f fob.ImportedKey, stage string) {
	t.Helper()
	fault := backendtest.NewFault(store)
	m := newManager(t, bare{fault}, cfg)
	dead, key := false, false
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpPut {
			isKey := isKind(c.ID, fob.RecordKey)
			dead = dead || stage == onlyClaimed && isKey || stage == keyWritten && key && !isKey
			key = key || isKey
		}
		if dead {
			return backendtest.Unavailable()
		}
		return backendtest.Injection{}
	})
	made, err := m.ImportKey(t.Context(), spec, f)
	if stage == onlyClaimed || stage == keyWritten {
		require.ErrorIs(t, err, backend.ErrUnavailable)
	} else {
		require.NoError(t, err)
	}
	if stage == purged {
		require.NoError(t, store.Delete(t.Context(), idOf(made), made.Version()))
	}
	require.NoError(t, m.Close())
}

// What the second of two imports is told: a row for each form of the first, a column
// for each form of the second, in the order of formNames.
var (
	ofTheSameKey = []string{
		"====+++", // text: found by its SHA-256, and by a text
		"==+=?+?", // located text: of a hash without locator nobody knows the locator
		"====+++", // hash
		"==+=?+?", // located hash
		"==+?=+?", // bcrypt: a text can be compared with it
		"==+++==", // digest
		"==+??+=", // located digest
	}
	ofAnotherKey = []string{
		"+++++++",
		"++++?+?",
		"+++++++",
		"++++?+?",
		"+++??+?",
		"+++++++",
		"+++??++",
	}
)

// One key in two forms is one key as far as that can be told, and two keys are two. What
// cannot be told is not guessed, but left to the caller (ImportedKey.Another). Of an
// import that was cut off the same is known as soon as its key is written.
func TestWhatTheSecondOfTwoImportsIsTold(t *testing.T) {
	for text, want := range map[string][]string{importedText: ofTheSameKey, otherImportedText: ofAnotherKey} {
		for _, c := range []struct {
			stage    string
			another  bool
			peppered bool
		}{{finished, false, false}, {finished, true, true}, {keyWritten, false, true}, {purged, false, false}} {
			cfg := fob.Config{Imported: located()}
			if c.peppered {
				cfg.Peppers = []fob.Pepper{{ID: "p", Key: pepperText}}
			}
			for i, first := range formNames {
				row := ""
				for _, second := range formNames {
					a, b := inForm(t, first, importedText), inForm(t, second, text)
					if first == second && text == importedText {
						b = a // the same bcrypt hash: another one of the same key is one below
					}
					b.Another = c.another
					row += toldOfSecond(t, cfg, c.stage, a, b, text)
				}
				expected := want[i]
				if c.stage == purged && first == "bcrypt" {
					expected = "??" + expected[2:]
				}
				if c.another {
					expected = strings.ReplaceAll(expected, "?", "+")
				}
				if c.stage == keyWritten { // the call goes on with what was begun
					expected = strings.ReplaceAll(expected, "=", "+")
				}
				require.Equal(t, expected, row, "%s: %s, then %s, another: %t", c.stage, first, text, c.another)
			}
		}
	}
}

// toldOfSecond imports b, of the key text, after a, and returns what that was told.
func toldOfSecond(t *testing.T, cfg fob.Config, stage string, a, b fob.ImportedKey, text string) string {
	t.Helper()
	store := memory.New()
	importUntil(t, store, cfg, fob.KeySpec{Subject: fob.App("a")}, a, stage)
	m := newManager(t, bare{store}, cfg)
	defer m.Close()
	if stage == keyWritten {
		mustReject(t, m, importedText, fob.ErrUnknown)
	}
	key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, b)
	told := toldOfImport(t, err)
	if told == "+" {
		cred := mustVerify(t, m, text)
		if text != importedText || stage == purged { // else the first may have a record of its own
			require.Equal(t, key.ID(), cred.ID())
		}
		_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, b)
		require.Equal(t, "=", toldOfImport(t, err))
	}
	if stage == finished {
		mustVerify(t, m, importedText)
	}
	if stage != keyWritten {
		_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, a)
		require.Equal(t, "=", toldOfImport(t, err))
	}
	return told
}

// A place that was only claimed keeps nobody out, in whatever form he comes. The table
// says what the first one is told when it is called again, after the second came through.
func TestAPlaceThatWasOnlyClaimedIsTakenOver(t *testing.T) {
	again := []string{
		"=======", // text
		"=======", // located text
		"====+++", // hash
		"====?+?", // located hash
		"??+?=+?", // bcrypt: the place has become that of the second form
		"==+++==", // digest
		"??+??==", // located digest
	}
	cfg := fob.Config{Imported: located()}
	for i, first := range formNames {
		row := ""
		for _, second := range formNames {
			store := memory.New()
			a, b := inForm(t, first, importedText), inForm(t, second, importedText)
			if first == second {
				b = a
			}
			importUntil(t, store, cfg, fob.KeySpec{Subject: fob.App("a")}, a, onlyClaimed)
			m := newManager(t, bare{store}, cfg)
			mustReject(t, m, importedText, fob.ErrUnknown)
			key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, b)
			require.NoError(t, err, "%s, %s", first, second)
			require.Equal(t, key.ID(), mustVerify(t, m, importedText).ID())
			_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, b)
			require.ErrorIs(t, err, fob.ErrAlready, "%s, %s", first, second)
			_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, a)
			row += toldOfImport(t, err)
			mustVerify(t, m, importedText)
			require.NoError(t, m.Close())

			store = memory.New() // and another key comes through as well
			importUntil(t, store, cfg, fob.KeySpec{Subject: fob.App("a")}, a, onlyClaimed)
			m = newManager(t, bare{store}, cfg)
			key, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, inForm(t, second, otherImportedText))
			require.NoError(t, err, "%s, %s", first, second)
			require.Equal(t, key.ID(), mustVerify(t, m, otherImportedText).ID())
			mustReject(t, m, importedText, fob.ErrUnknown)
			require.NoError(t, m.Close())
		}
		require.Equal(t, again[i], row, first)
	}
}

// Of two bcrypt hashes nobody knows whether they are of one key, hashed twice.
func TestTwoBcryptHashesOfOneKey(t *testing.T) {
	cfg := fob.Config{Imported: located()}
	for stage, want := range map[string]string{onlyClaimed: "+", keyWritten: "?", finished: "?"} {
		store := memory.New()
		importUntil(t, store, cfg, fob.KeySpec{Subject: fob.App("a")}, bcrypted(t, importedText), stage)
		m := newManager(t, bare{store}, cfg)
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, bcrypted(t, importedText))
		require.Equal(t, want, toldOfImport(t, err), stage)
	}
}

// Where the other system has no digest of its own, the rest is as it was.
func TestImportsWithoutADigestOfTheOtherSystem(t *testing.T) {
	cfg := fob.Config{Imported: &fob.ImportedKeys{Locate: located().Locate}}
	for i, first := range formNames[:5] {
		row := ""
		for _, second := range formNames[:5] {
			m := newManager(t, bare{memory.New()}, cfg)
			a, b := inForm(t, first, importedText), inForm(t, second, importedText)
			if first == second {
				b = a
			}
			_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, a)
			require.NoError(t, err)
			_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, b)
			row += toldOfImport(t, err)
			mustVerify(t, m, importedText)
			require.NoError(t, m.Close())
		}
		require.Equal(t, ofTheSameKey[i][:5], row, first)
	}
}

// A key is recognised after the pepper under which it was imported has gone, as long as
// its text can be compared with its record; what only the pepper could tell is left open.
func TestAnImportUnderAPepperThatHasGone(t *testing.T) {
	cfg := func(ids ...string) fob.Config {
		c := fob.Config{Imported: located()}
		for _, id := range ids {
			c.Peppers = append(c.Peppers, fob.Pepper{ID: id, Key: append([]byte(id), pepperText...)})
		}
		return c
	}
	for _, c := range []struct{ first, second, want string }{
		{"located digest", "located text", "="}, {"located digest", "text", "="}, {"bcrypt", "located text", "="},
		{"located digest", "located digest", "?"}, {"located hash", "located hash", "?"}, {"bcrypt", "bcrypt", "?"},
	} {
		store := memory.New()
		importUntil(t, store, cfg("old"), fob.KeySpec{Subject: fob.App("a")}, inForm(t, c.first, importedText), finished)
		both := newManager(t, bare{store}, cfg("new", "old"))
		if c.first != "bcrypt" { // another hash
			_, err := both.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, inForm(t, c.first, importedText))
			require.ErrorIs(t, err, fob.ErrAlready)
		}
		m := newManager(t, bare{store}, cfg("new"))
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, inForm(t, c.second, importedText))
		require.Equal(t, c.want, toldOfImport(t, err), c)
		require.NotErrorIs(t, err, fob.ErrPepper)
	}
	// A text that was imported under it is in the record under it alone.
	store := memory.New()
	importUntil(t, store, cfg("old"), fob.KeySpec{Subject: fob.App("a")}, inForm(t, "located text", importedText), finished)
	m := newManager(t, bare{store}, cfg("new"))
	_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, inForm(t, "located text", importedText))
	require.ErrorIs(t, err, fob.ErrPepper)
	// And a pepper with the same ID and another key says of no key that it is another one.
	wrong := cfg("new", "old")
	wrong.Peppers[1].Key = append([]byte("x"), pepperText...)
	m = newManager(t, bare{store}, wrong)
	for _, text := range []string{importedText, otherImportedText} {
		_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, inForm(t, "located text", text))
		require.ErrorIs(t, err, fob.ErrPepper)
	}
}

// What an imported key is found and recognised by is in the stores of those who imported
// one: it stays what it is. Under a pepper it tells nothing without that.
func TestByWhatAnImportedKeyIsFoundIsForGood(t *testing.T) {
	sum := under(nil, importedText)
	own := string(otherDigest(importedText))
	blow := bcrypted(t, importedText)
	locator := recordNamed(3, "locator", "ab12cd")
	for name, c := range map[string]struct {
		known fob.ImportedKey
		at    backend.ID
		what  string
		of    string
	}{
		"text":           {inForm(t, "text", importedText), recordNamed(3, "sha256", sum), "\x01", sum},
		"located text":   {inForm(t, "located text", importedText), locator, "\x01", sum},
		"hash":           {inForm(t, "hash", importedText), recordNamed(3, "sha256", sum), "\x01", sum},
		"located hash":   {inForm(t, "located hash", importedText), locator, "\x01", sum},
		"bcrypt":         {blow, locator, "\x02", blow.Hash},
		"digest":         {inForm(t, "digest", importedText), recordNamed(3, "digest", own), "\x03", own},
		"located digest": {inForm(t, "located digest", importedText), locator, "\x03", own},
	} {
		for _, pepper := range [][]byte{nil, pepperText} {
			store := memory.New()
			cfg := fob.Config{Imported: located()}
			id := ""
			if pepper != nil {
				id = "p1"
				cfg.Peppers = []fob.Pepper{{ID: id, Key: pepper}}
			}
			m := newManager(t, bare{store}, cfg)
			key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, c.known)
			require.NoError(t, err, name)
			led, err := store.Get(t.Context(), c.at)
			require.NoError(t, err, name)
			target := key.ID()
			require.Equal(t, []field{
				{23, string(target[:])},
				{43, c.what + string([]byte{byte(len(id))}) + id + under(pepper, "fob import "+c.what+string(c.at[:])+c.of)[:16]},
			}, fieldsOf(t, led), name)
			if c.known.Secret != "" {
				rec, err := store.Get(t.Context(), idOf(key))
				require.NoError(t, err)
				require.Contains(t, fieldsOf(t, rec), field{16, under(pepper, "\x00"+string(target[:])+importedText)}, name)
			}
			if c.at != locator {
				continue
			}
			_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: otherImportedText, Locator: "ab12cd"})
			require.NoError(t, err, name)
			_, err = store.Get(t.Context(), recordNamed(3, "locator", "ab12cd", "1"))
			require.NoError(t, err, name)
		}
	}
}

// An import that was cut off before there was anything to recognise a key by is gone on
// with by whoever imports a key with its locator.
func TestAnImportFromBeforeKeysWereRecognised(t *testing.T) {
	cfg := fob.Config{Imported: located()}
	for _, second := range formNames {
		f := inForm(t, second, importedText)
		if f.Locator == "" && f.Secret == "" {
			continue // it is not looked for by the locator
		}
		store := memory.New()
		importUntil(t, store, cfg, fob.KeySpec{Subject: fob.App("a")}, bcrypted(t, importedText), keyWritten)
		led, err := store.Get(t.Context(), recordNamed(3, "locator", "ab12cd"))
		require.NoError(t, err)
		left := fieldsOf(t, led)
		require.Len(t, left, 3)
		rewrite(t, store, led, left[:2]...)
		m := newManager(t, bare{store}, cfg)
		mustReject(t, m, importedText, fob.ErrUnknown)
		key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, f)
		require.NoError(t, err, second)
		id := key.ID()
		require.Equal(t, left[0].v, string(id[:]), "the key that was begun")
		require.Equal(t, key.ID(), mustVerify(t, m, importedText).ID())
	}
}
