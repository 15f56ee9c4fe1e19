package fob

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/tokenring"
	"golang.org/x/sync/semaphore"
)

// tokens is what a Manager has for tokens; nil without Config.Tokens.
type tokens struct {
	seal     *tokenring.SealKeys // nil: the ring is in memory only
	ring     atomic.Pointer[tokenring.Ring]
	ringTurn *semaphore.Weighted // taken while the ring is read or made
	readAt   atomic.Int64        // monotonic: before it was last read
	// told is how often the feed has told of a change of the ring, and heard is told
	// from before the ring was last read: where they differ, it is to be read again.
	told, heard atomic.Uint64
}

func newTokens(cfg Config) (*tokens, error) {
	t := &tokens{ringTurn: semaphore.NewWeighted(1)}
	var err error
	if cfg.Tokens.SealKey != nil {
		if t.seal, err = tokenring.NewSealKeys(cfg.Tokens.SealKey); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// loadRing reads the ring, or makes it with its first key.
func (m *Manager) loadRing(ctx context.Context) (*tokenring.Ring, error) {
	return m.ringSince(ctx, m.clock.Now().Mono, "")
}

// ringSince returns the ring as it was read at an instant (monotonic) or later, or any
// that has the key id; it is read unless it was. Whoever reads it is waited for: of many
// who come while it is read, none reads it again who finds in it what he wants.
func (m *Manager) ringSince(ctx context.Context, since int64, id string) (*tokenring.Ring, error) {
	t := m.tokens
	if err := t.ringTurn.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("fob: token keys: %w", err)
	}
	defer t.ringTurn.Release(1)
	if r := t.ring.Load(); r != nil && (t.readAt.Load() > since || id != "" && r.ByID[id] != nil) {
		return r, nil
	}
	began, told := m.clock.Now().Mono, t.told.Load()
	r, err := m.readRing(ctx)
	switch {
	case err == nil:
		t.readAt.Store(began)
		t.heard.Store(told)
		m.problem(ringName, nil)
	case !errs.IsOutage(err) && ctx.Err() == nil:
		m.problem(ringName, err)
	}
	return r, err
}

// ringEvery bounds how old the ring in memory may be where no feed tells of changes:
// MaxStaleness, within these.
const (
	ringEvery    = time.Second
	ringEveryMax = 30 * time.Second
)

func (m *Manager) ringAge() time.Duration {
	return min(max(m.cfg.MaxStaleness, ringEvery), ringEveryMax)
}

// ringChanged notes that the feed has told of a change of the ring, or may have missed
// one, and reads it if it is in use. That it cannot be read concerns tokens alone: it is
// read when it is next needed, and everything else goes on.
func (m *Manager) ringChanged(ctx context.Context) {
	t := m.tokens
	if t == nil || t.seal == nil {
		return
	}
	t.told.Add(1)
	if t.ring.Load() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	_, _ = m.loadRing(ctx) // what is wrong for good is among the problems by now
}

// currentRing returns a ring by which a token can be sealed, or the keys be published:
// that in memory, if a feed that lives has told of no change since it was read, or if it
// is young enough. Else it is read. While somebody does, and where that fails, the one in
// memory does for as long as a new key that it does not have cannot be in use: KeyLead
// from when it was read.
func (m *Manager) currentRing(ctx context.Context) (*tokenring.Ring, error) {
	t := m.tokens
	r := t.ring.Load()
	if r == nil {
		return m.ringSince(ctx, clock.Never, "")
	}
	now := m.engine.Now()
	changed := t.told.Load() != t.heard.Load()
	if t.seal == nil || !changed && (m.engine.Live(now) || now.Age(t.readAt.Load()) < int64(m.ringAge())) {
		return r, nil
	}
	good := now.Age(t.readAt.Load()) < int64(m.cfg.Tokens.KeyLead)
	if good {
		if !t.ringTurn.TryAcquire(1) {
			return r, nil
		}
		t.ringTurn.Release(1)
	}
	young := max(now.Mono-int64(m.ringAge()), now.Floor)
	if changed {
		young = now.Mono
	}
	read, err := m.ringSince(ctx, young, "")
	if err != nil && good {
		return r, nil
	}
	return read, err
}

// reloadEvery bounds how often tokens with unknown keys make the ring be read
// again: anybody can name a key that does not exist. A key that does is known for
// TokenConfig.KeyLead before it is used, by the feed as a rule; KeyLead is at least
// as long as this, so that the last reading has it.
const reloadEvery = 20 * time.Millisecond

// findKey returns the key that a footer names. A key that is not known is looked
// for in the store: another process may have made it a moment ago. One that is known
// needs no newer ring: it verifies until its last token has expired, and whether others
// have put it out of use since does not change what it has sealed.
func (m *Manager) findKey(ctx context.Context, id string, now clock.Moment) (*tokenring.Key, error) {
	r := m.tokens.ring.Load()
	if r == nil {
		var err error
		if r, err = m.ringSince(ctx, clock.Never, ""); err != nil {
			return nil, err
		}
	}
	if k := r.Find(id, now.MS); k != nil || r.ByID[id] != nil || m.tokens.seal == nil {
		return k, nil
	}
	r, err := m.ringSince(ctx, max(now.Mono-int64(reloadEvery), now.Floor), id)
	if err != nil {
		return nil, err
	}
	return r.Find(id, now.MS), nil
}
