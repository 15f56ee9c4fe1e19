package fob_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// TestAFamilyThatCannotBeReadIsCorrupt: its secrets are neither good nor bad then, nothing
// is written, and whoever wants to end it is told that it could not be done.
func TestAFamilyThatCannotBeReadIsCorrupt(t *testing.T) {
	store := memory.New()
	m := newManager(t, bare{store}, tokenConfig())
	other := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	rec, err := store.Get(t.Context(), fob.FamilyRecord(other.Token.Session()))
	require.NoError(t, err)
	others := textsOf(t, rec)
	for name, change := range map[string]func(f map[byte]string){
		"no digest":                func(f map[byte]string) { delete(f, fob.FieldDigest) },
		"a digest that is short":   func(f map[byte]string) { f[fob.FieldDigest] = f[fob.FieldDigest][:31] },
		"a digest that is long":    func(f map[byte]string) { f[fob.FieldDigest] += "x" },
		"no lifetime":              func(f map[byte]string) { delete(f, fob.FieldLifetime) },
		"a lifetime of no length":  func(f map[byte]string) { f[fob.FieldLifetime] = strings.Repeat("\x00", 8) },
		"no end of idleness":       func(f map[byte]string) { delete(f, fob.FieldIdleUntil) },
		"no ID":                    func(f map[byte]string) { delete(f, fob.FieldTarget) },
		"the ID of another":        func(f map[byte]string) { f[fob.FieldTarget] = others[fob.FieldTarget] },
		"no claims":                func(f map[byte]string) { delete(f, fob.FieldClaims) },
		"claims that are none":     func(f map[byte]string) { f[fob.FieldClaims] = "{}" },
		"the claims of another":    func(f map[byte]string) { f[fob.FieldClaims] = others[fob.FieldClaims] },
		"ended, but not quite":     func(f map[byte]string) { f[fob.FieldEnded] = "\x02" },
		"a tag key that is short":  func(f map[byte]string) { f[fob.FieldTagKey] = f[fob.FieldTagKey][1:] },
		"a link that is short":     func(f map[byte]string) { f[fob.FieldLinks] = f[fob.FieldLinks][1:] },
		"more links than are kept": func(f map[byte]string) { f[fob.FieldLinks] = strings.Repeat(f[fob.FieldLinks], 33) },
		"a field nobody knows":     func(f map[byte]string) { f[250] = "x" },
		"an epoch, as of a mark":   func(f map[byte]string) { f[fob.FieldEpoch] = "12345678" },
	} {
		t.Run(name, func(t *testing.T) {
			first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
			second := mustRefresh(t, m, first.Refresh)
			id := fob.FamilyRecord(first.Token.Session())
			sound, err := store.Get(t.Context(), id)
			require.NoError(t, err)
			alter(t, store, id, func(_ *backend.Record, f map[byte]string) { change(f) })
			mustBeCorrupt(t, store, m, first, second)
			sound.Version++
			_, err = store.Put(t.Context(), sound, backend.IfVersion(sound.Version))
			require.NoError(t, err)
			mustRefresh(t, m, second.Refresh)
		})
	}
	t.Run("a checksum that is wrong", func(t *testing.T) {
		first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
		second := mustRefresh(t, m, first.Refresh)
		rec, err := store.Get(t.Context(), fob.FamilyRecord(first.Token.Session()))
		require.NoError(t, err)
		rec.Body[len(rec.Body)-1] ^= 1
		_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
		require.NoError(t, err)
		mustBeCorrupt(t, store, m, first, second)
	})
}

