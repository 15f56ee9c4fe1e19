package fob

import (
	"context"
	"errors"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
)

// sweepPause is the shortest time between two sweeps of which the first left something.
const sweepPause = 10 * time.Millisecond

// Swept is what one sweep did.
type Swept struct {
	Purged  int // records removed, at most 1,000
	Retired int // rotated keys retired early
	// More reports that the sweep has not come to its end: what is old, or a rotation that
	// was not looked at, is left for the next one.
	More bool
}

// Sweep does the Manager's upkeep once: it removes records whose retention is
// over, and retires rotated keys that have gone quiet. It runs by itself every
// Config.SweepInterval, and goes on then, with pauses, until nothing is left; call it
// to have it done now. One call is bounded (see Swept.More); it
// never removes the record of a credential that could still be accepted.
func (m *Manager) Sweep(ctx context.Context) (Swept, error) {
	if m.life.Closed() {
		return Swept{}, ErrClosed
	}
	done, _, err := m.sweep(ctx, allSweeps)
	return done, err
}

// sweepParts are the parts of a sweep that are to be done, or to be gone on with.
type sweepParts struct{ retire, purge bool }

var allSweeps = sweepParts{retire: true, purge: true}

// sweep does parts of a sweep, and returns those that have not come to their end. It
// purges as many records, and looks at as many rotations, as a store need do at a time
// (backend.MaxLimit): there is nothing to set, and what is left is for the next one.
func (m *Manager) sweep(ctx context.Context, parts sweepParts) (done Swept, left sweepParts, err error) {
	var err1, err2 error
	if parts.retire {
		done.Retired, left.retire, err1 = m.rotations.Sweep(ctx)
	}
	if purger, ok := backend.As[backend.Purger](m.store); ok && parts.purge {
		// Whoever purges by a clock that is wrong may bring back what others have ended.
		if err := m.checkSkew(ctx); err != nil {
			return done, left, errors.Join(err1, err)
		}
		done.Purged, err2 = purger.Purge(ctx, m.now(), backend.MaxLimit)
		left.purge = done.Purged == backend.MaxLimit
		if err2 != nil {
			err2 = errs.OfStore("fob: purge", err2)
		}
	}
	done.More = left != sweepParts{}
	return done, left, errors.Join(err1, err2)
}

// sweepOn does parts of a sweep as a task of upkeep. It returns those that are left, and
// when they are gone on with; never where there are none, or where it failed.
func (m *Manager) sweepOn(ctx context.Context, parts sweepParts) (left sweepParts, more <-chan time.Time) {
	began := m.clock.Now().Mono
	err := m.runTask(ctx, func(ctx context.Context) (err error) {
		_, left, err = m.sweep(ctx, parts)
		return err
	})
	if err == nil && left != (sweepParts{}) {
		// The others who use the store, and the writing of usage, have at least as much
		// of the time.
		more = time.After(max(sweepPause, time.Duration(m.clock.Now().Mono-began)))
	}
	return left, more
}
