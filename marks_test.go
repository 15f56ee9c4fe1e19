package fob_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// The mark of an issuer says what of its tokens is revoked: all that is stamped with an
// epoch below one (ends), and what is stamped with less than another one (epoch) and was
// issued before an instant. A record that says nothing, or what none can say, is corrupt:
// then it could not be checked.
func TestWhatTheMarkOfAnIssuerEnds(t *testing.T) {
	clock := newClock()
	store := memory.New()
	defer store.Close()
	m := newManager(t, bare{store}, clocked(tokenConfig(), clock))
	at := uint64(clock.Now().UnixMilli())
	unstamped := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
	fob.PutIssuerMark(t, m, store, fob.MarkFields{Epoch: 5, Before: 1})
	five := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
	const forever = 4611686018427387903 // as it is written in records: it cannot become another number
	for _, c := range []struct {
		name            string
		mark            fob.MarkFields
		unstamped, five error
	}{
		{"before it was issued", fob.MarkFields{Epoch: 6, Before: at}, nil, nil},
		{"after it was issued", fob.MarkFields{Epoch: 6, Before: at + 1}, fob.ErrRevoked, fob.ErrRevoked},
		{"of its own epoch", fob.MarkFields{Epoch: 5, Before: at + 1}, fob.ErrRevoked, nil},
		{"of the first instant", fob.MarkFields{Epoch: 6, Before: 1}, nil, nil},
		{"of the first epoch", fob.MarkFields{Epoch: 1, Before: at + 1}, fob.ErrRevoked, nil},
		{"up to its epoch", fob.MarkFields{Epoch: 6, Ends: 6}, fob.ErrRevoked, fob.ErrRevoked},
		{"up to before its epoch", fob.MarkFields{Epoch: 6, Ends: 5}, fob.ErrRevoked, nil},
		{"up to the first", fob.MarkFields{Epoch: 1, Ends: 1}, fob.ErrRevoked, nil},
		{"both", fob.MarkFields{Epoch: 7, Ends: 5, Before: at + 1, Reason: "leaked"}, fob.ErrRevoked, fob.ErrRevoked},
		{"from before there were epochs", fob.MarkFields{Before: at + 1}, fob.ErrRevoked, nil},
		{"of the first instant, from before there were epochs", fob.MarkFields{Before: 1}, nil, nil},
		{"forever", fob.MarkFields{Before: forever}, fob.ErrRevoked, fob.ErrRevoked},
		{"nothing", fob.MarkFields{}, fob.ErrCorrupt, fob.ErrCorrupt},
		{"a reason alone", fob.MarkFields{Reason: "leaked"}, fob.ErrCorrupt, fob.ErrCorrupt},
		{"an epoch alone", fob.MarkFields{Epoch: 6}, fob.ErrCorrupt, fob.ErrCorrupt},
		{"more than its epoch", fob.MarkFields{Epoch: 6, Ends: 7}, fob.ErrCorrupt, fob.ErrCorrupt},
		{"up to one without an epoch", fob.MarkFields{Ends: 6}, fob.ErrCorrupt, fob.ErrCorrupt},
		{"forever with an epoch", fob.MarkFields{Epoch: 6, Before: forever}, fob.ErrCorrupt, fob.ErrCorrupt},
		{"before an instant that there is not", fob.MarkFields{Epoch: 6, Before: 1 << 63}, fob.ErrCorrupt, fob.ErrCorrupt},
		{"what nobody understands", fob.MarkFields{Epoch: 6, Before: at + 1, Unknown: true}, fob.ErrCorrupt, fob.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			fob.PutIssuerMark(t, m, store, c.mark)
			for _, one := range []struct {
				issued fob.Issued
				want   error
			}{{unstamped, c.unstamped}, {five, c.five}} {
				cred, err := m.Fresh().Verify(t.Context(), one.issued.Access.Reveal())
				require.ErrorIs(t, err, one.want)
				if one.want == fob.ErrCorrupt {
					mustBeUnsure(t, err)
				}
				require.Equal(t, one.want != nil, cred == nil)
			}
		})
	}
	// A mark from before there were epochs has the first one, and no higher.
	fob.PutIssuerMark(t, m, store, fob.MarkFields{Epoch: 1, Before: 1})
	first := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	fob.PutIssuerMark(t, m, store, fob.MarkFields{Before: at + 1})
	_, err := m.Fresh().Verify(t.Context(), first)
	require.NoError(t, err)
}

func TestAMarkSaysWhy(t *testing.T) {
	store := memory.New()
	defer store.Close()
	m := newManager(t, bare{store}, tokenConfig())
	_, err := m.Revoke(t.Context(), mustToken(t, m, fob.TokenSpec{}).Token.ID(), "lost laptop")
	require.NoError(t, err)
	page, err := store.List(t.Context(), backend.Query{Kind: fob.RecordMark, Limit: 10})
	require.NoError(t, err)
	require.Len(t, page.Records, 1)
	require.True(t, bytes.Contains(page.Records[0].Body, []byte("lost laptop")))
}

