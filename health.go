package fob

import (
	"errors"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/fleet"
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
	now := m.moment()
	m.health.mu.Lock()
	defer m.health.mu.Unlock()
	h := Health{Skew: m.skew.Get(now), FeedAge: now.FeedAge(), Err: m.health.err, LostAt: m.health.lostAt, Failures: m.health.failures, Staleness: m.cfg.MaxStaleness}
	if !m.fleet.Joined() {
		h.Staleness = min(h.Staleness, fleet.DefaultStaleness)
	}
	h.Following = m.health.following && m.live(now)
	h.Problems = m.problems.list()
	return h
}

// health is what Health tells, as followFeed learns it.
type health struct {
	mu        sync.Mutex // guards all
	following bool
	started   bool  // marks were read once
	proved    int64 // monotonic: when it last proved something, or the Manager began
	err       error
	lostAt    time.Time
	failures  int
}

// follows notes that the feed has proved something, and reports whether that is the
// first time since it was lost.
func (h *health) follows(now clock.Moment) (resumed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	resumed, h.proved = h.err != nil, now.Mono
	h.following, h.err, h.lostAt, h.failures = true, nil, time.Time{}, 0
	return resumed
}

func (h *health) lost(err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.lostAt = now.UTC()
	} else {
		h.failures++
	}
	h.following, h.err = false, err
}

// errSilent is why a feed counts as lost that has not ended.
var errSilent = errors.New("fob: follow the feed: it has proved nothing for too long")

// silence is how long a feed says nothing at least before it counts as lost. A
// MaxStaleness of less can be over between two proofs of a feed that is well.
const silence = 10 * backend.HeartbeatEvery

// noticeSilence counts a feed as lost that has not ended and says nothing: a connection
// that is half open, or a store that is looking for its server.
func (m *Manager) noticeSilence() {
	if m.health.silent(m.clock.Now(), max(silence, m.cfg.MaxStaleness)) {
		m.report(Event{Type: EventFeedLost, Err: errSilent})
	}
}

// silent reports whether the feed has proved nothing for so long, the first time that
// it has.
func (h *health) silent(now clock.Moment, limit time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil || now.Mono-h.proved < int64(limit) {
		return false
	}
	h.following, h.err, h.lostAt = false, errSilent, time.UnixMilli(now.MS).UTC()
	return true
}

// begun notes that everything is read anew, and reports whether it was before.
func (h *health) begun() (again bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	again, h.started = h.started, true
	return again
}
