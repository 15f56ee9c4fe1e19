package clock

import (
	"context"
	"sync"
	"time"
)

// Processes on one store compare times that another one has written with their own
// clocks. docs/guarantees.md has a row for every such time. What must not be decided by
// a clock is decided by a number that rises (an epoch, a version); for the rest, two
// clocks may differ by MaxSkew.
const (
	// MaxSkew is by how much two clocks may differ.
	MaxSkew = 12 * time.Hour
	// PurgeMargin is how much longer a record is kept than anybody needs it by the
	// clock of whoever wrote it. It is twice MaxSkew, because the writer may be behind
	// those who need the record, and whoever purges ahead of them.
	PurgeMargin = 2 * MaxSkew
	// skewFor is how long a difference that was seen is reported.
	skewFor = time.Hour
)

// Skew is the largest difference between this process's clock and another one that was
// lately seen. The zero value has seen none. It is safe for concurrent use.
type Skew struct {
	mu   sync.Mutex // guards both
	by   time.Duration
	seen int64 // monotonic; zero: never
}

// raise takes in that another clock is ahead of this one by d, or behind by -d.
func (s *Skew) raise(d time.Duration, now Moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over(now) || d.Abs() >= s.by.Abs() {
		s.by, s.seen = d, max(1, now.Mono)
	}
}

// set is raise for a clock that was asked: what was seen before is over.
func (s *Skew) set(d time.Duration, now Moment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by, s.seen = d, max(1, now.Mono)
}

// over reports that nothing was seen in the last skewFor.
func (s *Skew) over(now Moment) bool { return s.seen == 0 || now.Age(s.seen) > int64(skewFor) }

// Get returns the difference: positive where the other clock is ahead, negative where it
// is behind, zero where none was seen in the last hour.
func (s *Skew) Get(now Moment) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over(now) {
		return 0
	}
	return s.by
}

// Note takes in a time (Unix milliseconds) that another process has written before it was
// read here: if it is still to come, that one's clock is ahead.
func (s *Skew) Note(written int64, now Moment) {
	if ahead := written - now.MS; ahead > 0 {
		s.raise(MillisOf(ahead), now)
	}
}

// NoteWithin takes in a time (Unix milliseconds) that another process had written no longer
// than limit before told: if it is longer ago by more than a second, that one's clock is
// behind. How long it took to read that time does not count.
func (s *Skew) NoteWithin(limit time.Duration, written int64, told Moment) {
	if behind := MillisOf(told.MS - written); behind > limit+time.Second {
		s.raise(-behind, told)
	}
}

// Compare asks another clock for its time, and takes in by how much it differs from own.
// Its error is that of the other clock; nothing is taken in then.
func (s *Skew) Compare(ctx context.Context, own *Clock, other func(context.Context) (time.Time, error)) error {
	before := own.Now()
	at, err := other(ctx)
	after := own.Now()
	switch theirs := Millis(at); {
	case err != nil:
		return err
	case theirs > after.MS:
		s.set(MillisOf(theirs-after.MS), after)
	default: // while it was asked, this clock went from before to after
		s.set(-MillisOf(max(0, before.MS-theirs)), after)
	}
	return nil
}
