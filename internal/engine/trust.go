package engine

import (
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/internal/clock"
)

// Trust is the rule of how old an answer in memory may be. It is safe for concurrent use.
//
// An answer is made from records of the store, and it ends when one of them changes, be it
// changed here or elsewhere, when the store's feed tells of it. Besides, it is believed only
// for a time: for MaxStaleness after it was read, or after the feed last proved that it has
// told of everything, whichever is later. The second is sound because an answer that came
// into memory before the feed began does not survive its beginning ([Engine.Clear]): the
// feed would have named any change since.
type Trust struct {
	maxStaleness time.Duration // while the store can be asked
	patience     time.Duration // while it cannot
	expected     time.Duration // what every process takes every other one to keep to

	// synced is the instant (monotonic) of which the feed last proved that every change
	// before it is known here; clock.Never while it has proved nothing.
	synced atomic.Int64
	// joined is the instant (monotonic) from which on the other processes are known to
	// know how patient this one is; clock.Forever while they are not.
	joined atomic.Int64
}

func (t *Trust) start(cfg *Config) {
	t.maxStaleness, t.patience, t.expected = cfg.MaxStaleness, cfg.MaxStaleness+cfg.StaleIfError, cfg.Expected
	t.synced.Store(clock.Never)
	t.joined.Store(clock.Forever)
}

// Believes reports whether what held at asOf (monotonic) may be an answer now.
func (t *Trust) Believes(asOf int64, now clock.Moment) bool {
	return t.young(t.maxStaleness, max(asOf, now.Synced), now)
}

// Endures reports whether what held at asOf (monotonic) may be an answer now, while the
// store cannot be asked.
func (t *Trust) Endures(asOf int64, now clock.Moment) bool {
	return t.young(t.patience, asOf, now)
}

// Live reports whether the feed has proved lately that it has told of everything: then
// what is kept up by it is complete.
func (t *Trust) Live(now clock.Moment) bool { return t.Believes(clock.Never, now) }

// young reports whether what held at an instant (monotonic) is younger than limit. A limit
// above what every process expects is made use of only for what was read after the others
// knew of it. An answer that is older than that may be of something that was revoked since,
// and the receipt of that revocation knows nothing of this process.
func (t *Trust) young(limit time.Duration, at int64, now clock.Moment) bool {
	age := now.Age(at)
	tooOld := age >= int64(limit)
	unexpected := age >= int64(t.expected) && at < t.joined.Load()
	return !tooOld && !unexpected
}

// Proven notes that the feed has told of every change before an instant (monotonic). It is
// called by one goroutine, which follows the feed.
func (t *Trust) Proven(at int64) {
	if at > t.synced.Load() {
		t.synced.Store(at)
	}
}

// FeedBegins notes that the feed begins anew: it has proved nothing yet.
func (t *Trust) FeedBegins() { t.synced.Store(clock.Never) }

// Joined notes the instant (monotonic) from which on the others know how patient this
// process is; clock.Forever says that this is no longer sure.
func (t *Trust) Joined(at int64) { t.joined.Store(at) }
