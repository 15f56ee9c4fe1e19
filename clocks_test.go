package fob_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// clockAt is a clock that is ahead of another one by d.
func clockAt(clock *testClock, d time.Duration) func() time.Time {
	return func() time.Time { return clock.Now().Add(d) }
}

// fleetOn makes a Manager over store whose clock is ahead of clock by d.
func fleetOn(t testing.TB, store backend.Store, clock *testClock, d time.Duration, change ...func(*fob.TokenConfig)) *fob.Manager {
	t.Helper()
	cfg := tokenConfig(change...)
	cfg.Clock = clockAt(clock, d)
	return newManager(t, store, cfg)
}

func long(c *fob.TokenConfig) { c.MaxTTL = 24 * time.Hour }

// ahead is by how much the clock of whoever purges is ahead; the clock of whoever
// revokes is as much behind.
var aheads = []time.Duration{0, 5 * time.Minute, 62 * time.Minute, 5 * time.Hour, 6 * time.Hour}

// A revocation of a token, of a session or of what hangs from one is forgotten by nobody
// as long as somebody could accept what it ends.
func TestAMarkOutlivesWhatItEndsWhateverTheClocks(t *testing.T) {
	for _, ahead := range aheads {
		for name, target := range map[string]func(fob.Issued) fob.ID{
			"token": func(i fob.Issued) fob.ID { return i.Token.ID() }, "family": func(i fob.Issued) fob.ID { return i.Token.Session() },
		} {
			t.Run(fmt.Sprint(name, ahead), func(t *testing.T) {
				clock, store := newClock(), memory.New()
				defer store.Close()
				m := fleetOn(t, store, clock, 0)
				late := fleetOn(t, store, clock, -ahead)
				early := fleetOn(t, store, clock, ahead)
				issued := mustToken(t, m, fob.TokenSpec{Refreshable: true, TTL: time.Hour})
				_, err := late.Revoke(t.Context(), target(issued), "leaked")
				require.NoError(t, err)
				for range 13 {
					_, err = early.Sweep(t.Context())
					require.NoError(t, err)
					for _, d := range []time.Duration{0, -ahead, -2 * ahead} {
						other := fleetOn(t, store, clock, d, func(c *fob.TokenConfig) { c.Leeway = 5 * time.Minute })
						_, err := other.Fresh().Verify(t.Context(), issued.Access.Reveal())
						require.ErrorIs(t, err, fob.ErrRejected, "a verifier that is ahead by %v", d)
						_, err = other.Revoke(t.Context(), target(issued), "again")
						require.True(t, err == nil || errors.Is(err, fob.ErrNotFound))
					}
					clock.Add(5 * time.Minute)
				}
			})
		}
	}
}

// But no longer than is needed: marks are in every process's memory.
func TestAMarkIsForgottenADayAfterItsToken(t *testing.T) {
	// Without a feed, which would tell of the mark while a hand moves the clock by a day.
	clock, store := newClock(), unfed{memory.New()}
	defer store.Close()
	m := fleetOn(t, store, clock, 0)
	_, err := m.Revoke(t.Context(), mustToken(t, m, fob.TokenSpec{}).Token.ID(), "")
	require.NoError(t, err)
	clock.Add(25*time.Hour - time.Second)
	swept, err := m.Sweep(t.Context())
	require.NoError(t, err)
	require.Zero(t, swept.Purged)
	clock.Add(2 * time.Second)
	swept, err = m.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, swept.Purged)
}

// What the feed has told of is read, and that may take its time: of a store that is slow, or
// since the machine stood still meanwhile. That is no difference between two clocks.
func TestAReadThatTakesLongIsNoDifferenceOfClocks(t *testing.T) {
	clock, store := newClock(), memory.New()
	defer store.Close()
	fault := backendtest.NewFault(store)
	m, other := fleetOn(t, fault, clock, 0), fleetOn(t, store, clock, 0)
	issued := mustToken(t, m, fob.TokenSpec{})
	read := make(chan struct{})
	once(fault, callsOf(backendtest.OpGet, fob.RecordMark), backendtest.Injection{After: func() {
		clock.Add(25 * time.Hour)
		close(read)
	}})
	_, err := other.Revoke(t.Context(), issued.Token.ID(), "")
	require.NoError(t, err)
	<-read
	await.Until(t, "that the feed goes on", func() bool { return m.Health().FeedAge < time.Hour })
	require.Zero(t, m.Health().Skew)
	_, err = m.Sweep(t.Context())
	require.NoError(t, err)
}

