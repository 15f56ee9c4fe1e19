package fob_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// What cannot be told is no success: the last step may not have been made.
func TestAnImportWhoseLastStepCannotBeLookedAt(t *testing.T) {
	for name, theirs := range map[string]string{"nobody came": "", "another one claimed": onlyClaimed} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, store *memory.Store, fault *backendtest.Fault, m *fob.Manager) {
				looks, n := -1, 2
				failAt := 1
				if theirs != "" {
					failAt = 2 // the first look tells that it is taken over
				}
				fault.Inject(func(c backendtest.Call) backendtest.Injection {
					if looks >= 0 && c.Op == backendtest.OpGet && isKind(c.ID, fob.RecordAlias) {
						if looks++; looks == failAt {
							return backendtest.Unavailable()
						}
					}
					if c.Op == backendtest.OpPut && isKind(c.ID, fob.RecordAlias) {
						if n--; n == 0 {
							looks = 0
							return unknown(func() {
								if theirs != "" {
									importUntil(t, store, fob.Config{Imported: located()}, ours, fob.ImportedKey{Secret: importedText}, theirs)
								}
							})
						}
					}
					return backendtest.Injection{}
				})
				_, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
				require.ErrorIs(t, err, backend.ErrUnavailable)
				require.ErrorIs(t, err, fob.ErrIndeterminate)
				fault.Inject(nil)
				mustReject(t, m, importedText, fob.ErrUnknown)
				_, err = m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
				require.NoError(t, err)
			})
		})
	}
}

// A text that was refused, and is remembered as unknown, is a key as soon as its import
// returns; also where the last step was made and the call failed after it.
func TestWhatWasRefusedIsAKeyOnceItIsImported(t *testing.T) {
	for _, cutOff := range []bool{false, true} {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, bare{fault}, fob.Config{Imported: located(), MaxStaleness: time.Minute})
		refused := func() {
			for range 3 {
				mustReject(t, m, importedText, fob.ErrUnknown)
			}
			before := gets(fault)
			mustReject(t, m, importedText, fob.ErrUnknown)
			require.Equal(t, before, gets(fault), "it is remembered")
		}
		refused()
		down, n := false, 2
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			if down {
				return backendtest.Unavailable()
			}
			if c.Op != backendtest.OpPut || !isKind(c.ID, fob.RecordAlias) {
				return backendtest.Injection{}
			}
			if n--; n != 0 {
				return backendtest.Injection{}
			}
			if !cutOff {
				return backendtest.Injection{Before: refused}
			}
			return backendtest.Injection{Before: func() { refused(); down = true }, Lose: backendtest.LostAck().Lose}
		})
		_, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
		if cutOff {
			require.ErrorIs(t, err, fob.ErrIndeterminate)
		} else {
			require.NoError(t, err)
		}
		fault.Inject(nil)
		mustVerify(t, m, importedText)
	}
}

// An import reads what was begun before it, in several records: if any of them cannot be
// read, or any step not be written, it fails, and takes nobody's key for another one.
func TestAnImportFailsWithEachOfItsCalls(t *testing.T) {
	text, cfg := fob.ImportedKey{Secret: importedText}, fob.Config{Imported: located(), Peppers: []fob.Pepper{{ID: "p", Key: pepperText}}}
	locatedText, hash := inForm(t, "located text", importedText), inForm(t, "hash", importedText)
	locatedHash, blow := inForm(t, "located hash", importedText), bcrypted(t, importedText)
	type step struct {
		known fob.ImportedKey
		stage string
	}
	for name, c := range map[string]struct {
		before []step
		last   fob.ImportedKey
		told   string
	}{
		"nothing was begun":              {nil, text, "+"},
		"it was begun":                   {[]step{{text, keyWritten}}, text, "+"},
		"it is done":                     {[]step{{text, finished}}, text, "="},
		"begun in another form":          {[]step{{text, onlyClaimed}}, locatedText, "+"},
		"done in another form":           {[]step{{hash, onlyClaimed}, {locatedText, finished}}, hash, "="},
		"nearly done in another form":    {[]step{{hash, onlyClaimed}, {locatedText, keyWritten}}, hash, "+"},
		"a text to be compared":          {[]step{{blow, finished}}, locatedText, "="},
		"a hash that cannot be compared": {[]step{{blow, finished}}, locatedHash, "?"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, fail := range []error{backend.ErrUnavailable, backend.ErrCorrupt} {
				for n := 1; ; n++ {
					fault := backendtest.NewFault(memory.New())
					for _, s := range c.before {
						importUntil(t, bare{fault}, cfg, ours, s.known, s.stage)
					}
					m := newManager(t, bare{fault}, cfg)
					// And not what the fleet does beside it.
					calls := onNth(fault, n, callsOf("", fob.RecordAlias, fob.RecordKey, fob.RecordSubject, fob.RecordCheck), backendtest.Injection{Fail: fmt.Errorf("call %d: %w", n, fail)})
					_, err := m.ImportKey(t.Context(), ours, c.last)
					fault.Inject(nil)
					if calls() < n {
						require.Equal(t, c.told, toldOfImport(t, err))
						require.NoError(t, m.Close())
						break
					}
					require.ErrorIs(t, err, fail, "call %d", n)
					mustBeUnsure(t, err)
					require.NotErrorIs(t, err, fob.ErrConflict)
					_, err = m.ImportKey(t.Context(), ours, c.last)
					require.Equal(t, c.told, toldOfImport(t, err), "call %d", n)
					require.NoError(t, m.Close())
				}
			}
		})
	}
}

// A locator is full at eight keys; one of these eight goes on all the same.
func TestTheFirstOfEightKeysOfALocatorIsFinished(t *testing.T) {
	store, cfg := memory.New(), fob.Config{Imported: located()}
	f := func(n int) fob.ImportedKey {
		return fob.ImportedKey{Secret: fmt.Sprintf("ab12cd.secret-number-%d", n), Locator: "ab12cd"}
	}
	importUntil(t, store, cfg, ours, f(0), onlyClaimed)
	m := newManager(t, bare{store}, cfg)
	for n := 1; n < 8; n++ {
		_, err := m.ImportKey(t.Context(), ours, f(n))
		require.NoError(t, err, n)
	}
	_, err := m.ImportKey(t.Context(), ours, f(8))
	require.Equal(t, "?", toldOfImport(t, err))
	_, err = m.ImportKey(t.Context(), ours, f(0))
	require.NoError(t, err)
	mustVerify(t, m, f(0).Secret)
}

// An import is an event, and a closed Manager imports nothing.
func TestAnImportIsObserved(t *testing.T) {
	seen := &observed{}
	m := newManager(t, nil, fob.Config{Imported: located(), Observer: seen})
	key, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
	require.NoError(t, err)
	_, err = m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
	require.ErrorIs(t, err, fob.ErrAlready)
	events := seen.take()
	require.Len(t, events, 1)
	require.Equal(t, fob.EventImported, events[0].Type)
	require.Equal(t, key.ID(), events[0].ID)
	require.Equal(t, "a", events[0].Subject.Name)
	require.NoError(t, m.Close())
	_, err = m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: otherImportedText})
	require.ErrorIs(t, err, fob.ErrClosed)
}
