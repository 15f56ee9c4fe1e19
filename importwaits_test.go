package fob_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// unknown is a write that is not made, and of which nobody can tell.
func unknown(before func()) backendtest.Injection {
	return backendtest.Injection{Before: before, Fail: backendtest.LostAck().Lose}
}

// half is what a call waits at the least, with room for its random pauses, before it takes
// over from another one that may live; soon is what none that does not wait needs.
const (
	half = 150 * time.Millisecond
	soon = 100 * time.Millisecond
)

var ours = fob.KeySpec{Subject: fob.App("a"), Name: "ours"}

func inBubble(t *testing.T, test func(t *testing.T, store *memory.Store, fault *backendtest.Fault, m *fob.Manager)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		fault := backendtest.NewFault(store)
		m := newManager(t, bare{fault}, fob.Config{Imported: located()})
		defer m.Close()
		test(t, store, fault, m)
	})
}

// Who is pushed out by another call gives it the time to finish, and writes nothing
// meanwhile. What a dead one left it then takes over, every time anew.
func TestAnImportThatIsPushedOutWaitsForTheOther(t *testing.T) {
	for _, stage := range []string{onlyClaimed, keyWritten} {
		t.Run(stage, func(t *testing.T) {
			inBubble(t, func(t *testing.T, store *memory.Store, fault *backendtest.Fault, m *fob.Manager) {
				var pushed []time.Time
				push := func() {
					pushed = append(pushed, time.Now())
					importUntil(t, store, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("a"), Name: "dead"}, fob.ImportedKey{Secret: importedText}, stage)
				}
				onFirst(fault, 2, callsOf(backendtest.OpPut, fob.RecordKey), backendtest.Injection{Before: push})
				key, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
				require.NoError(t, err)
				require.Len(t, pushed, 2)
				require.Greater(t, pushed[1].Sub(pushed[0]), half)
				require.Greater(t, time.Since(pushed[1]), half)
				require.Less(t, time.Since(pushed[0]), 4*time.Second)
				require.Equal(t, "ours", mustVerify(t, m, importedText).(*fob.Key).Name())
				rec, err := store.Get(t.Context(), idOf(key))
				require.NoError(t, err)
				require.Equal(t, rec.Version, key.Version())
			})
		})
	}
}

// One that claims the place between our claim and our second look has it: our call has
// not written its key by then.
func TestAnImportLooksAgainAfterItsClaim(t *testing.T) {
	inBubble(t, func(t *testing.T, store *memory.Store, fault *backendtest.Fault, m *fob.Manager) {
		writes := 0
		onNth(fault, 1, callsOf(backendtest.OpPut, fob.RecordAlias), backendtest.Injection{After: func() {
			writes = fault.Calls(backendtest.OpPut)
			importUntil(t, store, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("a"), Name: "dead"}, fob.ImportedKey{Secret: importedText}, onlyClaimed)
		}})
		start := time.Now()
		_, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
		require.NoError(t, err)
		require.Greater(t, time.Since(start), half)
		require.Equal(t, 3, fault.Calls(backendtest.OpPut)-writes, "the claim anew, the key and the last step")
		require.Equal(t, "ours", mustVerify(t, m, importedText).(*fob.Key).Name())
	})
}

// The other call lives and goes on: it is the one that comes through.
func TestAnImportThatIsPushedOutByOneThatLives(t *testing.T) {
	inBubble(t, func(t *testing.T, store *memory.Store, fault *backendtest.Fault, m *fob.Manager) {
		theirs := backendtest.NewFault(store)
		other := newManager(t, bare{theirs}, fob.Config{Imported: located()})
		defer other.Close()
		onNth(theirs, 2, callsOf(backendtest.OpPut, fob.RecordAlias), backendtest.Injection{Delay: soon})
		told := make(chan error, 1)
		onNth(fault, 1, callsOf(backendtest.OpPut, fob.RecordKey), backendtest.Injection{Before: func() {
			go func() {
				told <- failure(other.ImportKey(context.Background(), fob.KeySpec{Subject: fob.App("a"), Name: "theirs"}, fob.ImportedKey{Secret: importedText}))
			}()
			time.Sleep(time.Millisecond)
		}})
		_, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
		require.ErrorIs(t, err, fob.ErrAlready)
		require.NoError(t, <-told)
		require.Equal(t, "theirs", mustVerify(t, m, importedText).(*fob.Key).Name())
	})
}

// It comes through as well where it imported the very same, and ours is told so.
func TestAnImportThatComesTooLateForItsLastStep(t *testing.T) {
	inBubble(t, func(t *testing.T, store *memory.Store, fault *backendtest.Fault, m *fob.Manager) {
		onNth(fault, 2, callsOf(backendtest.OpPut, fob.RecordAlias), backendtest.Injection{Before: func() {
			importUntil(t, store, fob.Config{Imported: located()}, ours, fob.ImportedKey{Secret: importedText}, finished)
		}})
		_, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
		require.ErrorIs(t, err, fob.ErrAlready)
		require.NotErrorIs(t, err, fob.ErrIndeterminate)
	})
}