// In a rolling deploy one process allows longer tokens than another.
func TestAMarkLastsForTheLongestTokensOfTheFleet(t *testing.T) {
	clock, store := newClock(), memory.New()
	defer store.Close()
	generous, strict := fleetOn(t, store, clock, 0, long), fleetOn(t, store, clock, 0)
	issued := mustToken(t, generous, fob.TokenSpec{TTL: 24 * time.Hour})
	text := issued.Access.Reveal()
	mustVerify(t, generous, text)
	clock.Add(20 * time.Hour)
	mustVerify(t, generous, text)
	receipt, err := strict.Revoke(t.Context(), issued.Token.ID(), "leaked")
	require.NoError(t, err, "it is a token that others accept")
	require.False(t, receipt.Already)
	for range 4 {
		clock.Add(time.Hour - time.Second)
		_, err = strict.Sweep(t.Context())
		require.NoError(t, err)
		_, err := generous.Fresh().Verify(t.Context(), text)
		require.ErrorIs(t, err, fob.ErrRevoked)
		receipt, err = strict.Revoke(t.Context(), issued.Token.ID(), "leaked")
		require.NoError(t, err)
		require.True(t, receipt.Already)
	}
}

// Nobody gives a token a longer life than the others know of.
func TestALongTokenIsIssuedOnlyOnceTheFleetKnows(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := fleetOn(t, fault, newClock(), 0, long)
	mustToken(t, m, fob.TokenSpec{TTL: time.Minute})
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if c.Op == backendtest.OpPut {
			return backendtest.Unavailable()
		}
		return backendtest.Injection{}
	})
	_, err := m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("a"), TTL: 2 * time.Hour})
	require.ErrorIs(t, err, backend.ErrUnavailable)
	_, err = m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("a"), TTL: time.Hour})
	require.NoError(t, err, "an hour is what everybody reckons with")
	fault.Inject(nil)
	mustToken(t, m, fob.TokenSpec{TTL: 2 * time.Hour})
	puts := fault.Calls(backendtest.OpPut)
	mustToken(t, m, fob.TokenSpec{TTL: 3 * time.Hour})
	require.Equal(t, puts, fault.Calls(backendtest.OpPut), "it is written once")
	bound, err := m.FleetStaleness(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, bound, "that is about something else")
}

// An idempotent answer that is purged too early makes a second key; a key that expires
// later by another clock is still needed.
func TestWhatOthersStillNeedIsNotPurged(t *testing.T) {
	for _, ahead := range aheads {
		clock, store := newClock(), memory.New()
		defer store.Close()
		cfg := func(d time.Duration) fob.Config {
			return fob.Config{Clock: clockAt(clock, d), Retention: time.Millisecond, IdempotencyWindow: time.Hour}
		}
		m, early := newManager(t, store, cfg(-ahead)), newManager(t, store, cfg(ahead))
		spec := fob.KeySpec{Subject: fob.App("a"), IdempotencyKey: "0123456789abcdef"}
		text, _ := mustIssue(t, m, spec)
		expiring, _ := mustIssue(t, m, fob.KeySpec{TTL: time.Hour})
		clock.Add(time.Hour - time.Second)
		_, err := early.Sweep(t.Context())
		require.NoError(t, err)
		again, _ := mustIssue(t, m, spec)
		require.Equal(t, text, again, "the same key for a process that is %v behind", 2*ahead)
		_, err = m.Fresh().Verify(t.Context(), expiring)
		require.NoError(t, err)
	}
}

