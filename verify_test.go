package fob_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
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

// oldPepper is that of a key's digest, newPepper that under which it would be made now.
var oldPepper, newPepper = fob.Pepper{ID: "old", Key: make([]byte, 32)}, fob.Pepper{ID: "new", Key: append(make([]byte, 31), 1)}

// A key that is not accepted is not written either: its digest goes on as it is, under
// a pepper that is no longer the first.
func TestAKeyThatIsRefusedIsNotRehashed(t *testing.T) {
	for name, is := range map[string]struct {
		end     func(m *fob.Manager, id fob.ID) error
		want    error
		rewrite int
	}{
		"a good one": {end: func(*fob.Manager, fob.ID) error { return nil }, rewrite: 1},
		"disabled":   {end: func(m *fob.Manager, id fob.ID) error { return m.Disable(t.Context(), id, "") }, want: fob.ErrDisabled},
		"retired": {end: func(m *fob.Manager, id fob.ID) error {
			_, _, err := m.RotateKey(t.Context(), id, fob.Rotation{})
			return err
		}, want: fob.ErrRetired},
		"revoked": {end: func(m *fob.Manager, id fob.ID) error { _, err := m.Revoke(t.Context(), id, ""); return err }, want: fob.ErrRevoked},
		"of a revoked subject": {end: func(m *fob.Manager, _ fob.ID) error {
			_, err := m.Revoke(t.Context(), fob.App("app-42"), "")
			return err
		}, want: fob.ErrRevoked},
	} {
		t.Run(name, func(t *testing.T) {
			fault := backendtest.NewFault(memory.New())
			first := newManager(t, bare{fault}, fob.Config{Peppers: []fob.Pepper{oldPepper}})
			other, _ := mustIssue(t, first, fob.KeySpec{Subject: fob.App("app-43")})
			text, key := mustIssue(t, first, fob.KeySpec{})
			require.NoError(t, is.end(first, key.ID()))
			m := newManager(t, bare{fault}, fob.Config{Peppers: []fob.Pepper{newPepper, oldPepper}})
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
	cfg.Imported = &fob.ImportedKeys{}
	m := newManager(t, nil, cfg)
	for _, text := range []string{"v1.local.AAAA", "v9.local.AAAA", "v4.AAAAAAA"} {
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: text})
		require.ErrorIs(t, err, fob.ErrInvalid, text)
		_, err = m.Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrMalformed, text)
		require.NotErrorIs(t, err, fob.ErrUnknown, text)
	}
	for _, text := range []string{"v0.local.AAAA", "v:.local.AAAA", "v4-local.AAAA", "w4.local.AAAA", "vv4.local.AAAA", "44.local.AAAA", "v44.local.AAAA"} {
		mustReject(t, m, text, fob.ErrUnknown)
		_, err := m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: text})
		require.NoError(t, err, text)
		mustVerify(t, m, text)
	}
	for _, text := range []string{"v", "v4", "v4."} {
		mustReject(t, m, text, fob.ErrMalformed)
		_, err := m.Verify(t.Context(), text)
		require.NotErrorIs(t, err, fob.ErrTokenFormat)
	}
	mustReject(t, m, "v4.A", fob.ErrTokenFormat)
	longest := "v4.local." + strings.Repeat("A", 8<<10-len("v4.local."))
	mustReject(t, m, longest+"A", fob.ErrTokenLength)
	_, err := m.Verify(t.Context(), longest)
	require.ErrorIs(t, err, fob.ErrRejected)
	require.NotErrorIs(t, err, fob.ErrTokenLength)
}

// What an answer is as of moves on with the feed, for as long as the feed goes on: so far
// does what is held tell, and from then on counts how old it may become when the store
// cannot be asked.
func TestAnAnswerIsAsOfWhatTheFeedHasProved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := backendtest.NewFault(memory.New())
		cfg := tokenConfig()
		cfg.StaleIfError = time.Hour
		m := newManager(t, fault, cfg)
		defer m.Close()
		text, _ := mustIssue(t, m, fob.KeySpec{})
		texts := []string{text, mustToken(t, m, fob.TokenSpec{TTL: 50 * time.Minute}).Access.Reveal()}
		time.Sleep(time.Second)
		synctest.Wait() // the feed has told of the key, so that nothing of it is forgotten any more
		var held []fob.Credential
		for _, text := range texts {
			held = append(held, mustVerify(t, m, text))
		}
		began := time.Now()
		time.Sleep(10 * time.Minute)
		proved := time.Now()
		for i, text := range texts {
			require.False(t, held[i].AsOf().After(began), "nothing has looked at it since")
			require.Same(t, held[i], mustVerify(t, m, text), "from memory")
			require.WithinDuration(t, proved, held[i].AsOf(), 2*time.Second)
			require.False(t, held[i].AsOf().After(proved))
		}
		fault.Inject(func(backendtest.Call) backendtest.Injection { return backendtest.Unavailable() })
		time.Sleep(35 * time.Minute) // 45 after the first read, and the token goes on
		for _, text := range texts {
			mustVerify(t, m, text)
		}
		time.Sleep(24 * time.Minute) // 69 after the first read, 59 after it was found to be so still
		mustVerify(t, m, texts[0])
		time.Sleep(time.Minute + 3*time.Second)
		_, err := m.Verify(t.Context(), texts[0])
		mustBeUnsure(t, err)
	})
}

