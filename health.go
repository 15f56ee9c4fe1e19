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

// Health is how a Manager stands with its store's feed, for a page or a probe. A
// Manager whose feed is lost still verifies, and no less safely: it reads the store
// more often. So this is a reason to look, and none to stop serving.
type Health struct {
	// Following reports that the feed is connected and has proved within
	// MaxStaleness that it has told everything.
	Following bool
	// FeedAge is how long ago it last proved so; negative if it never has, or the
	// store has no feed.
	FeedAge time.Duration
	// Err is why the feed was lost, and LostAt when; nil and zero while it is followed.
	Err    error
	LostAt time.Time
	// Failures is how many tries to follow it again have failed since.
	Failures int
	// Staleness is how old an answer given now may be: MaxStaleness, or less until the
	// other processes know that it is more than theirs (see FleetStaleness).
	Staleness time.Duration
	// Skew is the difference to another clock: positive where the other one is ahead,
	// negative where it is behind. It is the clock of the store, where it has one and was
	// asked in the last hour, else the largest difference to a process that revoked
	// something in that time. Zero where none was seen. Beyond 12 hours nothing is purged
	// here (ErrSkew).
	Skew time.Duration
	// Problems are what stays wrong until somebody mends it: a secret in Config that is
	// not the one in use (ErrPepper, ErrSealKey), a clock that is wrong by more than 12
	// hours (ErrSkew), records that cannot be read and are
	// needed for what is not in memory (ErrCorrupt). What depends on them is answered
	// with "could not check"; all else goes on. See Manager.Check.
	Problems []error
}

// Health returns how the Manager stands. It reads nothing from the store.
func (m *Manager) Health() Health {
	now := m.engine.Now()
	feed := m.health.State()
	h := Health{
		Following: feed.Following && m.engine.Live(now), FeedAge: now.FeedAge(), Err: feed.Err, LostAt: feed.LostAt, Failures: feed.Failures,
		Staleness: m.cfg.MaxStaleness, Skew: m.skew.Get(now), Problems: m.problems.List(),
	}
	if !m.fleet.Joined() {
		h.Staleness = min(h.Staleness, fleet.DefaultStaleness)
	}
	return h
}

// noticeSilence counts a feed as lost that has not ended and says nothing.
func (m *Manager) noticeSilence() {
	if err := m.health.Silent(m.clock.Now(), m.cfg.MaxStaleness); err != nil {
		m.report(Event{Type: EventFeedLost, Err: err})
	}
}

// problem notes what is wrong with something, or with nil that it is right. What is
// news is also an event.
func (m *Manager) problem(name string, err error) {
	if m.problems.Set(name, err) {
		m.observe(Event{Type: EventUpkeepFailed, Err: err})
	}
}

// recordProblem is problem for a record that cannot be read, or can again.
func (m *Manager) recordProblem(id record.ID, err error) {
	if m.problems.SetRecord(id, err) {
		m.observe(Event{Type: EventUpkeepFailed, Err: err})
	}
}

// checkSkew compares the clock with that of the store, where it has one, and is
// ErrSkew if any difference was seen that is more than clock.MaxSkew. That is a problem of
// Health as long as it is.
func (m *Manager) checkSkew(ctx context.Context) (err error) {
	if theirs, ok := backend.As[backend.Clock](m.store); ok {
		err := m.skew.Compare(ctx, &m.clock, theirs.Now)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return errs.OfStore("fob: read the store's clock", err)
		}
	}
	defer func() { m.problem("clock", err) }()
	if by := m.skew.Get(m.clock.Now()); by.Abs() > clock.MaxSkew {
		return fmt.Errorf("%w: another clock differs by %v (negative: it is behind), at most %v are allowed", ErrSkew, by, clock.MaxSkew)
	}
	return nil
}

// Check looks whether the Manager can work as it is configured, for the start of a
// process: New asks nothing of the store, so that a process can start while that is
// down. It reads the store, compares every secret of Config with its check value in the
// store (a pepper or a ForeignKeys.Digest that is another one than before is ErrPepper,
// a SealKey ErrSealKey), lets the other processes know how patient this one is (see
// FleetStaleness), compares the clock with that of the store where it has one (ErrSkew),
// and looks whether the feed was lost. Its error joins all that is
// wrong, what Health.Problems tells too; nil means that nothing is. A secret with which
// nothing was made yet has no check value and is taken for right.
//
// It may be called at any time, by a readiness probe, say: it costs a read for each
// secret, one of the token keys, one of the fleet's record, and one of the store's clock
// where it has one.
func (m *Manager) Check(ctx context.Context) error {
	if m.life.Closed() {
		return ErrClosed
	}
	wrongs := m.peppers.Check(ctx) // a secret that is wrong is a problem, below
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
	if err := m.checkSkew(ctx); err != nil && !errors.Is(err, ErrSkew) {
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

// ringName is what the token keys are called among the problems.
const ringName = "token keys"

// CacheStats counts what the verification cache did since New.
type CacheStats struct {
	// Keys and Tokens are the caches of credentials that were found, Absent is that
	// of texts that are none.
	Keys, Tokens, Absent cache.Stats
	// NegativeHits is how many verifications Absent refused.
	NegativeHits uint64
	// Rechecked is how many answers were too old to be believed, and read again.
	Rechecked uint64
	// Collapsed is how many verifications waited for another one's read.
	Collapsed uint64
	// Stale is how many answers were given under Config.StaleIfError.
	Stale uint64
	// FeedAge is how long ago the store's feed last proved that everything before is
	// known here; negative if it never has, or there is none.
	FeedAge time.Duration
}

// CacheStats returns the counts so far.
func (m *Manager) CacheStats() CacheStats {
	s := m.engine.Stats()
	st := CacheStats{
		Keys: m.keys.Stats(), Absent: s.Absent, NegativeHits: s.Refused, Rechecked: s.Rechecked,
		Collapsed: s.Collapsed, Stale: s.Stale, FeedAge: s.FeedAge,
	}
	if m.accessTokens != nil {
		st.Tokens = m.accessTokens.Stats()
	}
	return st
}