// "All so far" is decided by no clock.
func TestRevokeTokensEndsAllSoFarWhateverTheClocks(t *testing.T) {
	for _, ahead := range []time.Duration{0, -50 * time.Millisecond, -time.Hour, 50 * time.Millisecond, 10 * time.Minute} {
		t.Run(ahead.String(), func(t *testing.T) {
			clock, store := newClock(), memory.New()
			defer store.Close()
			clock.Add(500 * time.Millisecond)
			issuer, revoker := fleetOn(t, store, clock, 0), fleetOn(t, store, clock, ahead)
			old := mustToken(t, issuer, fob.TokenSpec{Refreshable: true})
			text, _ := mustIssue(t, issuer, fob.KeySpec{})
			derived, err := issuer.ExchangeKey(t.Context(), text, fob.TokenSpec{Refreshable: true})
			require.NoError(t, err)
			receipt, err := revoker.Revoke(t.Context(), fob.AllTokens(time.Time{}), "leaked")
			require.NoError(t, err)
			require.False(t, receipt.Already)
			for _, issued := range []fob.Issued{old, derived} {
				_, err = issuer.Fresh().Verify(t.Context(), issued.Access.Reveal())
				require.ErrorIs(t, err, fob.ErrRevoked)
				mustReject(t, revoker, issued.Access.Reveal(), fob.ErrRevoked)
				_, err = issuer.Refresh(t.Context(), issued.Refresh.Reveal())
				require.ErrorIs(t, err, fob.ErrRevoked)
			}
			// Others issue at once, and what they issue is good, and goes on.
			for _, m := range []*fob.Manager{issuer, revoker} {
				young := mustToken(t, m, fob.TokenSpec{Refreshable: true})
				_, err = m.Fresh().Verify(t.Context(), young.Access.Reveal())
				require.NoError(t, err)
				next, err := m.Refresh(t.Context(), young.Refresh.Reveal())
				require.NoError(t, err)
				_, err = m.Fresh().Verify(t.Context(), next.Access.Reveal())
				require.NoError(t, err)
			}
		})
	}
}

// The two ways to end tokens of an issuer do not take each other back.
func TestRevokeTokensBeforeAnInstantAndAllSoFar(t *testing.T) {
	clock, store := newClock(), memory.New()
	defer store.Close()
	m := fleetOn(t, store, clock, 0)
	first := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	clock.Add(10 * time.Second)
	cut := clock.Now()
	second := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	revoke := func(before time.Time) {
		_, err := m.Revoke(t.Context(), fob.AllTokens(before), "")
		require.NoError(t, err)
	}
	revoke(cut)
	mustReject(t, m, first, fob.ErrRevoked)
	mustVerify(t, m, second)
	// Issued after it, by a process whose clock is a minute late: "before" by its time,
	// after the call by everybody's.
	behind := mustToken(t, fleetOn(t, store, clock, -time.Minute), fob.TokenSpec{}).Access.Reveal()
	mustVerify(t, m, behind)
	revoke(cut) // now it was issued before
	mustReject(t, m, behind, fob.ErrRevoked)
	mustVerify(t, m, second)
	revoke(time.Time{})
	mustReject(t, m, second, fob.ErrRevoked)
	third := mustToken(t, m, fob.TokenSpec{}).Access.Reveal()
	mustVerify(t, m, third)
	revoke(cut) // an older one again
	mustVerify(t, m, third)
	mustReject(t, m, second, fob.ErrRevoked)
	other := fleetOn(t, store, clock, 0) // reads what stands in the store
	mustVerify(t, other, third)
	for _, text := range []string{first, second, behind} {
		mustReject(t, other, text, fob.ErrRevoked)
	}
}

