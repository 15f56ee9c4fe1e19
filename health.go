package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
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
