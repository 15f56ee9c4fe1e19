package fob

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
	"github.com/fobkit/fob/internal/usagelog"
)

// upkeepTimeout bounds one background call of the store, and so how long Close
// can wait for one that hangs.
const upkeepTimeout = 10 * time.Second

// upkeep flushes usage and sweeps until ctx ends.
func (m *Manager) upkeep(ctx context.Context) {
	every := min(m.cfg.UsageInterval, fleet.DefaultUsageInterval) // until the fleet knows a longer one
	flush := time.NewTicker(every)
	defer flush.Stop()
	var silence, join, sweep <-chan time.Time
	if m.marks.Follows {
		silence = time.Tick(max(m.cfg.MaxStaleness/2, retry.BackoffMax/2))
	}
	if m.cfg.patience() > fleet.DefaultStaleness {
		if !m.marks.Follows { // else followFeed does, before the feed begins
			m.joinFleet(ctx)
		}
		join = time.Tick(retry.BackoffMax)
	}
	if m.cfg.SweepInterval > 0 {
		sweep = time.Tick(m.cfg.SweepInterval)
	}
	var left sweepParts       // of a sweep that is not finished
	var more <-chan time.Time // fires when that sweep goes on
	for {
		select {
		case <-ctx.Done():
			return
		case <-flush.C:
			// A write that Close cuts off might be lost, so Close waits for it.
			_ = m.runTask(context.WithoutCancel(ctx), func(ctx context.Context) error {
				next, err := m.writeUsage(ctx)
				if next != every {
					every = next
					flush.Reset(every)
				}
				return err
			})
		case <-silence:
			m.noticeSilence()
		case <-join:
			m.joinFleet(ctx)
		case <-sweep:
			left, more = m.sweepOn(ctx, allSweeps)
		case <-more:
			left, more = m.sweepOn(ctx, left)
		}
	}
}

// runTask runs a task of upkeep, and reports its error unless the Manager is closed.
func (m *Manager) runTask(ctx context.Context, task func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	err := guard.Run("", func() error { return task(ctx) })
	if err != nil && m.life.Context().Err() == nil {
		m.report(Event{Type: EventUpkeepFailed, Err: err})
	}
	return err
}

// sweepPause is the shortest pause before an unfinished sweep goes on.
const sweepPause = 10 * time.Millisecond

// Swept is what one sweep did.
type Swept struct {
	Purged  int // records removed, at most 1,000
	Retired int // rotated keys retired early
	// More reports that the sweep is not finished: old records, or rotations that were not
	// looked at, are left for the next one.
	More bool
}

// Sweep does the Manager's upkeep once: it removes records whose retention is over, and
// retires rotated keys that have gone quiet. The Manager itself does that every
// Config.SweepInterval, and goes on, with pauses, until nothing is left; call Sweep to
// have it done now. One call is bounded (see Swept.More). It never removes the record of
// a credential that could still be accepted.
func (m *Manager) Sweep(ctx context.Context) (Swept, error) {
	if m.life.Closed() {
		return Swept{}, ErrClosed
	}
	done, _, err := m.sweep(ctx, allSweeps)
	return done, err
}

// sweepParts are the parts of a sweep that are still to be done.
type sweepParts struct{ retire, purge bool }

var allSweeps = sweepParts{retire: true, purge: true}

// sweep does parts of a sweep, and returns those that are not finished. It purges as many
// records, and looks at as many rotations, as a store must be able to do at a time
// (backend.MaxLimit), so that there is nothing to configure.
func (m *Manager) sweep(ctx context.Context, parts sweepParts) (done Swept, left sweepParts, err error) {
	var err1, err2 error
	if parts.retire {
		done.Retired, left.retire, err1 = m.rotations.Sweep(ctx)
	}
	if purger, ok := backend.As[backend.Purger](m.store); ok && parts.purge {
		// A purge by a wrong clock could bring back what other processes have revoked.
		if err := m.checkSkew(ctx); err != nil {
			return done, left, errors.Join(err1, err)
		}
		done.Purged, err2 = purger.Purge(ctx, m.now(), backend.MaxLimit)
		left.purge = done.Purged == backend.MaxLimit
		m.marks.DropOver()
		if err2 != nil {
			err2 = errs.OfStore("fob: purge", err2)
		}
	}
	done.More = left != sweepParts{}
	return done, left, errors.Join(err1, err2)
}