func TestLeewayIsWhatAFleetNeeds(t *testing.T) {
	clock, store := newClock(), memory.New()
	defer store.Close()
	clock.Add(100 * time.Millisecond)
	issued := mustToken(t, fleetOn(t, store, clock, 0, protocol(fob.V4Public)), fob.TokenSpec{TTL: time.Minute})
	text := issued.Access.Reveal()
	accepts := func(d time.Duration, leeway time.Duration) error {
		m := fleetOn(t, store, clock, d, func(c *fob.TokenConfig) { c.Leeway = leeway })
		_, err := m.Verify(t.Context(), text)
		keys, err2 := m.TokenKeys(t.Context())
		require.NoError(t, err2)
		v, err2 := fob.NewTokenVerifier(fob.PublicTokenKeys{keys[0].Public}, fob.TokenVerifierConfig{
			Issuer: "acme", Audiences: []string{"api"}, Leeway: leeway, Clock: clockAt(clock, d),
		})
		require.NoError(t, err2)
		_, err2 = v.Verify(t.Context(), text)
		require.Equal(t, err, err2, "both kinds of verifier say the same")
		return err
	}
	const begins = -100 * time.Millisecond // the claims carry whole seconds
	require.NoError(t, accepts(-200*time.Millisecond, 0))
	require.NoError(t, accepts(begins-5*time.Second, 0))
	require.ErrorIs(t, accepts(begins-5*time.Second-time.Millisecond, 0), fob.ErrNotYetValid)
	require.ErrorIs(t, accepts(begins-time.Millisecond, -1), fob.ErrNotYetValid)
	require.NoError(t, accepts(begins-time.Minute, time.Minute))
	// No default makes a token live longer than it says.
	require.NoError(t, accepts(begins+time.Minute-time.Millisecond, 0))
	require.ErrorIs(t, accepts(begins+time.Minute, 0), fob.ErrExpired)
	require.NoError(t, accepts(begins+time.Minute+time.Second, 2*time.Second))
	require.ErrorIs(t, accepts(begins+time.Minute, -1), fob.ErrExpired)
}

// Other issuers write fractions of a second.
func TestAFractionalIatIsTheInstantThatItIs(t *testing.T) {
	s := newSealed(t)
	payload := strings.ReplaceAll(soundClaims, `09:00:00Z`, `09:00:00.75Z`)
	text := s.seal(t, strings.ReplaceAll(payload, `09:15:00Z`, `09:15:00.75Z`))
	s.clock.Add(750*time.Millisecond - 2*time.Second) // the leeway is 2 s
	cred, err := s.Verify(t.Context(), text)
	require.NoError(t, err)
	require.Equal(t, 750*int(time.Millisecond), cred.IssuedAt().Nanosecond())
	s.clock.Add(-time.Millisecond)
	_, err = s.Verify(t.Context(), text)
	require.ErrorIs(t, err, fob.ErrNotYetValid)
	s.clock.Add(15*time.Minute + 4*time.Second)
	_, err = s.Verify(t.Context(), text)
	require.NoError(t, err, "its end too")
	s.clock.Add(time.Millisecond)
	_, err = s.Verify(t.Context(), text)
	require.ErrorIs(t, err, fob.ErrExpired)
}

// engineClock is a store with a clock of its own.
type engineClock struct {
	backend.Store
	now func() (time.Time, error)
}

func (e engineClock) Unwrap() backend.Store                  { return e.Store }
func (e engineClock) Now(context.Context) (time.Time, error) { return e.now() }

func TestAWrongClockIsSeenAndPurgesNothing(t *testing.T) {
	clock, inner := newClock(), memory.New()
	defer inner.Close()
	by := time.Duration(0)
	var fails error
	store := engineClock{inner, func() (time.Time, error) { return clock.Now().Add(by), fails }}
	m := newManager(t, store, fob.Config{Clock: clock.Now, Retention: time.Millisecond})
	_, key := mustIssue(t, m, fob.KeySpec{})
	_, err := m.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	clock.Add(time.Hour)
	for _, d := range []time.Duration{13 * time.Hour, -13 * time.Hour} {
		by = d
		swept, err := m.Sweep(t.Context())
		require.ErrorIs(t, err, fob.ErrSkew)
		require.Zero(t, swept.Purged)
		require.Equal(t, d, m.Health().Skew)
		clock.Add(2 * time.Hour) // it was seen long ago
		require.Zero(t, m.Health().Skew)
	}
	by, fails = 0, errors.New("no clock")
	_, err = m.Sweep(t.Context())
	require.ErrorIs(t, err, fails)
	by, fails = time.Hour, nil
	swept, err := m.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, swept.Purged)
	require.Equal(t, time.Hour, m.Health().Skew)
	fails = errors.ErrUnsupported // a wrapper around an engine without one
	_, err = m.Sweep(t.Context())
	require.NoError(t, err)
}

