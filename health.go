package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/record"
)

// Health is the state of a Manager and of its store's feed, for a status page or a probe.
// A Manager whose feed is lost still verifies, and no less safely, because it reads the
// store more often. So a lost feed is a reason to look, not a reason to stop serving.
type Health struct {
	// Following reports that the feed is connected, and has proved within MaxStaleness
	// that it has reported every change.
	Following bool
	// FeedAge is how long ago the feed last proved that; negative if it never has, or if
	// the store has no feed. A feed that works proves it about twice a second, or oftener.
	FeedAge time.Duration
	// Err is why the feed was lost, and LostAt when. They are nil and zero while the feed
	// is followed.
	Err    error
	LostAt time.Time
	// Failures is how many tries to follow it again have failed since.
	Failures int
	// CatchingUp reports that the revocations in the store are still being read into memory,
	// after the start or after the feed has begun anew. Until that is done, a verification
	// that the cache cannot answer reads from the store what may revoke the credential: it
	// is as right as ever, but slower. Revocations is how many are in memory.
	CatchingUp  bool
	Revocations int
	// Staleness is how old an answer given now may be: MaxStaleness, or at most 2 s until
	// the other processes know that this one allows more (see [Manager.FleetStaleness]).
	Staleness time.Duration
	// Skew is the difference to another clock: positive if the other clock is ahead,
	// negative if it is behind. It is measured against the clock of the store, if there is
	// one and it was read in the last hour. Otherwise it is the largest difference to a
	// process that revoked something in that hour. Zero means that none was seen. Beyond
	// 12 hours this Manager purges nothing.
	Skew time.Duration
	// EventsLost is how many events the Observer has not got, or not every one of several
	// ([Observers]), since New, because it panicked; EventErr is why the last one was lost.
	EventsLost uint64
	EventErr   error
	// Problems are the faults that last until somebody mends them: a secret in Config that
	// is not the one in use (ErrSecret), a clock that is wrong by more than 12
	// hours, unreadable records whose contents are needed and not in memory
	// (ErrCorrupt). A verification that needs one of these fails with an error that is no
	// rejection; everything else goes on. See [Manager.Check].
	Problems []error
}

// Health returns the state of the Manager. It reads nothing from the store.
func (m *Manager) Health() Health {
	now := m.engine.Now()
	feed := m.health.State()
	revocations, _, known := m.marks.Known()
	h := Health{
		Following: feed.Following && m.engine.Live(now), FeedAge: now.FeedAge(), Err: feed.Err, LostAt: feed.LostAt, Failures: feed.Failures,
		CatchingUp: m.marks.Follows && !known, Revocations: revocations, Staleness: m.cfg.MaxStaleness, Skew: m.skew.Get(now), Problems: m.problems.List(),
	}
	h.EventsLost, h.EventErr = m.events.State()
	if !m.fleet.Joined() {
		h.Staleness = min(h.Staleness, fleet.DefaultStaleness)
	}
	return h
}

// noticeSilence counts the feed as lost if it has not ended but has long proved nothing.
func (m *Manager) noticeSilence() {
	if err := m.health.Silent(m.clock.Now(), m.cfg.MaxStaleness); err != nil {
		m.report(Event{Type: EventFeedLost, Err: err})
	}
}

// problem notes a fault under a name, or with a nil error that there is none. A fault
// that is new is also reported as an event.
func (m *Manager) problem(name string, err error) {
	if m.problems.Set(name, err) {
		m.report(Event{Type: EventUpkeepFailed, Err: err})
	}
}

// recordProblem is problem for a record that cannot be read, or that can be read again.
func (m *Manager) recordProblem(id record.ID, err error) {
	if m.problems.SetRecord(id, err) {
		m.report(Event{Type: EventUpkeepFailed, Err: err})
	}
}

