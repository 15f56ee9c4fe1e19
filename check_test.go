package fob_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

var pepperText = []byte("0123456789abcdef0123456789abcdef")

func peppered(key []byte) fob.Config {
	return fob.Config{Imported: located(), Peppers: []fob.Pepper{{ID: "p1", Key: key}}}
}

// A pepper that was read from a file together with the end of its line is not the
// pepper: that is the operator's fault, and nobody is told that his key is wrong.
func TestAPepperWithAStrayNewlineIsNotTheClientsFault(t *testing.T) {
	store := memory.New()
	good := newManager(t, store, peppered(pepperText))
	text, key := mustIssue(t, good, fob.KeySpec{})
	spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: requestID}
	mustIssue(t, good, spec)
	_, err := good.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, fob.ImportedKey{Secret: importedText, Locator: "ab12cd"})
	require.NoError(t, err)
	require.NoError(t, good.Check(t.Context()))
	require.Empty(t, good.Health().Problems)

	seen := &observed{}
	cfg := peppered(append(bytes.Clone(pepperText), '\n'))
	cfg.Observer = seen
	bad := newManager(t, store, cfg)
	for range 3 {
		for _, presented := range []string{text, importedText, forge(t, "acme_live", key.ID())} {
			_, err := bad.Verify(t.Context(), presented)
			require.ErrorIs(t, err, fob.ErrPepper)
			mustBeUnsure(t, err)
			_, err = bad.Fresh().Verify(t.Context(), presented)
			require.ErrorIs(t, err, fob.ErrPepper)
			mustBeUnsure(t, err)
		}
	}
	// Nothing is made that the others could not check.
	for name, err := range map[string]error{
		"issue":         second(bad.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a")})),
		"repeated":      second(bad.IssueKey(t.Context(), spec)),
		"rotate":        second(bad.RotateKey(t.Context(), key.ID(), fob.Rotation{})),
		"import":        failure(bad.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: "ab12cd.another", Locator: "ab12cd"})),
		"import again":  failure(bad.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("b")}, fob.ImportedKey{Secret: importedText, Locator: "ab12cd"})),
		"check":         bad.Check(t.Context()),
		"Health":        errors.Join(bad.Health().Problems...),
		"no rejection ": bad.Check(t.Context()),
	} {
		require.ErrorIs(t, err, fob.ErrPepper, name)
		mustBeUnsure(t, err)
		require.NotContains(t, err.Error(), string(pepperText))
	}
	require.Equal(t, []fob.EventType{fob.EventUpkeepFailed}, seen.types(), "told once")
	mustVerify(t, good, text)
	mustVerify(t, good, importedText)
	mustReject(t, good, forge(t, "acme_live", key.ID()), fob.ErrUnknown)
}

func second[A, B any](_ A, _ B, err error) error { return err }
func failure[A any](_ A, err error) error        { return err }

// A pepper that is only known, and not used for new digests, is compared too.
func TestASecondPepperThatIsWrong(t *testing.T) {
	store := memory.New()
	text, _ := mustIssue(t, newManager(t, store, peppered(pepperText)), fob.KeySpec{})
	newKey := bytes.Repeat([]byte{9}, 32)
	bad := newManager(t, store, fob.Config{Peppers: []fob.Pepper{{ID: "p2", Key: newKey}, {ID: "p1", Key: append(bytes.Clone(pepperText), '\n')}}})
	require.ErrorIs(t, bad.Check(t.Context()), fob.ErrPepper)
	_, err := bad.Verify(t.Context(), text)
	require.ErrorIs(t, err, fob.ErrPepper)
	mustBeUnsure(t, err)
	mustIssue(t, bad, fob.KeySpec{}) // under p2
}

// Of two processes that begin with one ID and two keys, one can work.
func TestOfTwoPeppersWithOneIDTheFirstIsRight(t *testing.T) {
	store := memory.New()
	managers := []*fob.Manager{newManager(t, store, peppered(pepperText)), newManager(t, store, peppered(bytes.Repeat([]byte{3}, 32)))}
	mustIssue(t, managers[1], fob.KeySpec{})
	_, _, err := managers[0].IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a")})
	require.ErrorIs(t, err, fob.ErrPepper)
}