// Where the store has no clock, what others write tells.
func TestASkewIsSeenInWhatOthersRevoke(t *testing.T) {
	for _, d := range []time.Duration{time.Hour, -time.Hour, 13 * time.Hour, -13 * time.Hour, 0} {
		t.Run(d.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := memory.New()
				defer store.Close()
				m := newManager(t, store, tokenConfig())
				defer m.Close()
				cfg := tokenConfig()
				cfg.Clock = func() time.Time { return time.Now().Add(d) }
				other := newManager(t, store, cfg)
				defer other.Close()
				pass(time.Second)
				_, err := other.Revoke(t.Context(), mustToken(t, other, fob.TokenSpec{}).Token.ID(), "")
				require.NoError(t, err)
				pass(time.Second)
				require.Equal(t, d, m.Health().Skew)
				_, err = m.Sweep(t.Context())
				require.Equal(t, d.Abs() > 12*time.Hour, errors.Is(err, fob.ErrSkew))
			})
		})
	}
}

// Steps of a clock, however many and in whatever direction, never make an answer good
// that nobody knows the age of.
func TestAClockThatStepsForEver(t *testing.T) {
	inner := memory.New()
	defer inner.Close()
	fault := backendtest.NewFault(inner)
	clock := newClock()
	m := newManager(t, bare{fault}, fob.Config{Clock: clock.Now, MaxStaleness: 24 * time.Hour, StaleIfError: 24 * time.Hour})
	text, key := mustIssue(t, m, fob.KeySpec{})
	random := rand.New(rand.NewPCG(30, 1))
	steps := []time.Duration{-time.Hour, -time.Minute, 100 * 24 * time.Hour, -100 * 24 * time.Hour, time.Hour, -73 * time.Hour}
	for i := range 60_000 {
		step := steps[random.IntN(len(steps))]
		if i < 20_000 {
			step = -time.Minute // back, and back again
			if i%2 == 1 {
				step = 30 * time.Second
			}
		}
		mustVerify(t, m, text)
		clock.Add(step)
		before := gets(fault)
		mustVerify(t, m, text)
		if step < 0 {
			require.Greater(t, gets(fault), before, "step %d, %v: nobody knows how old the answer is", i, step)
		}
		before = gets(fault)
		mustVerify(t, m, text)
		require.Equal(t, before, gets(fault), "step %d: remembered until the next", i)
	}
	for _, year := range []int{100, 500, -1000, 9000, 500_000, -500_000} { // nothing is remembered, and it ends
		clock.set(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
		mustVerify(t, m, text)
	}
	clock.set(newClock().Now())
	mustVerify(t, m, text)
	_, err := m.Revoke(t.Context(), key.ID(), "")
	require.NoError(t, err)
	mustReject(t, m, text, fob.ErrRevoked)
}

// Every time and every duration is checked where it comes in: none wraps around.
func TestTimesBeyondTheCalendar(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, clocked(tokenConfig(), clock))
	text, key := mustIssue(t, m, fob.KeySpec{})
	last := time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)
	beyond := []time.Time{
		last.Add(time.Millisecond), time.Date(300_000_000, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(math.MaxInt64-62135596801, 0),
		time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC), time.Date(-300_000_000, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(math.MinInt64, 0),
	}
	for _, at := range beyond {
		if at.IsZero() {
			continue
		}
		name := at.Format(time.RFC3339)
		_, _, err := m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a"), NotBefore: at})
		require.ErrorIs(t, err, fob.ErrInvalid, name)
		_, _, err = m.IssueKey(t.Context(), fob.KeySpec{Subject: fob.App("a"), ExpiresAt: at})
		require.ErrorIs(t, err, fob.ErrInvalid, name)
		_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{NotBefore: &at})
		require.ErrorIs(t, err, fob.ErrInvalid, name)
		_, err = m.UpdateKey(t.Context(), key.ID(), fob.KeyUpdate{ExpiresAt: &at})
		require.ErrorIs(t, err, fob.ErrInvalid, name)
		_, err = m.IssueToken(t.Context(), fob.TokenSpec{Subject: fob.User("a"), NotBefore: at})
		require.ErrorIs(t, err, fob.ErrInvalid, name)
		_, err = m.Revoke(t.Context(), fob.AllTokens(at), "")
		require.ErrorIs(t, err, fob.ErrInvalid, name)
		_, err = m.List(t.Context(), fob.Query{UnusedSince: at})
		require.ErrorIs(t, err, fob.ErrInvalid, name)
		_, err = m.ExportRevocations(t.Context(), &strings.Builder{}, at)
		require.ErrorIs(t, err, fob.ErrInvalid, name)
	}
	mustVerify(t, m, text)

	// The last instant there is, and the longest durations.
	pending, far := mustIssue(t, m, fob.KeySpec{NotBefore: last})
	require.Equal(t, last, far.NotBefore())
	mustReject(t, m, pending, fob.ErrNotYetValid)
	for _, spec := range []fob.KeySpec{{TTL: math.MaxInt64}, {ExpiresAt: last}} {
		lasting, k := mustIssue(t, m, spec)
		mustVerify(t, m, lasting)
		require.Equal(t, fob.StatusActive, k.StatusAt(clock.Now()))
		require.Equal(t, fob.StatusExpired, k.StatusAt(time.Unix(math.MaxInt64-62135596801, 0)), "an instant beyond all of them")
		secret, next, err := m.RotateKey(t.Context(), k.ID(), fob.Rotation{Overlap: math.MaxInt64, TTL: math.MaxInt64})
		require.NoError(t, err)
		mustVerify(t, m, secret.Reveal())
		mustVerify(t, m, lasting)
		require.True(t, next.ExpiresAt().After(clock.Now()))
	}
	_, err := m.List(t.Context(), fob.Query{ExpiringWithin: math.MaxInt64})
	require.NoError(t, err)
	const century = 100 * 365 * 24 * time.Hour
	patient, err := fob.New(memory.New(), fob.Config{Retention: century, IdempotencyWindow: century, UsageInterval: century / 10, SweepInterval: math.MaxInt64})
	require.NoError(t, err)
	defer patient.Close()
	lasting, _ := mustIssue(t, patient, fob.KeySpec{TTL: math.MaxInt64, IdempotencyKey: "0123456789abcdef"})
	mustVerify(t, patient, lasting)
	for _, negative := range []fob.Config{{Retention: -1}, {IdempotencyWindow: -1}, {UsageInterval: -1}, {MaxStaleness: -1}, {StaleIfError: -1},
		{Retention: math.MaxInt64}, {IdempotencyWindow: math.MaxInt64}, {UsageInterval: math.MaxInt64}, {MaxStaleness: math.MaxInt64}, {StaleIfError: math.MaxInt64}} {
		_, err := fob.New(memory.New(), negative)
		require.ErrorIs(t, err, fob.ErrInvalid)
	}
}

