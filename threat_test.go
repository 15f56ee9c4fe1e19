package fob_test

import (
	"bytes"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// Whoever has a copy of the store, but not the pepper, cannot tell a right secret from
// a wrong one, if it was issued here, or imported with a locator and used since.
func TestAPepperKeepsGuessesFromBeingChecked(t *testing.T) {
	pepper := func(b byte) []fob.Pepper { return []fob.Pepper{{ID: "p", Key: bytes.Repeat([]byte{b}, 32)}} }
	imported := func(f fob.ImportedKey) func(t *testing.T, m *fob.Manager) (string, string) {
		return func(t *testing.T, m *fob.Manager) (right, wrong string) {
			_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, f)
			require.NoError(t, err)
			return importedText, "ab12cd.another-secret"
		}
	}
	for name, made := range map[string]func(t *testing.T, m *fob.Manager) (right, wrong string){
		"issued": func(t *testing.T, m *fob.Manager) (right, wrong string) {
			text, key := mustIssue(t, m, fob.KeySpec{})
			return text, forge(t, "acme_live", key.ID())
		},
		"imported by secret": imported(fob.ImportedKey{Secret: importedText, Locator: "ab12cd"}),
		"imported by hash":   imported(importedForms(t)["bcrypt"]),
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			m := newManager(t, store, fob.Config{Imported: located(), Peppers: pepper(1)})
			right, wrong := made(t, m)
			mustVerify(t, m, right)
			thief := newManager(t, store, fob.Config{Imported: located()})
			_, err1 := thief.Verify(t.Context(), right)
			_, err2 := thief.Verify(t.Context(), wrong)
			require.ErrorIs(t, err1, fob.ErrPepper)
			require.Equal(t, err1, err2)
			guesser := newManager(t, store, fob.Config{Imported: located(), Peppers: pepper(2)})
			_, err1 = guesser.Verify(t.Context(), right)
			_, err2 = guesser.Verify(t.Context(), wrong)
			require.ErrorIs(t, err1, fob.ErrPepper)
			require.Equal(t, err1.Error(), err2.Error())
		})
	}
}

// With Config.Imported anything may be a key of the other system.
func TestUnknownForeignTextCostsThreeReadsAndIsRemembered(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, bare{fault}, fob.Config{Imported: located(), Clock: newClock().Now})
	mustReject(t, m, "complete.garbage", fob.ErrUnknown)
	require.Equal(t, 3+1, fault.Calls(backendtest.OpGet), "the first time also the check value of Imported.Digest")
	mustReject(t, m, "complete.garbage", fob.ErrUnknown)
	for range 10 {
		mustReject(t, m, "complete.garbage", fob.ErrUnknown)
	}
	require.Equal(t, 6+1, fault.Calls(backendtest.OpGet), "from the second time on")
}

// The way to put a new pepper into use on several processes, as Config.Peppers says.
func TestANewPepperIsKnownEverywhereBeforeItIsUsed(t *testing.T) {
	p1, p2 := fob.Pepper{ID: "p1", Key: bytes.Repeat([]byte{1}, 32)}, fob.Pepper{ID: "p2", Key: bytes.Repeat([]byte{2}, 32)}
	store := memory.New()
	process := func(peppers ...fob.Pepper) *fob.Manager {
		return newManager(t, store, fob.Config{Peppers: peppers})
	}
	text, _ := mustIssue(t, process(p1), fob.KeySpec{})
	for _, step := range [][2]*fob.Manager{
		{process(p1), process(p1, p2)},     // known to the second, used by none
		{process(p1, p2), process(p2, p1)}, // known to both
		{process(p2, p1), process(p2)},     // every key has been rehashed meanwhile
	} {
		for range 2 {
			mustVerify(t, step[0], text)
			mustVerify(t, step[1], text)
		}
	}
	hasty := process(p1)
	_, err := hasty.Verify(t.Context(), text)
	require.ErrorIs(t, err, fob.ErrPepper, "a process that does not know it cannot check")
}