// checkSkew compares the clock with that of the store, if there is one. Its error is
// ErrSkew if a difference was seen that is more than clock.MaxSkew; that is a problem of
// Health as long as it lasts.
func (m *Manager) checkSkew(ctx context.Context) (err error) {
	if theirs, ok := backend.As[backend.Clock](m.store); ok {
		err := m.skew.Compare(ctx, &m.clock, theirs.Now)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return errs.OfStore("fob: read the store's clock", err)
		}
	}
	defer func() { m.problem("clock", err) }()
	if by := m.skew.Get(m.clock.Now()); by.Abs() > clock.MaxSkew {
		return fmt.Errorf("%w: another clock differs by %v (negative: it is behind), at most %v are allowed", errs.ErrSkew, by, clock.MaxSkew)
	}
	return nil
}

// Check reports whether the Manager can work as it is configured. Call it at the start of
// a process: [New] does not call the store, so that a process can start while the store
// is down. Check reads the store and compares every secret of Config with its check value
// there (ErrSecret if a pepper, ImportedKeys.Digest or the SealKey has changed). It tells the other processes how stale this one's answers may be (see
// [Manager.FleetStaleness]), compares the clock with that of the store if there is one
// ([Reason] says "skew"), and looks whether the feed was lost. Its error joins everything that is
// wrong, including Health.Problems; nil means that nothing is. A secret that was not used
// yet has no check value and is taken for right.
//
// Check may be called at any time, for example by a readiness probe. It costs one read
// for each secret, one for the token keys, one for the fleet's record, and one of the
// store's clock if there is one.
func (m *Manager) Check(ctx context.Context) error {
	if m.life.Closed() {
		return ErrClosed
	}
	wrongs := m.peppers.Check(ctx) // a wrong secret is among the problems below
	if m.tokens != nil && m.tokens.Stored() {
		if err := m.tokens.Check(ctx); err != nil && errs.IsOutage(err) {
			wrongs = append(wrongs, err)
		} else {
			m.problem(ringName, err)
		}
	}
	if _, err := m.fleet.Bounds(ctx); err != nil {
		wrongs = append(wrongs, err)
	} else if !m.fleet.Joined() {
		if err := m.fleet.Join(ctx); err != nil {
			wrongs = append(wrongs, fmt.Errorf("join the fleet: %w", err))
		}
	}
	if err := m.checkSkew(ctx); err != nil && !errors.Is(err, errs.ErrSkew) {
		wrongs = append(wrongs, err)
	}
	h := m.Health()
	wrongs = append(wrongs, h.Problems...)
	if h.Err != nil {
		wrongs = append(wrongs, h.Err)
	}
	if len(wrongs) == 0 {
		return nil
	}
	return fmt.Errorf("fob: check: %w", errors.Join(wrongs...))
}

// ringName names the token keys among the problems.
const ringName = "token keys"

// CacheStats counts what the verification cache did since New.
type CacheStats struct {
	// Keys and Tokens are the caches of credentials that were found. Absent is the cache
	// of texts that were refused.
	Keys, Tokens, Absent cache.Stats
	// NegativeHits is how many verifications were refused by Absent.
	NegativeHits uint64
	// Rechecked is how many cached answers were too old to be used, and were read again.
	Rechecked uint64
	// Collapsed is how many verifications waited for the read of another one.
	Collapsed uint64
	// Stale is how many answers were given under Config.StaleIfError.
	Stale uint64
	// FeedAge is how long ago the store's feed last proved that this Manager knows every
	// change made before; negative if it never has, or if there is no feed.
	FeedAge time.Duration
}

// CacheStats returns the counts so far.
func (m *Manager) CacheStats() CacheStats {
	s := m.engine.Stats()
	st := CacheStats{
		Keys: m.keys.Stats(), Absent: s.Absent, NegativeHits: s.Refused, Rechecked: s.Rechecked,
		Collapsed: s.Collapsed, Stale: s.Stale, FeedAge: s.FeedAge,
	}
	st.Keys.Hits += m.usage.Hits() // most are counted as uses only
	if m.accessTokens != nil {
		st.Tokens = m.accessTokens.Stats()
	}
	return st
}