// A token whose key is no longer there is unknown: its key was purged, or restored away.
func TestATokenOfAKeyThatIsGone(t *testing.T) {
	store := memory.New()
	m := bareManager(t, store, tokenConfig())
	defer m.Close()
	text, key := mustIssue(t, m, fob.KeySpec{Scopes: fob.Scopes{"a"}})
	issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{Scopes: fob.Scopes{"a"}})
	require.NoError(t, err)
	mustVerify(t, m, issued.Access.Reveal())
	require.NoError(t, store.Delete(t.Context(), idOf(key), key.Version()))
	_, err = m.Fresh().Verify(t.Context(), issued.Access.Reveal())
	require.ErrorIs(t, err, fob.ErrUnknown)
	_, err = m.Fresh().Verify(t.Context(), text)
	require.ErrorIs(t, err, fob.ErrUnknown)
}

// To store a digest anew is a courtesy of the verification. That it failed is told, that
// somebody else changed the key meanwhile is no failure, and the key is good in any case.
func TestARehashThatFailsIsToldAndRefusesNobody(t *testing.T) {
	for name, is := range map[string]struct {
		with backendtest.Injection
		want []fob.EventType
	}{
		"it is written":       {want: []fob.EventType{fob.EventRehashed}},
		"the store fails":     {with: backendtest.Unavailable(), want: []fob.EventType{fob.EventUpkeepFailed}},
		"its outcome is lost": {with: backendtest.LostAck(), want: []fob.EventType{fob.EventUpkeepFailed}},
		"somebody was faster": {with: backendtest.Injection{Fail: backend.ErrConflict}},
		"somebody purged it":  {with: backendtest.Injection{Fail: backend.ErrNotFound}},
	} {
		t.Run(name, func(t *testing.T) {
			fault := backendtest.NewFault(memory.New())
			first := bareManager(t, fault, fob.Config{Peppers: []fob.Pepper{oldPepper}})
			other, _ := mustIssue(t, first, fob.KeySpec{Subject: fob.App("app-43")})
			text, key := mustIssue(t, first, fob.KeySpec{Subject: fob.App("app-42")})
			require.NoError(t, first.Close())
			seen := &observed{}
			m := bareManager(t, fault, fob.Config{Peppers: []fob.Pepper{newPepper, oldPepper}, Observer: seen})
			defer m.Close()
			mustVerify(t, m, other)
			seen.take()
			fault.InjectOnce(backendtest.OpPut, is.with)
			cred := mustVerify(t, m, text)
			require.Equal(t, key.ID(), cred.ID())
			var types []fob.EventType
			for _, e := range seen.take() {
				types = append(types, e.Type)
				require.Equal(t, key.ID(), e.ID)
				require.Equal(t, "app-42", e.Subject.Name)
				require.Equal(t, e.Type == fob.EventUpkeepFailed, e.Err != nil)
			}
			require.Equal(t, is.want, types)
			again := mustVerify(t, m, text).(*fob.Key)
			rec, err := fault.Get(t.Context(), idOf(key))
			require.NoError(t, err)
			require.Equal(t, rec.Version, again.Version(), "what may have been written is read again")
			require.Equal(t, rec.Version, mustVerify(t, m, text).(*fob.Key).Version())
		})
	}
}

// A hit looks at two lines of memory: 96 bytes come before the body.
func TestWhatAHitOfAKeyLooksAtIsTogether(t *testing.T) {
	require.Equal(t, uintptr(2*64-96), fob.HotPartOfBody)
}

// A hit compares the checksum with that of the text that was accepted. What is not that
// text, to the last character, is refused as if nothing were in memory.
func TestATextThatIsAlmostThatOfACachedKey(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	text, _ := mustIssue(t, m, fob.KeySpec{})
	mustVerify(t, m, text)
	body := len(text) - keytext.BodyLen
	with := func(at int, c byte) string { return text[:at] + string(c) + text[at+1:] }
	for name, v := range map[string]fob.Verifier{"cached": m, "fresh": m.Fresh()} {
		refused := func(presented string, reason error) {
			t.Helper()
			cred, err := v.Verify(t.Context(), presented)
			require.ErrorIs(t, err, reason, "%s: %s", name, presented)
			require.Nil(t, cred)
		}
		for at := body + 1; at < len(text); at++ {
			other := byte('a')
			if text[at] == other {
				other = 'b'
			}
			refused(with(at, other), fob.ErrKeyChecksum)
			refused(with(at, '-'), fob.ErrKeyAlphabet)
		}
		block := keytext.Block(text)
		refused(keytext.Format("acme_live", [keytext.IDLen]byte(block[1:]), keytext.NewSecret()), fob.ErrUnknown)
		cred, err := v.Verify(t.Context(), text)
		require.NoError(t, err)
		require.NotNil(t, cred)
	}
}

// A change that is made, told and proved between the look into memory and the look at the
// clock: the answer was found before, and does not claim to be of later.
func TestAnAnswerIsAsOfWhatWasProvedBeforeItWasFound(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		var meanwhile atomic.Pointer[func()]
		here := newManager(t, fault, fob.Config{MaxStaleness: time.Hour, Clock: func() time.Time {
			if happens := meanwhile.Swap(nil); happens != nil {
				(*happens)()
			}
			return time.Now()
		}})
		defer here.Close()
		there := newManager(t, fault, fob.Config{})
		defer there.Close()
		text, key := mustIssue(t, there, fob.KeySpec{})
		pass(time.Second)
		mustVerify(t, here, text)
		var changed time.Time
		happens := func() {
			changed = time.Now()
			require.NoError(t, there.Disable(t.Context(), key.ID(), ""))
			pass(time.Second)
			require.Less(t, here.CacheStats().FeedAge, time.Since(changed))
		}
		meanwhile.Store(&happens)
		cred := mustVerify(t, here, text)
		require.False(t, changed.IsZero())
		require.False(t, cred.AsOf().After(changed), "as of %v, changed at %v", cred.AsOf(), changed)
		mustReject(t, here, text, fob.ErrDisabled)
	})
}
