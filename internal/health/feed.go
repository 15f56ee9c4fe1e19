// Package health keeps what a process tells of how it stands: with the feed of its store,
// and with what stays wrong until somebody mends it.
package health

import (
	"errors"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
)

// Feed is how a store's feed is followed, as whoever follows it learns it. The zero value
// is a feed that has not begun and has not been lost. It is safe for concurrent use.
type Feed struct {
	mu     sync.Mutex // guards all
	state  FeedState
	begun  bool
	proved int64 // monotonic: when it last proved something, or the process began
}

// FeedState is how a feed is followed at one instant.
type FeedState struct {
	// Following reports that the feed has proved something since it was last lost.
	Following bool
	// Err is why it was lost, and LostAt when (UTC); nil and zero while it is followed.
	Err    error
	LostAt time.Time
	// Failures is how many tries to follow it again have failed since.
	Failures int
}

// State returns how the feed is followed now.
func (f *Feed) State() FeedState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Begun notes that everything is read anew, and reports whether it was before.
func (f *Feed) Begun() (again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	again, f.begun = f.begun, true
	return again
}

// Proved notes that the feed has proved something, and reports whether that is the first
// time since it was lost.
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

// errSilent is why a feed counts as lost that has not ended.
var errSilent = errors.New("fob: follow the feed: it has proved nothing for too long")

// silence is how long a feed says nothing at least before it counts as lost. A
// staleness of less can be over between two proofs of a feed that is well.
const silence = 10 * backend.HeartbeatEvery

// Silent counts a feed as lost that has not ended and has proved nothing for as long as an
// answer is believed (staleness), and for silence: its connection may be half open, or
// its store be looking for a server. It returns why it was lost, once, and nil else.
func (f *Feed) Silent(now clock.Moment, staleness time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state.Err != nil || now.Mono-f.proved < int64(max(silence, staleness)) {
		return nil
	}
	f.state = FeedState{Err: errSilent, LostAt: time.UnixMilli(now.MS).UTC()}
	return errSilent
}