// mustBeCorrupt asserts that neither secret of a family, the used one and the next, is
// answered, and that nothing is changed by that.
func mustBeCorrupt(t *testing.T, store backend.Store, m *fob.Manager, used, current fob.Issued) {
	t.Helper()
	family := current.Token.Session()
	before, err := store.Get(t.Context(), fob.FamilyRecord(family))
	require.NoError(t, err)
	for _, i := range []fob.Issued{used, current} {
		answer, err := m.Refresh(t.Context(), i.Refresh.Reveal())
		mustBeUnsure(t, err)
		require.ErrorIs(t, err, fob.ErrCorrupt)
		require.Zero(t, answer)
	}
	_, err = m.Revoke(t.Context(), family, "left")
	require.ErrorIs(t, err, fob.ErrCorrupt)
	after, err := store.Get(t.Context(), fob.FamilyRecord(family))
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// TestAnAnswerThatCannotBeOpenedIsCorrupt, wherever on the way from the secret that is
// presented to the newest pair: no session ends because a record was damaged.
func TestAnAnswerThatCannotBeOpenedIsCorrupt(t *testing.T) {
	store := memory.New()
	m := newManager(t, bare{store}, tokenConfig())
	damaged := func(c fob.Issued, field byte) {
		alter(t, store, fob.FamilyRecord(c.Token.Session()), func(_ *backend.Record, f map[byte]string) {
			f[field] = f[field][:40] + string([]byte{f[field][40] ^ 1}) + f[field][41:]
		})
	}
	answers := func(c fob.Issued, text string) {
		family := c.Token.Session()
		alter(t, store, fob.FamilyRecord(family), func(_ *backend.Record, f map[byte]string) {
			f[fob.FieldSealed] = fob.SealedAnswer(t, family, c.Refresh.Reveal(), text)
		})
	}
	access := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	for name, damage := range map[string]func(current fob.Issued){
		"the link":   func(c fob.Issued) { damaged(c, fob.FieldLinks) },
		"the answer": func(c fob.Issued) { damaged(c, fob.FieldSealed) },
		"an answer that is no token": func(c fob.Issued) {
			answers(c, "nonsense")
		},
		"a token that is not sealed with its key": func(c fob.Issued) {
			answers(c, access[:40]+"AAAA"+access[44:])
		},
	} {
		t.Run(name, func(t *testing.T) {
			first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
			second := mustRefresh(t, m, first.Refresh)
			damage(second)
			answer, err := m.Refresh(t.Context(), first.Refresh.Reveal())
			mustBeUnsure(t, err)
			require.ErrorIs(t, err, fob.ErrCorrupt)
			require.Zero(t, answer)
			mustRefresh(t, m, second.Refresh) // that needs neither
		})
	}
}

// TestAnAnswerWhoseKeyIsLostIsNoRejection: the secret is good, and so is its session.
func TestAnAnswerWhoseKeyIsLostIsNoRejection(t *testing.T) {
	store := memory.New()
	m := newManager(t, bare{store}, tokenConfig())
	first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	second := mustRefresh(t, m, first.Refresh)
	ring := ringOf(t, store)
	require.NoError(t, store.Delete(t.Context(), ring.ID, ring.Version)) // a store that has lost it
	other := newManager(t, bare{store}, tokenConfig())
	answer, err := other.Refresh(t.Context(), first.Refresh.Reveal())
	mustBeUnsure(t, err)
	require.Zero(t, answer)
	mustVerify(t, other, mustRefresh(t, other, second.Refresh).Access.Reveal())
}

// TestAFamilyFromBeforeThereWereTagsIsOver: nobody could tell a replay of its secrets, so
// nobody may go on with it. To end it is the first call's, as with any other.
func TestAFamilyFromBeforeThereWereTagsIsOver(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, tokenConfig())
	old := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	fob.MakeOldFamily(t, m, store, old.Token.Session())
	mustNotRefresh(t, m, old.Refresh, fob.ErrRevoked)
	mustVerify(t, m, old.Access.Reveal()) // for as long as it lives
	receipt, err := m.Revoke(t.Context(), old.Token.Session(), "left")
	require.NoError(t, err)
	require.False(t, receipt.Already)
	mustReject(t, m, old.Access.Reveal(), fob.ErrRevoked)
	receipt, err = m.Revoke(t.Context(), old.Token.Session(), "left")
	require.NoError(t, err)
	require.True(t, receipt.Already)
}

// TestTheRecordOfAFamilySaysWhyItEnded, and has nothing any more with which to go on.
func TestTheRecordOfAFamilySaysWhyItEnded(t *testing.T) {
	store := memory.New()
	m := newManager(t, store, tokenConfig())
	first := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	mustRefresh(t, m, first.Refresh)
	before, err := store.Get(t.Context(), fob.FamilyRecord(first.Token.Session()))
	require.NoError(t, err)
	require.Empty(t, textsOf(t, before)[fob.FieldReason])
	_, err = m.Revoke(t.Context(), first.Token.Session(), "laptop stolen")
	require.NoError(t, err)
	after, err := store.Get(t.Context(), before.ID)
	require.NoError(t, err)
	fields := textsOf(t, after)
	require.Equal(t, "laptop stolen", fields[fob.FieldReason])
	require.Equal(t, "\x01", fields[fob.FieldEnded])
	require.Empty(t, fields[fob.FieldSealed])
	require.Empty(t, fields[fob.FieldLinks])
	require.Equal(t, before.Created, after.Created)
	require.Equal(t, before.Expires, after.Expires)
}