// Keys of tokens that were fetched before a step are of an unknown age, and are fetched
// again; a source that fails is no reason to go on with them.
func TestKeysThatWereFetchedBeforeAStepOfTheClock(t *testing.T) {
	clock := newClock()
	issuer := newManager(t, nil, clocked(tokenConfig(protocol(fob.V4Public)), clock))
	text := mustToken(t, issuer, fob.TokenSpec{}).Access.Reveal()
	calls, fails := 0, error(nil)
	v, err := fob.NewTokenVerifier(sourceFunc(func(ctx context.Context) ([]fob.TokenKey, error) {
		calls++
		if fails != nil {
			return nil, fails
		}
		return issuer.TokenKeys(ctx)
	}), fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}, Clock: clock.Now, Leeway: 5 * time.Minute})
	require.NoError(t, err)
	verify := func() error { _, err := v.Verify(t.Context(), text); return err }
	require.NoError(t, verify())
	require.NoError(t, verify())
	require.Equal(t, 1, calls)
	clock.Add(-time.Minute)
	require.NoError(t, verify())
	require.Equal(t, 2, calls, "nobody knows how old they are")
	fails = errors.New("down")
	clock.Add(10 * time.Second)
	require.NoError(t, verify(), "known and young")
	clock.Add(-time.Minute)
	mustBeUnsure(t, verify())
}