// sweepOn does parts of a sweep as a task of upkeep. It returns those that are left, and
// a channel that fires when they go on: nil if none are left, or if the sweep failed.
func (m *Manager) sweepOn(ctx context.Context, parts sweepParts) (left sweepParts, more <-chan time.Time) {
	began := m.clock.Now().Mono
	err := m.runTask(ctx, func(ctx context.Context) (err error) {
		_, left, err = m.sweep(ctx, parts)
		return err
	})
	if err == nil && left != (sweepParts{}) {
		// Pause for as long as the sweep took, so that other users of the store, and the
		// writing of usage, get at least half of the time.
		more = time.After(max(sweepPause, time.Duration(m.clock.Now().Mono-began)))
	}
	return left, more
}

// Usage is how often a credential was accepted, and when last. It is written with a
// delay: the store lags by up to Config.UsageInterval, and a crash loses at most that
// much. No use is counted twice.
//
// The use of a token counts for the key that it was exchanged for: the exchange, each
// acceptance of the token by a Manager, and each refresh is a use of the key. A token
// that came from no key has no usage, and what a TokenVerifier accepts is not counted.
type Usage struct {
	Count      uint64    `json:"count"`
	LastUsedAt time.Time `json:"last_used_at,omitzero"` // UTC, milliseconds; zero: never used
}

// flushUsage writes the uses since the last time.
func (m *Manager) flushUsage(ctx context.Context) error {
	recorder, _ := backend.As[backend.UsageRecorder](m.store)
	err := m.usage.Flush(ctx, recorder, func(err error) { m.observe(ctx, Event{Type: EventUsageLost, Err: err}) })
	m.reportReturns(ctx)
	return err
}

// idleAfter is after how long without use the next use of a key is an event. Nobody has
// missed such a key for a month; that it is used now is what a review wants to know.
const idleAfter = 30 * 24 * time.Hour

// reportReturns reports, of the uses that were just written, those of keys that had not been
// used before or for long.
func (m *Manager) reportReturns(ctx context.Context) {
	found, err := m.usage.Returns()
	keys, readErr := m.keystore.ReadMany(ctx, slices.Collect(maps.Keys(found))...)
	for _, k := range keys {
		use, event := found[k.ID], Event{ID: ID(k.ID), Subject: subjectOf(k.Owner), After: m.keyOf(k, 0)}
		if idle := clock.MillisOf(use.Last - max(use.Before.Last, k.IssuedAt)); idle >= idleAfter {
			event.Type, event.Idle = EventUsedAgain, idle
			m.observe(ctx, event)
		}
		if use.Before.N == 0 && k.Predecessor != (record.ID{}) {
			event.Type, event.Idle, event.ID, event.Other = EventSuccessorUsed, 0, ID(k.Predecessor), ID(k.ID)
			m.observe(ctx, event)
		}
	}
	if err := errors.Join(err, readErr); err != nil {
		m.observe(ctx, Event{Type: EventUpkeepFailed, Err: fmt.Errorf("fob: find out what was used again: %w", err)})
	}
}

// writeUsage writes usage, and returns after how long it is due again.
func (m *Manager) writeUsage(ctx context.Context) (next time.Duration, err error) {
	next, err = m.fleet.JoinUsage(ctx)
	return next, errors.Join(err, m.flushUsage(ctx))
}

// Usage returns how a credential was used: what the store holds, and what this Manager
// has not written yet. A store that keeps no usage fails with errors.ErrUnsupported. The
// usage of an ID that was never used, or that does not exist, is zero.
func (m *Manager) Usage(ctx context.Context, id ID) (Usage, error) {
	found, err := m.usageOf(ctx, id)
	if err != nil {
		return Usage{}, err
	}
	return found[0], nil
}

func (m *Manager) usageOf(ctx context.Context, ids ...ID) ([]Usage, error) {
	asked := make([]record.ID, len(ids))
	for i, id := range ids {
		asked[i] = record.ID(id)
	}
	found, err := m.tallies(ctx, asked...)
	if err != nil {
		return nil, err
	}
	out := make([]Usage, len(ids))
	for i, t := range found {
		out[i] = Usage{Count: t.N, LastUsedAt: clock.Instant(t.Last)}
	}
	return out, nil
}

// tallies is the usage of credentials as the store and this Manager count it.
func (m *Manager) tallies(ctx context.Context, ids ...record.ID) ([]usagelog.Tally, error) {
	if m.life.Closed() {
		return nil, ErrClosed
	}
	recorder, ok := backend.As[backend.UsageRecorder](m.store)
	if !ok {
		return nil, fmt.Errorf("fob: the store keeps no usage: %w", errors.ErrUnsupported)
	}
	return m.usage.Read(ctx, recorder, ids)
}
