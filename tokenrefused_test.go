package fob_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// TestATokenThatCouldNotBeIssuedIsNone: whichever call of the store fails, in a process
// that knows nothing yet, nothing is handed out, and the key that was presented is not bad.
func TestATokenThatCouldNotBeIssuedIsNone(t *testing.T) {
	cfg := tokenConfig(func(c *fob.TokenConfig) { c.MaxTTL = 2 * time.Hour })
	for name, c := range map[string]struct {
		exchange, refreshable bool
		calls                 int // at least
	}{
		"issued":                 {false, false, 6}, // subject, issuer, the fleet twice, the ring twice
		"issued with a family":   {false, true, 7},
		"exchanged":              {true, false, 7},
		"exchanged for a family": {true, true, 8},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				fault := backendtest.NewFault(memory.New())
				text, _ := mustIssue(t, newManager(t, bare{fault}, fob.Config{}), fob.KeySpec{})
				m := newManager(t, bare{fault}, cfg)
				spec := fob.TokenSpec{TTL: 2 * time.Hour, Refreshable: c.refreshable}
				var issued fob.Issued
				var err error
				calls := onNth(fault, n, readOrWrite, backendtest.Unavailable())
				if c.exchange {
					issued, err = m.ExchangeKey(t.Context(), text, spec)
				} else {
					spec.Subject = fob.User("user-7")
					issued, err = m.IssueToken(t.Context(), spec)
				}
				fault.Inject(nil)
				if calls() < n {
					require.NoError(t, err)
					require.GreaterOrEqual(t, calls(), c.calls, "there are calls to fail")
					require.Equal(t, c.refreshable, !issued.Refresh.IsZero())
					mustVerify(t, m, issued.Access.Reveal())
					return
				}
				mustBeUnsure(t, err)
				require.ErrorIs(t, err, backend.ErrUnavailable, "call %d", n)
				require.Zero(t, issued)
			}
		})
	}
}

// TestWhatAKeyIsNotExchangedFor, and what it just is.
func TestWhatAKeyIsNotExchangedFor(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	text, _ := mustIssue(t, m, fob.KeySpec{TTL: 10 * time.Second})
	at := func(d time.Duration) time.Time { return clock.Now().Add(d) }
	for name, spec := range map[string]fob.TokenSpec{
		"the subject of another kind":               {Subject: fob.User("app-42")},
		"the kind is right, the subject is not":     {Subject: fob.App("app-43")},
		"a life of no length":                       {TTL: -1},
		"a token that begins when the key ends":     {NotBefore: at(10 * time.Second)},
		"a token that begins after the key's end":   {NotBefore: at(11 * time.Second)},
		"a token that ends before it begins":        {NotBefore: at(5 * time.Second), TTL: 5 * time.Second},
		"a token of more than any, also of a key's": {TTL: 2 * time.Hour},
	} {
		for _, spec.Refreshable = range []bool{false, true} {
			issued, err := m.ExchangeKey(t.Context(), text, spec)
			require.ErrorIs(t, err, fob.ErrInvalid, name)
			require.NotErrorIs(t, err, fob.ErrRejected, name)
			require.Zero(t, issued, name)
		}
	}
	for name, spec := range map[string]fob.TokenSpec{
		"its subject":       {Subject: fob.App("app-42")},
		"no subject":        {},
		"its last second":   {NotBefore: at(9 * time.Second)},
		"the last instants": {NotBefore: at(8*time.Second + time.Millisecond)},
	} {
		issued, err := m.ExchangeKey(t.Context(), text, spec)
		require.NoError(t, err, name)
		require.Equal(t, "app-42", issued.Token.Subject().Name, name)
		require.Equal(t, fob.SubjectApplication, issued.Token.Subject().Kind, name)
	}
}

// TestAProcessWhoseClockIsBeforeAllTokenKeys can seal nothing, which is nobody's fault who
// asks it to.
func TestAProcessWhoseClockIsBeforeAllTokenKeys(t *testing.T) {
	clock, behind, store := newClock(), newClock(), memory.New()
	m := newManager(t, store, clocked(tokenConfig(), clock))
	mustToken(t, m, fob.TokenSpec{})
	_, err := m.RotateTokenKey(t.Context())
	require.NoError(t, err)
	clock.Add(24 * time.Hour)
	_, err = m.RotateTokenKey(t.Context()) // the first is retired, and goes
	require.NoError(t, err)
	mustToken(t, m, fob.TokenSpec{})
	late := newManager(t, store, clocked(tokenConfig(), behind))
	issued, err := late.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
	mustBeUnsure(t, err)
	require.Zero(t, issued)
}

