package engine

import (
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/internal/clock"
)

// Trust decides how old an answer in memory may be. It is safe for concurrent use.
//
// An answer is made from records of the store. It is dropped when one of these records
// changes: at once if this process makes the change, otherwise when the store's feed tells
// of it. In addition an answer is believed only for a limited time: for MaxStaleness after
// it was read, or after the feed last proved that it has told of every change, whichever is
// later. The second is sound because an answer that came into memory before the feed began
// is dropped when the feed begins ([Engine.Clear]), and the feed names every change after
// that.
type Trust struct {
	maxStaleness time.Duration // how old an answer may be while the store can be asked
	patience     time.Duration // how old an answer may be while the store cannot be asked
	expected     time.Duration // how old an answer may be in any process, as all processes expect

	// synced is an instant (monotonic). The feed has proved that this process knows every
	// change before it. It is clock.Never while the feed has proved nothing.
	synced atomic.Int64
	// joined is the instant (monotonic) since which the other processes know how patient
	// this one is; clock.Forever while they do not know.
	joined atomic.Int64
}

func (t *Trust) start(cfg *Config) {
	t.maxStaleness, t.patience, t.expected = cfg.MaxStaleness, cfg.MaxStaleness+cfg.StaleIfError, cfg.Expected
	t.synced.Store(clock.Never)
	t.joined.Store(clock.Forever)
}

// Believes reports whether an answer that was good at asOf (monotonic) may be given now.
func (t *Trust) Believes(asOf int64, now clock.Moment) bool {
	return t.young(t.maxStaleness, max(asOf, now.Synced), now)
}

// Endures reports whether an answer that was good at asOf (monotonic) may be given now,
// while the store cannot be asked.
func (t *Trust) Endures(asOf int64, now clock.Moment) bool {
	return t.young(t.patience, asOf, now)
}

// Live reports whether the feed has proved recently that it told of every change. Then
// everything that the feed keeps up to date is complete.
func (t *Trust) Live(now clock.Moment) bool { return t.Believes(clock.Never, now) }

// young reports whether an answer that was good at an instant (monotonic) is younger than
// limit. If limit is longer than all processes expect, the excess counts only for an answer
// that was read after the other processes knew of it. An older answer may be about a
// credential that was revoked meanwhile, by a process that knew nothing of this process's
// limit and whose receipt says that the revocation holds everywhere by now.
func (t *Trust) young(limit time.Duration, at int64, now clock.Moment) bool {
	age := now.Age(at)
	tooOld := age >= int64(limit)
	unexpected := age >= int64(t.expected) && at < t.joined.Load()
	return !tooOld && !unexpected
}

// Proven notes that the feed has told of every change before an instant (monotonic). Only
// the goroutine that follows the feed calls it.
func (t *Trust) Proven(at int64) {
	if at > t.synced.Load() {
		t.synced.Store(at)
	}
}

// FeedBegins notes that the feed begins anew and has proved nothing yet.
func (t *Trust) FeedBegins() { t.synced.Store(clock.Never) }

// Joined notes the instant (monotonic) since which the other processes know how patient
// this one is; clock.Forever means that it is no longer certain that they know.
func (t *Trust) Joined(at int64) { t.joined.Store(at) }