// What was left over may be purged while a call that has seen it waits: the key that is
// then imported is a new one.
func TestALeftOverThatIsPurgedMeanwhile(t *testing.T) {
	inBubble(t, func(t *testing.T, store *memory.Store, fault *backendtest.Fault, m *fob.Manager) {
		text := fob.ImportedKey{Secret: importedText}
		importUntil(t, store, fob.Config{Imported: located()}, ours, text, keyWritten)
		time.Sleep(time.Hour)
		var pushed, gone bool
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			switch {
			case c.Op == backendtest.OpPut && isKind(c.ID, fob.RecordKey) && !pushed:
				pushed = true
				return backendtest.Injection{Before: func() { importUntil(t, store, fob.Config{Imported: located()}, ours, text, keyWritten) }}
			case c.Op == backendtest.OpGet && isKind(c.ID, fob.RecordAlias) && pushed && !gone:
				gone = true
				return backendtest.Injection{Before: func() {
					page, err := store.List(t.Context(), backend.Query{Kind: fob.RecordKey, Limit: 10})
					require.NoError(t, err)
					require.Len(t, page.Records, 1)
					require.NoError(t, store.Delete(t.Context(), page.Records[0].ID, page.Records[0].Version))
				}}
			}
			return backendtest.Injection{}
		})
		start := time.Now()
		key, err := m.ImportKey(t.Context(), ours, text)
		require.NoError(t, err)
		require.Equal(t, start.UnixMilli(), key.IssuedAt().UnixMilli(), "and not when the other one was begun")
	})
}

// What was left of an import for the same subject is gone on with at once: it is the same
// key, issued when it was. What somebody has revoked of it is refused at once.
func TestAnImportGoesOnAtOnceWithItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T, store *memory.Store, _ *backendtest.Fault, m *fob.Manager) {
		begun := time.Now().Truncate(time.Millisecond)
		importUntil(t, store, fob.Config{Imported: located()}, ours, fob.ImportedKey{Secret: importedText}, keyWritten)
		time.Sleep(time.Hour)
		start := time.Now()
		key, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
		require.True(t, begun.Equal(key.IssuedAt()))
		require.True(t, begun.Equal(mustVerify(t, m, importedText).(*fob.Key).IssuedAt()))

		importUntil(t, store, fob.Config{Imported: located()}, ours, fob.ImportedKey{Secret: otherImportedText}, keyWritten)
		all := newManager(t, store, fob.Config{Imported: located()})
		defer all.Close()
		page, err := all.List(t.Context(), fob.Query{})
		require.NoError(t, err)
		for _, c := range page.Items {
			if c.ID() != key.ID() {
				_, err = all.Revoke(t.Context(), c.ID(), "")
				require.NoError(t, err)
			}
		}
		start = time.Now()
		_, err = m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: otherImportedText})
		require.Equal(t, "?", toldOfImport(t, err))
		require.Zero(t, time.Since(start))
	})
}

// What was left for another subject is not taken over: its own call is given the time to
// finish, and the answer says then which key is in the way.
func TestAnImportForAnotherSubjectIsNotTakenOver(t *testing.T) {
	for name, goesOn := range map[string]bool{"it is dead": false, "it lives": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, store *memory.Store, _ *backendtest.Fault, m *fob.Manager) {
				importUntil(t, store, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("b")}, fob.ImportedKey{Secret: importedText}, keyWritten)
				if goesOn {
					go func() {
						time.Sleep(4 * soon)
						importUntil(t, store, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("b")}, fob.ImportedKey{Secret: importedText}, finished)
					}()
				}
				start := time.Now()
				_, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
				if goesOn {
					require.ErrorIs(t, err, fob.ErrAlready)
					require.Equal(t, "b", mustVerify(t, m, importedText).Subject().Name)
					return
				}
				require.Equal(t, "?", toldOfImport(t, err))
				require.ErrorContains(t, err, "did not finish left key")
				require.Greater(t, time.Since(start), 2*half+4*soon, "longer than who finds it dead waits before he finishes it")
				require.Less(t, time.Since(start), 5*time.Second)
				mustReject(t, m, importedText, fob.ErrUnknown)
				_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, fob.ImportedKey{Secret: importedText})
				require.NoError(t, err)
			})
		})
	}
}