// TestNoTokenIsIssuedAtTheBeginningOfTime: a token without the time of its issue is none,
// and the first second of 1970 is how no time is written.
func TestNoTokenIsIssuedAtTheBeginningOfTime(t *testing.T) {
	clock := newClock()
	clock.set(time.UnixMilli(500))
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	issued, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
	require.ErrorIs(t, err, fob.ErrInvalid)
	require.Zero(t, issued)
	clock.Add(500 * time.Millisecond)
	mustVerify(t, m, mustToken(t, m, fob.TokenSpec{}).Access.Reveal())
}

// TestTokensThatAreOffAreNeitherExchangedForNorRevoked.
func TestTokensThatAreOffAreNeitherExchangedForNorRevoked(t *testing.T) {
	m := newManager(t, nil, fob.Config{})
	text, _ := mustIssue(t, m, fob.KeySpec{})
	issued, err := m.ExchangeKey(t.Context(), text, fob.TokenSpec{})
	require.ErrorIs(t, err, fob.ErrInvalid)
	require.Zero(t, issued)
	receipt, err := m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
	require.ErrorIs(t, err, fob.ErrInvalid)
	require.Zero(t, receipt)
	m = newManager(t, nil, tokenConfig())
	require.NoError(t, m.Close())
	_, err = m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
	require.ErrorIs(t, err, fob.ErrClosed)
}

// TestARevocationThatReturnsNilWasMade: whichever call of the store fails, whoever is not
// told of an error can rely on it, here and in a process that reads the store anew.
func TestARevocationThatReturnsNilWasMade(t *testing.T) {
	for name, revoke := range map[string]func(m *fob.Manager, i fob.Issued) (fob.Receipt, error){
		"a token": func(m *fob.Manager, i fob.Issued) (fob.Receipt, error) {
			return m.Revoke(t.Context(), i.Token.ID(), "leaked")
		},
		"a family": func(m *fob.Manager, i fob.Issued) (fob.Receipt, error) {
			return m.Revoke(t.Context(), i.Token.Session(), "leaked")
		},
		"all tokens": func(m *fob.Manager, _ fob.Issued) (fob.Receipt, error) {
			return m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "leaked")
		},
		"a subject": func(m *fob.Manager, _ fob.Issued) (fob.Receipt, error) {
			return m.Revoke(t.Context(), fob.User("user-7"), "leaked")
		},
	} {
		t.Run(name, func(t *testing.T) {
			failed := 0
			for n := 1; ; n++ {
				fault, seen := backendtest.NewFault(memory.New()), &observed{}
				cfg := tokenConfig()
				cfg.Observer, cfg.MaxStaleness = seen, 2*time.Second
				m := newManager(t, bare{fault}, cfg)
				issued := mustToken(t, m, fob.TokenSpec{Refreshable: true})
				access := issued.Access.Reveal()
				mustVerify(t, m, access)
				seen.take()
				calls := onNth(fault, n, readOrWrite, backendtest.Unavailable())
				receipt, err := revoke(m, issued)
				fault.Inject(nil)
				if err != nil {
					failed++
					require.ErrorIs(t, err, backend.ErrUnavailable, "call %d", n)
					require.Zero(t, receipt)
				} else {
					require.False(t, receipt.At.IsZero())
					require.False(t, receipt.Already)
					mustReject(t, m, access, fob.ErrRevoked)
					mustReject(t, newManager(t, bare{fault}, cfg), access, fob.ErrRevoked)
					for _, e := range seen.take() {
						require.Equal(t, fob.RevokeReason("leaked"), e.Reason)
						require.NoError(t, e.Err)
						failed += 1000 // that it was reported
					}
				}
				if calls() < n {
					require.NoError(t, err)
					require.GreaterOrEqual(t, failed, 1000+2, "it has a read and a write, and is reported")
					return
				}
				_, err = revoke(m, issued)
				require.NoError(t, err, "it can be called again")
				mustReject(t, m, access, fob.ErrRevoked)
			}
		})
	}
}

// TestAMarkOfAllTokensThatIsCorruptIsNotReplaced: nobody knows what it has ended.
func TestAMarkOfAllTokensThatIsCorruptIsNotReplaced(t *testing.T) {
	store := memory.New()
	m := newManager(t, bare{store}, tokenConfig())
	_, err := m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
	require.NoError(t, err)
	mark := mustList(t, store, 6)[0]
	mark.Body[len(mark.Body)-1] ^= 1
	_, err = store.Put(t.Context(), mark, backend.IfVersion(mark.Version))
	require.NoError(t, err)
	_, err = m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
	require.ErrorIs(t, err, fob.ErrCorrupt)
	_, err = m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("user-7")})
	require.ErrorIs(t, err, fob.ErrCorrupt)
	require.Equal(t, mark.Body, mustList(t, store, 6)[0].Body)
}