// sourceFunc is a function as a source of token keys.
type sourceFunc func(context.Context) ([]fob.TokenKey, error)

func (f sourceFunc) TokenKeys(ctx context.Context) ([]fob.TokenKey, error) { return f(ctx) }

// A source that has no public key has failed: it is one of an issuer whose keys are
// secrets, or not what it is taken for.
func TestASourceWithoutAPublicKey(t *testing.T) {
	clock := newClock()
	issuer := newManager(t, nil, clocked(tokenConfig(protocol(fob.V4Public)), clock))
	secrets := newManager(t, nil, clocked(tokenConfig(), clock))
	text := mustToken(t, issuer, fob.TokenSpec{TTL: time.Hour}).Access.Reveal()
	for name, none := range map[string]sourceFunc{
		"nothing": func(context.Context) ([]fob.TokenKey, error) { return nil, nil },
		"empty":   func(context.Context) ([]fob.TokenKey, error) { return []fob.TokenKey{}, nil },
		"secrets": secrets.TokenKeys,
	} {
		source := issuer.TokenKeys
		v, err := fob.NewTokenVerifier(sourceFunc(func(ctx context.Context) ([]fob.TokenKey, error) { return source(ctx) }),
			fob.TokenVerifierConfig{Issuer: "acme", Audiences: []string{"api"}, Clock: clock.Now})
		require.NoError(t, err)
		source = none
		_, err = v.Verify(t.Context(), text)
		mustBeUnsure(t, err)
		source = issuer.TokenKeys
		clock.Add(2 * time.Second) // it is asked once a second
		_, err = v.Verify(t.Context(), text)
		require.NoError(t, err, name)
		source = none
		clock.Add(time.Minute)
		_, err = v.Verify(t.Context(), text)
		require.NoError(t, err, "%s: what is known goes on", name)
	}
}

// Records of the time before there were epochs of issuers, and tags of refresh secrets,
// are read as what they said.
func TestRecordsFromBefore(t *testing.T) {
	clock, store := newClock(), memory.New()
	defer store.Close()
	m := fleetOn(t, store, clock, 0)
	old := mustToken(t, m, fob.TokenSpec{Refreshable: true})
	clock.Add(time.Minute)
	fob.PutIssuerMark(t, m, store, fob.MarkFields{Before: uint64(clock.Now().UnixMilli())}) // as before there were epochs of issuers
	fob.MakeOldFamily(t, m, store, old.Token.Session())
	other := fleetOn(t, store, clock, 0)
	mustReject(t, other, old.Access.Reveal(), fob.ErrRevoked)
	young := mustToken(t, other, fob.TokenSpec{}).Access.Reveal()
	mustVerify(t, other, young)
	_, err := other.Refresh(t.Context(), old.Refresh.Reveal())
	require.ErrorIs(t, err, fob.ErrRevoked, "log in again")
	_, err = other.Revoke(t.Context(), old.Token.Session(), "")
	require.NoError(t, err)
	_, err = other.Revoke(t.Context(), fob.AllTokens(time.Time{}), "")
	require.NoError(t, err)
	mustReject(t, other, young, fob.ErrRevoked)
	mustVerify(t, other, mustToken(t, other, fob.TokenSpec{}).Access.Reveal())
}
