package fob

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
)

// Processes on one store compare times that another one has written with their own
// clocks. docs/guarantees.md has a row for every such time. What must not be decided by
// a clock is decided by a number that rises (an epoch, a version); for the rest, two
// clocks may differ by maxSkew.
const (
	maxSkew = 12 * time.Hour
	// purgeMargin is how much longer a record is kept than anybody needs it by the
	// clock of whoever wrote it. It is twice maxSkew, because the writer may be behind
	// those who need the record, and whoever purges ahead of them.
	purgeMargin = 2 * maxSkew
	// skewFor is how long a difference that was seen is reported.
	skewFor = time.Hour
)

// skew is the largest difference between this process's clock and another one that was
// lately seen.
type skew struct {
	mu   sync.Mutex // guards both
	by   time.Duration
	seen int64 // monotonic; zero: never
}

// note takes in that another clock is ahead of this one by d, or behind by -d.
func (s *skew) note(d time.Duration, now clock.Moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == 0 || now.Age(s.seen) > int64(skewFor) || d.Abs() >= s.by.Abs() {
		s.by, s.seen = d, max(1, now.Mono)
	}
}

// set is note for a clock that was asked: what was seen before is over.
func (s *skew) set(d time.Duration, now clock.Moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by, s.seen = d, max(1, now.Mono)
}

func (s *skew) get(now clock.Moment) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == 0 || now.Age(s.seen) > int64(skewFor) {
		return 0
	}
	return s.by
}

// sawWritten takes in a time that another process has written before it was read here:
// if it is still to come, that one's clock is ahead.
func (m *Manager) sawWritten(at int64, now clock.Moment) {
	if ahead := at - now.MS; ahead > 0 {
		m.skew.note(clock.MillisOf(ahead), now)
	}
}

// sawWrittenNow takes in a time that another process had written at most MaxStaleness
// before told, when the feed told of it while it was followed: if it is longer ago, that
// one's clock is behind. How long it took to read that time does not count.
func (m *Manager) sawWrittenNow(at int64, told clock.Moment) {
	if behind := clock.MillisOf(told.MS - at); behind > m.cfg.MaxStaleness+time.Second {
		m.skew.note(-behind, told)
	}
}

// checkSkew compares the clock with that of the store, where it has one, and is
// ErrSkew if any difference was seen that is more than maxSkew.
func (m *Manager) checkSkew(ctx context.Context) error {
	if theirs, ok := backend.As[backend.Clock](m.store); ok {
		before := m.clock.Now()
		at, err := theirs.Now(ctx)
		after := m.clock.Now()
		switch {
		case errors.Is(err, errors.ErrUnsupported):
		case err != nil:
			return errs.OfStore("fob: read the store's clock", err)
		case clock.Millis(at) > after.MS:
			m.skew.set(clock.MillisOf(clock.Millis(at)-after.MS), after)
		default: // while it was asked, this clock went from before to after
			m.skew.set(-clock.MillisOf(max(0, before.MS-clock.Millis(at))), after)
		}
	}
	return m.skewProblem()
}

// skewProblem is ErrSkew where a difference was seen with which nothing is promised. It
// is a problem of Health as long as it is.
func (m *Manager) skewProblem() (err error) {
	defer func() { m.problem("clock", err) }()
	if by := m.skew.get(m.clock.Now()); by.Abs() > maxSkew {
		return fmt.Errorf("%w: another clock differs by %v (negative: it is behind), at most %v are allowed", ErrSkew, by, maxSkew)
	}
	return nil
}
