package fob_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// checkOf is the one check value of a store.
func checkOf(t *testing.T, store *memory.Store) backend.Record {
	t.Helper()
	page, err := store.List(t.Context(), backend.Query{Kind: fob.RecordCheck, Limit: 10})
	require.NoError(t, err)
	require.Len(t, page.Records, 1)
	return page.Records[0]
}

var otherPepper = bytes.Repeat([]byte{7}, 32)

// A check value that cannot be read says nothing: nothing is made, and nobody refused.
func TestACheckValueThatCannotBeRead(t *testing.T) {
	for name, body := range map[string]func(right string) []byte{
		"another field":    func(right string) []byte { return append([]byte{1, 43, 8}, right...) },
		"a field too many": func(right string) []byte { return append(append([]byte{1, 44, 8}, right...), 45, 1, 'x') },
		"cut":              func(right string) []byte { return append([]byte{1, 44, 9}, right...) },
		"another format":   func(right string) []byte { return append([]byte{2, 44, 8}, right...) },
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			_, key := mustIssue(t, newManager(t, bare{store}, peppered(pepperText)), fob.KeySpec{})
			rec := checkOf(t, store)
			fob.Reseal(&rec, body(fieldsOf(t, rec)[0].v))
			_, err := store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
			require.NoError(t, err)
			m := newManager(t, bare{store}, peppered(pepperText))
			require.ErrorIs(t, m.Check(t.Context()), fob.ErrCorrupt)
			require.ErrorIs(t, second(m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a")})), fob.ErrCorrupt)
			_, err = m.Verify(t.Context(), forge(t, "acme_live", key.ID()))
			require.ErrorIs(t, err, fob.ErrCorrupt)
			mustBeUnsure(t, err)
		})
	}
}

// Before the check value stands in the store nothing is made with the secret. Once it was
// seen there it is not read again.
func TestNothingIsMadeBeforeTheCheckValueIsWritten(t *testing.T) {
	for _, op := range []backendtest.Op{backendtest.OpGet, backendtest.OpPut} {
		store := memory.New()
		fault := backendtest.NewFault(store)
		m := newManager(t, bare{fault}, peppered(pepperText))
		onEach(fault, callsOf(op, fob.RecordCheck), backendtest.Unavailable())
		writes := 0
		for what, err := range map[string]error{
			"issue":  second(m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a")})),
			"import": failure(m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Digest: otherDigest(importedText)})),
		} {
			require.ErrorIs(t, err, backend.ErrUnavailable, what)
		}
		page, err := store.List(t.Context(), backend.Query{Kind: fob.RecordKey, Limit: 10})
		require.NoError(t, err)
		require.Empty(t, page.Records)
		reads := 0
		fault.Inject(func(c backendtest.Call) backendtest.Injection {
			switch {
			case isKind(c.ID, fob.RecordCheck) && c.Op == backendtest.OpGet:
				reads++
			case isKind(c.ID, fob.RecordCheck):
				writes++
			}
			return backendtest.Injection{}
		})
		for range 3 {
			mustIssue(t, m, fob.KeySpec{})
			require.Equal(t, 1, writes)
			require.Equal(t, 2, reads, "before and after it was written")
		}
	}
}

// Of two that write the check value at one time one is right, and the other one sees it.
func TestTwoCheckValuesAtOneTime(t *testing.T) {
	for name, c := range map[string]struct {
		theirs []byte
		told   error
	}{"the same pepper": {pepperText, nil}, "another one": {otherPepper, fob.ErrPepper}} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			fault := backendtest.NewFault(store)
			m := newManager(t, bare{fault}, peppered(pepperText))
			once(fault, callsOf(backendtest.OpPut, fob.RecordCheck), backendtest.Injection{Before: func() {
				mustIssue(t, newManager(t, bare{store}, peppered(c.theirs)), fob.KeySpec{})
			}})
			require.ErrorIs(t, second(m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a")})), c.told)
		})
	}
}

