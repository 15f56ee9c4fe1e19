package fob_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/stretchr/testify/require"
)

// Anybody can compute a checksum over anything. Text that has a sound one and other
// characters than base62 is malformed, whether its ID is in the cache, is unknown, or is
// of another environment; it is never looked up.
func TestASoundChecksumMakesNoText(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, bare{fault}, fob.Config{OtherPrefixes: []string{"acme_test"}})
	text, key := mustIssue(t, m, fob.KeySpec{})
	secret := keytext.NewSecret()
	secret[7] = '{'
	for range 2 {
		reads := fault.Calls(backendtest.OpGet)
		for _, bad := range []string{
			keytext.Format("acme_live", key.ID(), secret), keytext.Format("acme_live", keytext.NewID(time.Now()), secret), keytext.Format("acme_test", key.ID(), secret),
		} {
			mustReject(t, m, bad, fob.ErrKeyAlphabet)
		}
		require.Equal(t, reads, fault.Calls(backendtest.OpGet))
		mustVerify(t, m, text)
	}
	mustReject(t, m, relabel(t, text, "acme_test"), fob.ErrWrongEnvironment)
}

// Of text that is no credential only what comes again is remembered, for as long as
// anything is; texts that come by turns do not push each other out.
func TestWhatIsUnknownIsRememberedWhenItComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, bare{fault}, fob.Config{MaxStaleness: time.Minute})
		defer m.Close()
		time.Sleep(24 * time.Hour) // a process that has run for a while
		var texts []string
		for range 5 {
			texts = append(texts, forge(t, "acme_live", fob.ID(keytext.NewID(time.Now()))))
		}
		for round, reads := range []int{5, 5, 0, 0} {
			before := fault.Calls(backendtest.OpGet)
			for _, text := range texts {
				mustReject(t, m, text, fob.ErrUnknown)
			}
			require.Equal(t, reads, fault.Calls(backendtest.OpGet)-before, "round %d", round)
		}
		time.Sleep(time.Minute + time.Millisecond)
		before := fault.Calls(backendtest.OpGet)
		mustReject(t, m, texts[0], fob.ErrUnknown)
		require.Equal(t, 1, fault.Calls(backendtest.OpGet)-before, "it may have been issued elsewhere by now")
	})
}

// A key that is not accepted is not written either: its digest goes on as it is, under
// a pepper that is no longer the first.
func TestAKeyThatIsRefusedIsNotRehashed(t *testing.T) {
	old, active := fob.Pepper{ID: "old", Key: make([]byte, 32)}, fob.Pepper{ID: "new", Key: append(make([]byte, 31), 1)}
	for name, is := range map[string]struct {
		end     func(m *fob.Manager, id fob.ID) error
		want    error
		rewrite int
	}{
		"a good one": {end: func(*fob.Manager, fob.ID) error { return nil }, rewrite: 1},
		"disabled":   {end: func(m *fob.Manager, id fob.ID) error { return m.Disable(t.Context(), id) }, want: fob.ErrDisabled},
		"retired": {end: func(m *fob.Manager, id fob.ID) error {
			_, _, err := m.RotateKey(t.Context(), id, fob.Rotation{})
			return err
		}, want: fob.ErrRetired},
		"revoked": {end: func(m *fob.Manager, id fob.ID) error { _, err := m.Revoke(t.Context(), id, ""); return err }, want: fob.ErrRevoked},
		"of a revoked subject": {end: func(m *fob.Manager, _ fob.ID) error {
			_, err := m.RevokeSubject(t.Context(), "app-42", "")
			return err
		}, want: fob.ErrRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			fault := backendtest.NewFault(memory.New())
			first := newManager(t, bare{fault}, fob.Config{Peppers: []fob.Pepper{old}})
			other, _ := mustIssue(t, first, fob.KeySpec{Subject: "app-43"})
			text, key := mustIssue(t, first, fob.KeySpec{})
			require.NoError(t, is.end(first, key.ID()))
			m := newManager(t, bare{fault}, fob.Config{Peppers: []fob.Pepper{active, old}})
			mustVerify(t, m, other) // the first one under a new pepper notes that, which is a write too
			writes := fault.Calls(backendtest.OpPut)
			for range 3 {
				_, err := m.Verify(t.Context(), text)
				require.ErrorIs(t, err, is.want)
			}
			require.Equal(t, is.rewrite, fault.Calls(backendtest.OpPut)-writes)
		})
	}
}

// Where tokens are verified, text is a token's from "v1." to "v9." on, and an imported
// key may begin in any other way.
func TestWhatBeginsLikeAToken(t *testing.T) {
	cfg := tokenConfig()
	cfg.Foreign = &fob.ForeignKeys{}
	m := newManager(t, nil, cfg)
	for _, text := range []string{"v1.local.AAAA", "v9.local.AAAA", "v4.AAAAAAA"} {
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: "a"}, fob.ForeignKey{Secret: text})
		require.ErrorIs(t, err, fob.ErrInvalid, text)
		_, err = m.Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrMalformed, text)
		require.NotErrorIs(t, err, fob.ErrUnknown, text)
	}
	for _, text := range []string{"v0.local.AAAA", "v:.local.AAAA", "v4-local.AAAA", "w4.local.AAAA", "vv4.local.AAAA", "44.local.AAAA", "v44.local.AAAA"} {
		mustReject(t, m, text, fob.ErrUnknown)
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: "a"}, fob.ForeignKey{Secret: text})
		require.NoError(t, err, text)
		mustVerify(t, m, text)
	}
	for _, text := range []string{"v", "v4", "v4."} {
		mustReject(t, m, text, fob.ErrMalformed)
	}
}
