package fob_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

// One key in two forms is one key, in whatever order two processes import it, if each
// of the forms tells of the other. (Of a Hash without Locator nobody knows the locator,
// at the same time no more than later.)
func TestImportsInTwoFormsInEveryOrder(t *testing.T) {
	all := importedForms(t)
	for _, names := range [][2]string{
		{"raw", "raw with locator"}, {"raw", "sha256 with locator"},
	} {
		t.Run(names[0]+", "+names[1], func(t *testing.T) {
			cfg := fob.Config{Imported: located()}
			interleaving{config: cfg, prepare: func(t *testing.T, store backend.Store) (func(context.Context, *fob.Manager, int) (any, error), func(*testing.T, []result)) {
				return func(ctx context.Context, m *fob.Manager, i int) (any, error) {
						return m.ImportKey(ctx, fob.KeySpec{Subject: fob.App("a")}, all[names[i%2]])
					}, func(t *testing.T, results []result) {
						won := winners(results)
						require.Len(t, won, 1, "%v", results)
						mustBeTold(t, results)
						m := after(t, store, cfg)
						defer m.Close()
						key := results[won[0]].value.(*fob.Key)
						require.Equal(t, key.ID(), mustVerify(t, m, importedText).ID())
						_, err := m.Revoke(t.Context(), key.ID(), "")
						require.NoError(t, err)
						mustReject(t, m, importedText, fob.ErrRevoked)
					}
			}}.walks(t)
		})
	}
}

// Two keys with one locator are both imported, in whatever order.
func TestImportsWithOneLocatorInEveryOrder(t *testing.T) {
	cfg := fob.Config{Imported: located()}
	text := func(i int) string { return fmt.Sprintf("ab12cd.secret-number-%d", i) }
	interleaving{config: cfg, prepare: func(t *testing.T, store backend.Store) (func(context.Context, *fob.Manager, int) (any, error), func(*testing.T, []result)) {
		return func(ctx context.Context, m *fob.Manager, i int) (any, error) {
				return m.ImportKey(ctx, fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: text(i), Locator: "ab12cd"})
			}, func(t *testing.T, results []result) {
				m := after(t, store, cfg)
				defer m.Close()
				for i, r := range results {
					require.NoError(t, r.err)
					require.Equal(t, r.value.(*fob.Key).ID(), mustVerify(t, m, text(i)).ID())
				}
			}
	}}.walks(t)
}

// bcrypted is the key of a text as its bcrypt hash.
func bcrypted(t *testing.T, text string) fob.ImportedKey {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(text), bcrypt.MinCost)
	require.NoError(t, err)
	return fob.ImportedKey{Hash: string(hash), Locator: "ab12cd"}
}

// Keys of which only the locator is the same are told apart, and each is its own key.
func TestKeysThatShareALocator(t *testing.T) {
	for _, peppers := range [][]fob.Pepper{nil, {{ID: "p", Key: make([]byte, 32)}}} {
		fault := backendtest.NewFault(memory.New())
		cfg := fob.Config{Imported: located(), Peppers: peppers}
		m := newManager(t, bare{fault}, cfg)
		text := func(n int) string { return fmt.Sprintf("ab12cd.secret-number-%d", n) }
		forms := []fob.ImportedKey{
			{Secret: text(0), Locator: "ab12cd"}, {Secret: text(1), Locator: "ab12cd"}, bcrypted(t, text(2)), bcrypted(t, text(3)),
			{Digest: otherDigest(text(4)), Locator: "ab12cd"},
		}
		var keys []*fob.Key
		for n, f := range forms {
			key, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App(fmt.Sprint(n))}, f)
			if f.Secret == "" && n > 0 {
				require.ErrorIs(t, err, fob.ErrConflict, "nobody can tell that it is another one")
				require.NotErrorIs(t, err, fob.ErrAlready)
				require.NotErrorIs(t, err, fob.ErrContended)
				f.Another = true
				key, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App(fmt.Sprint(n))}, f)
			}
			require.NoError(t, err, n)
			keys = append(keys, key)
		}
		for n, f := range forms {
			f.Another = true
			_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, f)
			require.ErrorIs(t, err, fob.ErrAlready, n)
			_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, fob.ImportedKey{Secret: text(n), Locator: "ab12cd"})
			require.ErrorIs(t, err, fob.ErrAlready, "in another form: its hash is there to compare with")
			require.Equal(t, keys[n].ID(), mustVerify(t, m, text(n)).ID())
			require.Equal(t, fmt.Sprint(n), mustVerify(t, newManager(t, bare{fault}, cfg), text(n)).Subject().Name)
		}
		mustReject(t, m, text(8), fob.ErrUnknown) // sees that others have rehashed the keys, and reads them once more
		before := fault.Calls(backendtest.OpGet)
		mustReject(t, m, text(9), fob.ErrUnknown)
		require.LessOrEqual(t, fault.Calls(backendtest.OpGet)-before, 2*len(forms)+3)
		_, err := m.Revoke(t.Context(), keys[1].ID(), "")
		require.NoError(t, err)
		for n := range forms {
			if n == 1 {
				mustReject(t, m, text(n), fob.ErrRevoked)
			} else {
				mustVerify(t, m, text(n))
			}
		}
		for n := len(forms); n < 8; n++ {
			_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: text(n), Locator: "ab12cd"})
			require.NoError(t, err)
		}
		_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: text(8), Locator: "ab12cd"})
		require.ErrorIs(t, err, fob.ErrConflict)
		require.NotErrorIs(t, err, fob.ErrAlready)
		for range 3 {
			before = fault.Calls(backendtest.OpGet)
			mustReject(t, m, text(9), fob.ErrUnknown)
			require.LessOrEqual(t, fault.Calls(backendtest.OpGet)-before, 2*8+2)
		}
	}
}