// That a secret is wrong, or has no check value, is believed for ten seconds; that it is
// right, for good.
func TestHowLongAWrongPepperIsBelievedToBeWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		text, key := mustIssue(t, newManager(t, bare{store}, peppered(pepperText)), fob.KeySpec{})
		fault := backendtest.NewFault(store)
		m := newManager(t, bare{fault}, peppered(otherPepper))
		defer m.Close()
		_, err := m.Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrPepper)
		// The operator finds that it was the others that had the wrong one.
		rec := checkOf(t, store)
		require.NoError(t, store.Delete(t.Context(), rec.ID, rec.Version))
		mustIssue(t, newManager(t, bare{store}, peppered(otherPepper)), fob.KeySpec{Subject: fob.App("b")})

		reads := onEach(fault, callsOf("", fob.RecordCheck), backendtest.Injection{})
		time.Sleep(10*time.Second - time.Millisecond)
		_, err = m.Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrPepper)
		require.Zero(t, reads())
		time.Sleep(time.Millisecond)
		mustReject(t, m, text, fob.ErrUnknown)
		require.Equal(t, 1, reads())
		for range 3 {
			time.Sleep(time.Hour)
			mustReject(t, m, forge(t, "acme_live", key.ID()), fob.ErrUnknown)
		}
		require.Equal(t, 1, reads())
		require.Empty(t, m.Health().Problems)
	})
}

// An imported key that matches proves the pepper too: what does not match after it is
// refused, even if the check value cannot be read.
func TestAnImportedKeyProvesThePepper(t *testing.T) {
	store := memory.New()
	cfg := fob.Config{Imported: &fob.ImportedKeys{Locate: located().Locate}, Peppers: peppered(pepperText).Peppers}
	importUntil(t, store, cfg, fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText, Locator: "ab12cd"}, finished)
	fault := backendtest.NewFault(store)
	m := newManager(t, bare{fault}, cfg)
	onEach(fault, callsOf(backendtest.OpGet, fob.RecordCheck), backendtest.Unavailable())
	_, err := m.Verify(t.Context(), otherImportedText)
	mustBeUnsure(t, err)
	mustVerify(t, m, importedText)
	mustReject(t, m, otherImportedText, fob.ErrUnknown)
}

// A text is imported so that it is found by its digest too, so that has to be the right
// one; a hash is never looked for by it.
func TestWhatIsImportedWithAWrongForeignDigest(t *testing.T) {
	wrong := located()
	wrong.Digest = func(presented string) []byte { return otherDigest("wrong " + presented) }
	for _, form := range formNames {
		store := memory.New()
		importUntil(t, store, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("a")}, inForm(t, "digest", importedText), finished)
		m := newManager(t, bare{store}, fob.Config{Imported: wrong})
		f := inForm(t, form, otherImportedText)
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, f)
		if f.Hash != "" {
			require.NoError(t, err, form)
		} else {
			require.ErrorIs(t, err, fob.ErrPepper, form)
		}
	}
}

// Nothing, as the digest of a text, means that it is no key of that system: with nothing
// for it a wrong digest does no harm, and a function that has none for the text which is
// compared cannot be checked.
func TestAForeignDigestOfNothing(t *testing.T) {
	store := memory.New()
	importUntil(t, store, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("a")}, inForm(t, "digest", importedText), finished)
	with := func(digest func(string) []byte) *fob.Manager {
		foreign := located()
		foreign.Digest = digest
		return newManager(t, bare{store}, fob.Config{Imported: foreign})
	}
	strict := with(func(presented string) []byte {
		if presented[:2] != "ab" {
			return nil
		}
		return otherDigest(presented)
	})
	require.NoError(t, strict.Check(t.Context()))
	mustVerify(t, strict, importedText)
	mustReject(t, strict, otherImportedText, fob.ErrUnknown)

	wrong := with(func(presented string) []byte {
		switch presented {
		case "of-nothing":
			return nil
		case "of-one-byte":
			return []byte{1}
		}
		return otherDigest("wrong " + presented)
	})
	mustReject(t, wrong, "of-nothing", fob.ErrUnknown)
	_, err := wrong.Verify(t.Context(), "of-one-byte")
	require.ErrorIs(t, err, fob.ErrPepper)
	mustBeUnsure(t, err)
}

// clockedStore is a store that tells the time.
type clockedStore struct {
	backend.Store
	now func() (time.Time, error)
}

func (c clockedStore) Now(context.Context) (time.Time, error) { return c.now() }