// TestAMarkIsKeptNoLongerThanAnAccessTokenCanBeUsed, by a clock that is half a day behind and
// purged by one that is half a day ahead, and for the leeway after that. Tokens live for an
// hour at most, and those of a session as long as it was begun with. How long the session
// could have lasted has nothing to do with it: its own record says that it has ended.
func TestAMarkIsKeptNoLongerThanAnAccessTokenCanBeUsed(t *testing.T) {
	const margin, leeway = 24 * time.Hour, 5 * time.Minute
	for _, session := range []time.Duration{30 * 24 * time.Hour, time.Minute} {
		clock, store := newClock(), memory.New()
		m := newManager(t, store, clocked(tokenConfig(func(cfg *fob.TokenConfig) {
			cfg.RefreshTTL, cfg.Leeway = session, leeway
		}), clock))
		revoke := func(id fob.ID) int64 {
			before := mustList(t, store, 6)
			_, err := m.Revoke(context.Background(), id, "left")
			require.NoError(t, err)
			for _, mark := range mustList(t, store, 6) {
				if !slices.ContainsFunc(before, func(b backend.Record) bool { return b.ID == mark.ID }) {
					return mark.PurgeAt
				}
			}
			return 0
		}
		ends := func(life time.Duration) int64 { return clock.Now().Add(life + 2*leeway + margin).UnixMilli() }
		spec := fob.TokenSpec{Refreshable: true, TTL: 20 * time.Minute}
		require.Equal(t, ends(time.Hour), revoke(mustToken(t, m, fob.TokenSpec{}).Token.ID()))
		require.Equal(t, ends(20*time.Minute), revoke(mustToken(t, m, spec).Token.Session()))
		if session > time.Hour {
			spec.NotBefore, spec.TTL = clock.Now().Add(30*time.Minute), 40*time.Minute
			require.Equal(t, ends(70*time.Minute), revoke(mustToken(t, m, spec).Token.Session()), "what is refreshed lives from then on")
		}
	}
}

// TestASessionStaysRevokedWhenItsMarkIsPurged, and to revoke it once more writes none.
func TestASessionStaysRevokedWhenItsMarkIsPurged(t *testing.T) {
	clock, store := newClock(), unfed{memory.New()} // a feed would tell of the purge at an instant that a hand moves
	m := newManager(t, store, clocked(tokenConfig(func(cfg *fob.TokenConfig) { cfg.RefreshTTL = 30 * 24 * time.Hour }), clock))
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	_, err := m.Revoke(t.Context(), issued.Token.Session(), "left")
	require.NoError(t, err)
	clock.Add(26 * time.Hour)
	swept, err := m.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, swept.Purged)
	mustNotRefresh(t, m, issued.Refresh, fob.ErrRevoked)
	receipt, err := m.Revoke(t.Context(), issued.Token.Session(), "again")
	require.NoError(t, err)
	require.True(t, receipt.Already)
	require.Empty(t, mustList(t, store, 6))
}

// TestWhatACallHasBegunOfARevocationIsFinished by whoever comes next: the record of a session
// has ended, and its mark could not be written.
func TestWhatACallHasBegunOfARevocationIsFinished(t *testing.T) {
	for name, next := range map[string]func(*testing.T, *fob.Manager, fob.Issued){
		"a refresh": func(t *testing.T, m *fob.Manager, i fob.Issued) { mustNotRefresh(t, m, i.Refresh, fob.ErrRevoked) },
		"a repetition": func(t *testing.T, m *fob.Manager, i fob.Issued) {
			receipt, err := m.Revoke(t.Context(), i.Token.Session(), "again")
			require.NoError(t, err)
			require.False(t, receipt.Already, "nobody was told that it was done")
		},
	} {
		t.Run(name, func(t *testing.T) {
			fault := backendtest.NewFault(memory.New())
			m := newManager(t, fault, tokenConfig())
			issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
			once(fault, callsOf(backendtest.OpPut, fob.RecordMark), backendtest.Unavailable())
			_, err := m.Revoke(t.Context(), issued.Token.Session(), "left")
			require.ErrorIs(t, err, fob.ErrIndeterminate, "a part of it is done")
			mustVerify(t, m, issued.Access.Reveal())
			next(t, m, issued)
			mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
		})
	}
}

// TestWhoHangsUpInTheMiddleOfARevocationDoesNotStopIt: whoever signs out closes the window.
func TestWhoHangsUpInTheMiddleOfARevocationDoesNotStopIt(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, tokenConfig())
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	mustVerify(t, m, issued.Access.Reveal())
	ctx, hangUp := context.WithCancel(t.Context())
	fault.InjectOnce(backendtest.OpPut, backendtest.Injection{After: hangUp})
	_, _ = m.Revoke(ctx, issued.Token.Session(), "signed out")
	require.Error(t, ctx.Err())
	_, err := m.Fresh().Verify(t.Context(), issued.Access.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked)
}

// TestASessionThatEndedLongAgoGetsNoMark, whatever can be read of the fleet.
func TestASessionThatEndedLongAgoGetsNoMark(t *testing.T) {
	clock, store := newClock(), memory.New()
	fault := backendtest.NewFault(unfed{store})
	m := newManager(t, fault, clocked(tokenConfig(), clock))
	issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	_, err := m.Revoke(t.Context(), issued.Token.Session(), "left")
	require.NoError(t, err)
	clock.Add(40 * time.Hour)
	_, err = m.Sweep(t.Context())
	require.NoError(t, err)
	onEach(fault, callsOf(backendtest.OpGet, fob.RecordFleet), backendtest.Unavailable())
	mustNotRefresh(t, m, issued.Refresh, fob.ErrRevoked)
	require.Empty(t, mustList(t, store, 6))
}