// Without a feed no mark is remembered, and what is revoked here is forgotten all the same.
func TestWithoutAFeedARevokedTokenIsRefusedAtOnce(t *testing.T) {
	m := newManager(t, bare{memory.New()}, fob.Config{Tokens: tokenConfig().Tokens, MaxStaleness: time.Hour})
	one, family := mustToken(t, m, fob.TokenSpec{}), mustToken(t, m, fob.TokenSpec{Refreshable: true})
	issuer := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	for _, text := range []string{one.Access.Reveal(), family.Access.Reveal(), issuer} {
		mustVerify(t, m, text)
	}
	_, err := m.Revoke(t.Context(), one.Token.ID(), "")
	require.NoError(t, err)
	mustReject(t, m, one.Access.Reveal(), fob.ErrRevoked)
	_, err = m.Revoke(t.Context(), family.Token.Session(), "")
	require.NoError(t, err)
	mustReject(t, m, family.Access.Reveal(), fob.ErrRevoked)
	mustVerify(t, m, issuer)
	_, err = m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
	require.NoError(t, err)
	mustReject(t, m, issuer, fob.ErrRevoked)
}

// What is read of a mark that is known already is no news: nothing is forgotten for it.
func TestAMarkThatIsNoNewsForgetsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		m := newManager(t, fault, tokenConfig())
		defer m.Close()
		before := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
		pass(time.Second)
		_, err := m.Revoke(t.Context(), fob.AllTokens(time.Now()), "")
		require.NoError(t, err)
		_, err = m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
		require.NoError(t, err)
		pass(time.Second)
		text := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
		mustVerify(t, m, text)
		forgotten := m.CacheStats().Tokens.Invalidations
		for range 3 {
			_, err = m.Fresh().Verify(t.Context(), text) // reads the mark of the issuer
			require.NoError(t, err)
			mustReject(t, m, before, fob.ErrRevoked)
		}
		require.Equal(t, forgotten, m.CacheStats().Tokens.Invalidations)
	})
}

// A mark that says less than what is known takes nothing back, whoever wrote it: what
// either says is revoked stays so.
func TestAMarkThatSaysLessTakesNothingBack(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		m := newManager(t, fault, tokenConfig())
		defer m.Close()
		pass(time.Second)
		at := uint64(time.Now().UnixMilli())
		put := func(f fob.MarkFields) {
			fob.PutIssuerMark(t, m, store, f)
			pass(time.Second)
		}
		put(fob.MarkFields{Epoch: 3, Before: 1})
		three := mustToken(t, m, fob.TokenSpec{TTL: time.Hour}).Access.Reveal()
		mustVerify(t, m, three)
		put(fob.MarkFields{Epoch: 5, Ends: 5})
		mustReject(t, m, three, fob.ErrRevoked)
		five := mustToken(t, m, fob.TokenSpec{TTL: time.Hour}).Access.Reveal()
		mustVerify(t, m, five)
		put(fob.MarkFields{Epoch: 6, Before: at + 60_000}) // says nothing of ends
		mustReject(t, m, three, fob.ErrRevoked)
		mustReject(t, m, five, fob.ErrRevoked)
		put(fob.MarkFields{Epoch: 4, Ends: 4}) // a lower epoch, and nothing of an instant
		mustReject(t, m, three, fob.ErrRevoked)
		mustReject(t, m, five, fob.ErrRevoked)
	})
}

// What is revoked while the marks are being read is refused then and afterwards.
func TestWhatIsRevokedWhileTheMarksAreReadIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, fault *backendtest.Fault) {
		onEach(fault, callsOf(backendtest.OpScan), backendtest.Injection{Delay: time.Minute})
		cfg := tokenConfig()
		cfg.SweepInterval = -1
		m, err := fob.New(fault, cfg)
		require.NoError(t, err)
		defer m.Close()
		synctest.Wait()
		require.True(t, m.Health().CatchingUp)
		issued := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
		mustVerify(t, m, issued.Access.Reveal())
		_, err = m.Revoke(t.Context(), issued.Token.ID(), "")
		require.NoError(t, err)
		mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
		pass(3 * time.Minute)
		require.False(t, m.Health().CatchingUp)
		mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
	})
}

// Of a mark that is gone nothing is remembered: memory says what the store says.
func TestAMarkThatIsGoneIsForgotten(t *testing.T) {
	bubbleOver(t, func(t *testing.T, store backend.Store, fault *backendtest.Fault) {
		m := newManager(t, fault, tokenConfig())
		defer m.Close()
		issued := mustToken(t, m, fob.TokenSpec{TTL: time.Hour})
		_, err := m.Revoke(t.Context(), issued.Token.ID(), "")
		require.NoError(t, err)
		pass(time.Second)
		mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
		lister, _ := backend.As[backend.Lister](store)
		page, err := lister.List(t.Context(), backend.Query{Kind: fob.RecordMark, Limit: 10})
		require.NoError(t, err)
		require.Len(t, page.Records, 1)
		require.NoError(t, store.Delete(t.Context(), page.Records[0].ID, page.Records[0].Version))
		pass(time.Second)
		mustVerify(t, m, issued.Access.Reveal())
		_, err = m.Fresh().Verify(t.Context(), issued.Access.Reveal())
		require.NoError(t, err)
		require.Zero(t, m.Health().Skew, "and tells nothing of a clock")
	})
}
