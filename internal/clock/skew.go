package clock

import (
	"context"
	"sync"
	"time"
)

// Processes that share a store compare times that another process has written with their
// own clocks. docs/guarantees.md has a row for every such time. Where a clock must not
// decide, a number that only rises decides (an epoch, a version). For everything else two
// clocks may differ by MaxSkew.
const (
	// MaxSkew is by how much two clocks may differ.
	MaxSkew = 12 * time.Hour
	// PurgeMargin is how much longer a record is kept than anybody needs it, by the clock
	// of the process that wrote it. It is twice MaxSkew, because the clock of the writer
	// may be behind that of a process that needs the record, and the clock of the process
	// that purges may be ahead of that.
	PurgeMargin = 2 * MaxSkew
	// skewFor is how long a difference is reported after it was seen.
	skewFor = time.Hour
)

// Skew is the largest difference that was recently seen between this process's clock and
// another one. The zero value has seen none. It is safe for concurrent use.
type Skew struct {
	mu   sync.Mutex // guards both
	by   time.Duration
	seen int64 // monotonic; zero: never
}

// raise notes that another clock is ahead of this one by d, or behind by -d. A smaller
// difference does not replace a larger one that was recently seen.
func (s *Skew) raise(d time.Duration, now Moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over(now) || d.Abs() >= s.by.Abs() {
		s.by, s.seen = d, max(1, now.Mono)
	}
}

// set notes the difference to a clock that was asked for its time. That replaces everything
// that was seen before.
func (s *Skew) set(d time.Duration, now Moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by, s.seen = d, max(1, now.Mono)
}

// over reports whether no difference was seen in the last skewFor.
func (s *Skew) over(now Moment) bool { return s.seen == 0 || now.Age(s.seen) > int64(skewFor) }

// Get returns the difference: positive if the other clock is ahead, negative if it is
// behind, zero if no difference was seen in the last hour.
func (s *Skew) Get(now Moment) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over(now) {
		return 0
	}
	return s.by
}

// Note notes a time (Unix milliseconds) that another process had written before it was read
// here. If that time is still to come, the clock of that process is ahead.
func (s *Skew) Note(written int64, now Moment) {
	if ahead := written - now.MS; ahead > 0 {
		s.raise(MillisOf(ahead), now)
	}
}

// NoteWithin notes a time (Unix milliseconds) that another process had written at most
// limit before this process was told of it, at told. If it is longer ago, by more than a
// second, the clock of that process is behind. How long it took to read the time does not
// count.
func (s *Skew) NoteWithin(limit time.Duration, written int64, told Moment) {
	if behind := MillisOf(told.MS - written); behind > limit+time.Second {
		s.raise(-behind, told)
	}
}

// Compare asks another clock for its time, and notes by how much it differs from own. It
// returns the error of the other clock, and notes nothing then.
func (s *Skew) Compare(ctx context.Context, own *Clock, other func(context.Context) (time.Time, error)) error {
	before := own.Now()
	at, err := other(ctx)
	after := own.Now()
	switch theirs := Millis(at); {
	case err != nil:
		return err
	case theirs > after.MS:
		s.set(MillisOf(theirs-after.MS), after)
	default: // the answer was made at some instant between before and after
		s.set(-MillisOf(max(0, before.MS-theirs)), after)
	}
	return nil
}