// What cannot be read of one of the keys that share a locator shuts out no other one.
func TestACorruptKeyLeavesTheOthersOfItsLocatorAlone(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, fob.Config{Imported: located()})
	first, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText, Locator: "ab12cd"})
	require.NoError(t, err)
	_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: "ab12cd.another", Locator: "ab12cd"})
	require.NoError(t, err)
	rec, err := store.Get(t.Context(), idOf(first))
	require.NoError(t, err)
	rec.Body[5] ^= 1
	_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	require.NoError(t, err)
	mustVerify(t, newManager(t, store, fob.Config{Imported: located()}), "ab12cd.another")
	_, err = newManager(t, store, fob.Config{Imported: located()}).Verify(t.Context(), importedText)
	mustBeUnsure(t, err)
}

// A process that dies between two steps of an import leaves it to the next one, also
// where that one knows the key in another form only.
func TestAnImportIsFinishedInAnotherForm(t *testing.T) {
	all := importedForms(t)
	for n := 1; ; n++ {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, fault, fob.Config{Imported: located()})
		fault.CrashAfter(1, backendtest.OpPut)
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, all["sha256"])
		require.Error(t, err)
		fault.CrashAfter(n, backendtest.OpPut)
		_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, all["raw with locator"])
		fault.Inject(nil)
		if err == nil {
			require.Greater(t, n, 3)
			return
		}
		mustReject(t, m, importedText, fob.ErrUnknown)
		_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, all["sha256"])
		require.NoError(t, err, "cut off after %d writes", n)
		mustVerify(t, m, importedText)
		_, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, all["raw with locator"])
		require.ErrorIs(t, err, fob.ErrAlready)
	}
}

// A process that was stopped for long in the middle of an import finds it done, and
// overwrites nothing.
func TestASlowImportIsTakenOver(t *testing.T) {
	for step := 1; step <= 3; step++ {
		inner := memory.New()
		fault := backendtest.NewFault(inner)
		slow, quick := newManager(t, fault, fob.Config{Imported: located()}), newManager(t, inner, fob.Config{Imported: located()})
		atPut(fault, step, backendtest.Injection{Before: func() {
			_, err := quick.ImportKey(context.Background(), fob.KeySpec{Subject: fob.App("a"), Name: "quick"}, fob.ImportedKey{Secret: importedText})
			require.NoError(t, err)
		}})
		_, err := slow.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a"), Name: "slow", TTL: time.Hour}, fob.ImportedKey{Secret: importedText})
		fault.Inject(nil)
		require.ErrorIs(t, err, fob.ErrAlready)
		require.Equal(t, "quick", mustVerify(t, quick, importedText).(*fob.Key).Name())
	}
}