// TestARevocationThatLostARaceIsMadeAfterIt: what came between ends less, or the same.
func TestARevocationThatLostARaceIsMadeAfterIt(t *testing.T) {
	store := memory.New()
	fault := backendtest.NewFault(store)
	cfg := tokenConfig()
	cfg.MaxStaleness = time.Hour
	m, other := newManager(t, bare{fault}, cfg), newManager(t, bare{store}, tokenConfig())

	issued := mustToken(t, m, fob.TokenSpec{})
	mustVerify(t, m, issued.Access.Reveal()) // and remembered
	once(fault, callsOf(backendtest.OpPut), backendtest.Injection{Before: func() {
		_, err := other.Revoke(context.Background(), issued.Token.ID(), "by another")
		require.NoError(t, err)
	}})
	receipt, err := m.Revoke(t.Context(), issued.Token.ID(), "leaked")
	require.NoError(t, err)
	require.True(t, receipt.Already)
	mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)

	issued = mustToken(t, m, fob.TokenSpec{})
	mustVerify(t, m, issued.Access.Reveal())
	once(fault, callsOf(backendtest.OpPut), backendtest.Injection{Before: func() {
		_, err := other.Revoke(context.Background(), fob.AllTokens(time.Now().Add(-time.Hour)), "old ones")
		require.NoError(t, err)
	}})
	_, err = m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "all")
	require.NoError(t, err)
	for _, m := range []*fob.Manager{m, other} {
		mustReject(t, m, issued.Access.Reveal(), fob.ErrRevoked)
	}
}

// TestATokenThatSomebodyElseHasRevokedEndsHereToo, once this process says so.
func TestATokenThatSomebodyElseHasRevokedEndsHereToo(t *testing.T) {
	store := memory.New()
	cfg := tokenConfig()
	cfg.MaxStaleness = time.Hour
	here, there := newManager(t, bare{store}, cfg), newManager(t, bare{store}, tokenConfig())
	for name, id := range map[string]func(*fob.Token) fob.ID{"a token": (*fob.Token).ID, "a family": (*fob.Token).Session} {
		issued := mustToken(t, here, fob.TokenSpec{Refreshable: true})
		mustVerify(t, here, issued.Access.Reveal())
		_, err := there.Revoke(t.Context(), id(issued.Token), "")
		require.NoError(t, err)
		mustVerify(t, here, issued.Access.Reveal()) // as MaxStaleness allows
		receipt, err := here.Revoke(t.Context(), id(issued.Token), "")
		require.NoError(t, err)
		require.True(t, receipt.Already, name)
		mustReject(t, here, issued.Access.Reveal(), fob.ErrRevoked)
	}
}

// TestIssuedBeforeAnInstantIsTheWholeSecondOfIt, however little of it had passed.
func TestIssuedBeforeAnInstantIsTheWholeSecondOfIt(t *testing.T) {
	for into, ended := range map[time.Duration]bool{0: false, 1: true, time.Millisecond: true, time.Second: true} {
		clock := newClock()
		m := newManager(t, nil, clocked(tokenConfig(), clock))
		issued := mustToken(t, m, fob.TokenSpec{})
		clock.Add(time.Minute)
		_, err := m.Revoke(t.Context(), fob.AllTokens(issued.Token.IssuedAt().Add(into)), "")
		require.NoError(t, err)
		_, err = m.Verify(t.Context(), issued.Access.Reveal())
		require.Equal(t, ended, errors.Is(err, fob.ErrRevoked), "%v into it", into)
		require.Equal(t, ended, err != nil)
	}
}

// TestHowOldTheIDOfATokenMayBe that has left no record: as old as a token that is accepted
// somewhere, with the clocks of its issuer and its verifier as far apart as is allowed.
func TestHowOldTheIDOfATokenMayBe(t *testing.T) {
	const leeway, skew = time.Minute, 12 * time.Hour
	drawn := newClock().Now().Add(7 * time.Millisecond)
	for name, c := range map[string]struct {
		at   time.Time
		want error
	}{
		"the oldest":       {drawn.Add(time.Hour + leeway + time.Second + skew), nil},
		"older":            {drawn.Add(time.Hour + leeway + time.Second + skew + time.Millisecond), fob.ErrNotFound},
		"from the future":  {drawn.Add(-skew), nil},
		"from a later one": {drawn.Add(-skew - time.Millisecond), fob.ErrNotFound},
	} {
		clock := newClock()
		clock.set(drawn)
		m := newManager(t, nil, clocked(tokenConfig(func(cfg *fob.TokenConfig) { cfg.Leeway = leeway }), clock))
		id := mustToken(t, m, fob.TokenSpec{}).Token.ID()
		clock.set(c.at)
		_, err := m.Revoke(t.Context(), id, "")
		require.ErrorIs(t, err, c.want, name)
	}
}