// The last step was not made, and nobody can tell: what stands there then says what
// became of the import.
func TestAnImportWhoseLastStepIsUnknown(t *testing.T) {
	theirs := fob.KeySpec{Subject: fob.App("a"), Name: "theirs"}
	for name, c := range map[string]struct {
		spec  fob.KeySpec
		stage string
		told  error
		name  string
	}{
		"nobody came":                     {stage: "", name: "ours"},
		"another one finished":            {theirs, finished, fob.ErrAlready, "theirs"},
		"another one claimed":             {theirs, onlyClaimed, nil, "ours"},
		"another one wrote the key":       {theirs, keyWritten, nil, "ours"},
		"another one finished the same":   {ours, finished, nil, "ours"},
		"another one began the very same": {ours, keyWritten, nil, "ours"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, store *memory.Store, fault *backendtest.Fault, m *fob.Manager) {
				onNth(fault, 2, callsOf(backendtest.OpPut, fob.RecordAlias), unknown(func() {
					if c.stage != "" {
						importUntil(t, store, fob.Config{Imported: located()}, c.spec, fob.ImportedKey{Secret: importedText}, c.stage)
					}
				}))
				start := time.Now()
				key, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
				fault.Inject(nil)
				if c.stage == "" {
					require.Equal(t, 4, fault.Calls(backendtest.OpPut), "the claim, the key, and the last step twice")
				}
				cred := mustVerify(t, m, importedText).(*fob.Key)
				require.Equal(t, c.name, cred.Name())
				if c.told != nil {
					require.ErrorIs(t, err, c.told)
					return
				}
				require.NoError(t, err)
				rec, err := store.Get(t.Context(), idOf(key))
				require.NoError(t, err)
				require.Equal(t, rec.Version, key.Version(), "it can be changed as it was returned")
				if c.stage == onlyClaimed || c.stage == keyWritten {
					require.Greater(t, time.Since(start), half, "who has claimed it may live")
				}
			})
		})
	}
}

// The last step was made, and its answer lost. It is written once more, for what can be
// read need not be durable.
func TestAnImportWhoseLastAnswerIsLostIsConfirmed(t *testing.T) {
	inBubble(t, func(t *testing.T, store *memory.Store, fault *backendtest.Fault, m *fob.Manager) {
		at, lost := recordNamed(3, "sha256", under(nil, importedText)), uint64(0)
		inj := backendtest.LostAck()
		inj.After = func() {
			rec, err := store.Get(t.Context(), at)
			require.NoError(t, err)
			lost = rec.Version
		}
		onNth(fault, 2, callsOf(backendtest.OpPut, fob.RecordAlias), inj)
		_, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
		require.NoError(t, err)
		rec, err := store.Get(t.Context(), at)
		require.NoError(t, err)
		require.NotZero(t, lost)
		require.Greater(t, rec.Version, lost)
	})
}

// The same, and one that imports the very same comes through while we wait: it is done.
func TestAnImportThatAnotherOneFinishesAsItWas(t *testing.T) {
	inBubble(t, func(t *testing.T, store *memory.Store, fault *backendtest.Fault, m *fob.Manager) {
		theirs := backendtest.NewFault(store)
		other := newManager(t, bare{theirs}, fob.Config{Imported: located()})
		defer other.Close()
		onNth(theirs, 1, callsOf(backendtest.OpPut, fob.RecordKey), backendtest.Injection{Delay: soon})
		told := make(chan error, 1)
		onNth(fault, 2, callsOf(backendtest.OpPut, fob.RecordAlias), unknown(func() {
			go func() {
				told <- failure(other.ImportKey(context.Background(), ours, fob.ImportedKey{Secret: importedText}))
			}()
			time.Sleep(time.Millisecond)
		}))
		key, err := m.ImportKey(t.Context(), ours, fob.ImportedKey{Secret: importedText})
		require.NoError(t, err)
		require.NoError(t, <-told)
		rec, err := store.Get(t.Context(), idOf(key))
		require.NoError(t, err)
		require.Equal(t, rec.Version, key.Version())
	})
}

// What an unfinished import has left may be purged in the moment in which another call
// writes over it: that is a race like any other, and the call goes on.
func TestALeftOverThatIsPurgedInTheLastMomentStopsNoImport(t *testing.T) {
	store := memory.New()
	cfg, spec, f := fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("app-42")}, fob.ImportedKey{Secret: importedText}
	importUntil(t, store, cfg, spec, f, keyWritten)
	fault := backendtest.NewFault(store)
	m := newManager(t, bare{fault}, cfg)
	purges := 0
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op != backendtest.OpPut || !isKind(c.ID, fob.RecordKey) || purges > 0 {
			return backendtest.Injection{}
		}
		purges++
		return backendtest.Injection{Before: func() {
			rec, err := store.Get(t.Context(), c.ID)
			if err == nil {
				err = store.Delete(t.Context(), c.ID, rec.Version)
			}
			if err != nil {
				t.Error(err)
			}
		}}
	})
	_, err := m.ImportKey(t.Context(), spec, f)
	require.NoError(t, err)
	require.Equal(t, 1, purges)
	require.Equal(t, "app-42", mustVerify(t, m, importedText).Subject().Name)
}