// Check reads as much as its documentation says, and tells of each of these reads that
// failed.
func TestCheckTellsOfEachReadThatFails(t *testing.T) {
	cfg := tokenConfig()
	cfg.Imported, cfg.Peppers = located(), []fob.Pepper{{ID: "p1", Key: pepperText}}
	fault := backendtest.NewFault(memory.New())
	var clockErr error
	m := newManager(t, clockedStore{bare{fault}, func() (time.Time, error) { return time.Now(), clockErr }}, cfg)
	mustIssue(t, m, fob.KeySpec{})
	mustToken(t, m, fob.TokenSpec{})
	before := gets(fault)
	require.NoError(t, m.Check(t.Context()))
	require.Equal(t, 4, gets(fault)-before, "a pepper, the foreign digest, the token keys and the fleet")
	for name, kind := range map[string]backend.Kind{"check values": fob.RecordCheck, "token keys": fob.RecordRing, "fleet": fob.RecordFleet} {
		onEach(fault, callsOf(backendtest.OpGet, kind), backendtest.Unavailable())
		err := m.Check(t.Context())
		require.ErrorIs(t, err, backend.ErrUnavailable, name)
		require.Empty(t, m.Health().Problems, "an outage is none")
		fault.Inject(nil)
		require.NoError(t, m.Check(t.Context()))
	}
	clockErr = backend.ErrUnavailable
	require.ErrorIs(t, m.Check(t.Context()), backend.ErrUnavailable)
	clockErr = errors.ErrUnsupported
	require.NoError(t, m.Check(t.Context()))
}

// Check asks of a secret that nobody has used yet, and takes back what it said once that
// is right again.
func TestCheckComparesWhatWasNotUsedYet(t *testing.T) {
	store := memory.New()
	importUntil(t, store, fob.Config{Imported: located()}, fob.KeySpec{Subject: fob.App("a")}, inForm(t, "digest", importedText), finished)
	wrong := located()
	wrong.Digest = func(presented string) []byte { return otherDigest("wrong " + presented) }
	m := newManager(t, bare{store}, fob.Config{Imported: wrong})
	require.ErrorIs(t, m.Check(t.Context()), fob.ErrPepper)
	require.Len(t, m.Health().Problems, 1)
	rec := checkOf(t, store)
	require.NoError(t, store.Delete(t.Context(), rec.ID, rec.Version))
	require.NoError(t, m.Check(t.Context()))
	require.Empty(t, m.Health().Problems)
}

// A Manager that is more patient than others has to tell them, and Check does that, or
// says that it cannot.
func TestCheckJoinsTheFleet(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	onEach(fault, callsOf(backendtest.OpPut, fob.RecordFleet), backendtest.Unavailable())
	m := newManager(t, bare{fault}, fob.Config{MaxStaleness: time.Minute})
	err := m.Check(t.Context())
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorContains(t, err, "join the fleet")
	fault.Inject(nil)
	require.NoError(t, m.Check(t.Context()))
	bound, err := m.FleetStaleness(t.Context())
	require.NoError(t, err)
	require.Equal(t, time.Minute, bound)
}

// Check tells that the feed was lost, though every record can be read.
func TestCheckTellsThatTheFeedIsLost(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, fob.Config{})
		defer m.Close()
		require.NoError(t, m.Check(t.Context()))
		onEach(fault, callsOf(backendtest.OpBatch), backendtest.Unavailable())
		pass(time.Second)
		require.ErrorIs(t, m.Check(t.Context()), backend.ErrUnavailable)
		require.ErrorIs(t, m.Health().Err, backend.ErrUnavailable)
	})
}

// Of records that cannot be read so many are told of as one can look at; whatever else is
// wrong is told beside them.
func TestManyRecordsThatCannotBeReadAreToldOfAFewTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		issuer := newManager(t, store, peppered(pepperText))
		defer issuer.Close()
		text, _ := mustIssue(t, issuer, fob.KeySpec{})
		for n := range 40 {
			_, err := issuer.Revoke(t.Context(), fob.App(string(rune('A'+n))), "")
			require.NoError(t, err)
		}
		page, err := store.List(t.Context(), backend.Query{Kind: fob.RecordSubject, Limit: 100})
		require.NoError(t, err)
		for _, rec := range page.Records {
			rec.Body[4] ^= 1
			_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
			require.NoError(t, err)
		}
		seen := &observed{}
		cfg := peppered(otherPepper)
		cfg.Observer = seen
		m := newManager(t, store, cfg)
		defer m.Close()
		pass(time.Second)
		require.Len(t, m.Health().Problems, 32)
		require.Len(t, seen.take(), 32)
		_, err = m.Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrPepper)
		require.Len(t, m.Health().Problems, 33)
		require.Len(t, seen.take(), 1)
	})
}
