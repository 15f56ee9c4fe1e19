// Package health keeps the state that a process reports of itself: whether it follows the
// feed of its store (state.go), what stays wrong until somebody mends it (problems.go), and
// which events were lost (events.go). It does not find anything wrong itself: others tell it.
package health

import (
	"errors"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
)

// Feed is the state of a feed, as the goroutine that follows the feed reports it. The zero
// value is a feed that has neither begun nor been lost. It is safe for concurrent use.
type Feed struct {
	mu     sync.Mutex // guards all
	state  FeedState
	begun  bool
	proved int64 // monotonic: when the feed last proved something; zero is when the process began
}

// FeedState is the state of a feed at one instant.
type FeedState struct {
	// Following says that the feed has proved something since it was last lost.
	Following bool
	// Err is why the feed was lost, and LostAt when (UTC). They are nil and zero while the
	// feed is followed.
	Err    error
	LostAt time.Time
	// Failures is how many tries to follow the feed again have failed since then.
	Failures int
}

// State returns the state of the feed now.
func (f *Feed) State() FeedState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Begun notes that everything is read anew because the feed begins. again says that the
// feed had begun before.
func (f *Feed) Begun() (again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	again, f.begun = f.begun, true
	return again
}

// Proved notes that the feed has proved something. resumed says that the feed was lost
// until now.
func (f *Feed) Proved(now clock.Moment) (resumed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	resumed = f.state.Err != nil
	f.state, f.proved = FeedState{Following: true}, now.Mono
	return resumed
}

// Lost notes that the feed has ended, or that a try to follow it again has failed.
func (f *Feed) Lost(err error, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Err == nil {
		f.state.LostAt = now.UTC()
	} else {
		f.state.Failures++
	}
	f.state.Following, f.state.Err = false, err
}

// errSilent is why a feed counts as lost although it has not ended.
var errSilent = errors.New("fob: follow the feed: it has proved nothing for too long")

// minSilence is how long a feed must have proved nothing, at least, to count as lost. A
// staleness may be shorter than the time between two proofs of a feed that works.
const minSilence = 10 * backend.HeartbeatEvery

// Silent makes the feed count as lost if it has proved nothing for staleness, which is how
// long an answer is believed, and for minSilence. Such a feed has not ended, but its
// connection may be half open, or its store may be looking for a server. Silent returns the
// reason once, and nil otherwise.
func (f *Feed) Silent(now clock.Moment, staleness time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Err != nil || now.Mono-f.proved < int64(max(minSilence, staleness)) {
		return nil
	}
	f.state = FeedState{Err: errSilent, LostAt: time.UnixMilli(now.MS).UTC()}
	return errSilent
}