// Nobody has to ask for the check value while all that is presented matches.
func TestAMatchProvesThePepper(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	text, key := mustIssue(t, newManager(t, fault, peppered(pepperText)), fob.KeySpec{})
	_, other := mustIssue(t, newManager(t, fault, peppered(pepperText)), fob.KeySpec{Subject: fob.App("other")})
	m := newManager(t, bare{fault}, peppered(pepperText))
	before := fault.Calls(backendtest.OpGet)
	mustVerify(t, m, text)
	require.Equal(t, 2, fault.Calls(backendtest.OpGet)-before, "the key and its subject")
	check := backend.ID{}
	for range 3 {
		mustReject(t, m, forge(t, "acme_live", key.ID()), fob.ErrUnknown)
	}
	// The check value cannot be read: a wrong secret is one where a right one was seen.
	m = newManager(t, bare{fault}, peppered(pepperText))
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpGet && c.ID != idOf(key) && c.ID != idOf(other) && c.ID[0] != 2 {
			check = c.ID
			return backendtest.Unavailable()
		}
		return backendtest.Injection{}
	})
	_, err := m.Verify(t.Context(), forge(t, "acme_live", other.ID()))
	mustBeUnsure(t, err)
	require.NotZero(t, check)
	mustVerify(t, m, text)
	mustReject(t, m, forge(t, "acme_live", other.ID()), fob.ErrUnknown)
}

// A store from before there were check values: what does not match is not refused
// before something has matched.
func TestAStoreWithoutCheckValues(t *testing.T) {
	store := memory.New()
	text, key := mustIssue(t, newManager(t, store, peppered(pepperText)), fob.KeySpec{})
	page, err := store.List(t.Context(), backend.Query{Kind: fob.RecordCheck, Limit: 10})
	require.NoError(t, err)
	require.Len(t, page.Records, 1)
	require.NoError(t, store.Delete(t.Context(), page.Records[0].ID, page.Records[0].Version))
	bad := newManager(t, store, peppered(append(bytes.Clone(pepperText), '\n')))
	_, err = bad.Verify(t.Context(), text)
	require.ErrorIs(t, err, fob.ErrPepper)
	mustBeUnsure(t, err)
	good := newManager(t, store, peppered(pepperText))
	mustVerify(t, good, text)
	mustReject(t, good, forge(t, "acme_live", key.ID()), fob.ErrUnknown)
}

// ImportedKeys.Digest is a secret of Config like the others: it is keyed.
func TestAForeignDigestWithAnotherKeyIsNotTheClientsFault(t *testing.T) {
	store := memory.New()
	good := newManager(t, store, fob.Config{Imported: located()})
	for n, f := range []fob.ImportedKey{{Digest: otherDigest(importedText)}, {Digest: otherDigest("zz99.another-secret"), Locator: "zz99"}} {
		_, err := good.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, f)
		require.NoError(t, err, n)
	}
	wrong := located()
	wrong.Digest = func(presented string) []byte {
		mac := hmac.New(sha256.New, []byte("the other system's own key\n"))
		mac.Write([]byte(presented))
		return mac.Sum(nil)
	}
	bad := newManager(t, store, fob.Config{Imported: wrong})
	for _, presented := range []string{importedText, "zz99.another-secret", "some.garbage"} {
		_, err := bad.Verify(t.Context(), presented)
		require.ErrorIs(t, err, fob.ErrPepper)
		mustBeUnsure(t, err)
	}
	require.ErrorIs(t, bad.Check(t.Context()), fob.ErrPepper)
	require.Len(t, bad.Health().Problems, 1)
	require.ErrorIs(t, failure(bad.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Digest: make([]byte, 32)})), fob.ErrPepper)
	mustReject(t, good, "some.garbage", fob.ErrUnknown)
	mustVerify(t, good, importedText)
}

func TestCheckTellsAllThatIsWrong(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	cfg := tokenConfig()
	cfg.Peppers = []fob.Pepper{{ID: "p1", Key: pepperText}}
	good := newManager(t, fault, cfg)
	mustIssue(t, good, fob.KeySpec{})
	mustToken(t, good, fob.TokenSpec{})
	require.NoError(t, good.Check(t.Context()))

	cfg = tokenConfig(func(c *fob.TokenConfig) { c.SealKey = bytes.Repeat([]byte{8}, 32) })
	cfg.Peppers = []fob.Pepper{{ID: "p1", Key: bytes.Repeat([]byte{8}, 32)}}
	cfg.MaxStaleness = 5 * time.Second
	bad := newManager(t, fault, cfg)
	err := bad.Check(t.Context())
	require.ErrorIs(t, err, fob.ErrPepper)
	require.ErrorIs(t, err, fob.ErrSealKey)
	require.Len(t, bad.Health().Problems, 2)
	bound, err := good.FleetStaleness(t.Context())
	require.NoError(t, err)
	require.Equal(t, 5*time.Second, bound)

	fault.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Unavailable() })
	require.ErrorIs(t, good.Check(t.Context()), backend.ErrUnavailable)
	fault.Inject(nil)
	require.NoError(t, good.Close())
	require.ErrorIs(t, good.Check(context.Background()), fob.ErrClosed)
}
