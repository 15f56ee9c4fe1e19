package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
	"golang.org/x/sync/semaphore"
)

const (
	// sweepPage is how many rotations are read at a time, for a store that is so slow
	// that it cannot look at all of them in one sweep.
	sweepPage = 100
	// sweepPause is the shortest time between two sweeps of which the first left something.
	sweepPause = 10 * time.Millisecond
)

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
		done.Retired, left.retire, err1 = m.retireQuiet(ctx)
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

// rotationWalk goes through all rotations, a part of them at each sweep.
type rotationWalk struct {
	turn  *semaphore.Weighted // taken by whoever goes on
	after backend.Cursor
}

// retireQuiet ends the overlap of rotated keys whose successor is in use and
// which have not been used for their quiet time. It goes on where the last one ended,
// and reports whether rotations are left that it has not looked at.
func (m *Manager) retireQuiet(ctx context.Context) (retired int, more bool, err error) {
	lister, ok := backend.As[backend.Lister](m.store)
	if !ok {
		return 0, false, nil
	}
	w := &m.rotations
	if err := w.turn.Acquire(ctx, 1); err != nil {
		return 0, true, fmt.Errorf("fob: retire rotated keys: %w", err)
	}
	defer w.turn.Release(1)
	var problems []error
	for looked := 0; looked < backend.MaxLimit; {
		page, err := lister.List(ctx, backend.Query{Kind: record.Rotation, Limit: sweepPage, After: w.after})
		if err != nil {
			w.after = "" // the cursor may be what was wrong
			return retired, true, errors.Join(append(problems, errs.OfStore("fob: list rotations", err))...)
		}
		for i := range page.Records {
			did, err := m.retireIfQuiet(ctx, &page.Records[i])
			if err != nil {
				problems = append(problems, err)
			}
			if did {
				retired++
			}
		}
		if ctx.Err() != nil {
			return retired, true, errors.Join(problems...) // this page is looked at again
		}
		looked += len(page.Records)
		if w.after = page.Next; page.Next == "" {
			break
		}
	}
	return retired, w.after != "", errors.Join(problems...)
}

func (m *Manager) retireIfQuiet(ctx context.Context, rec *backend.Record) (bool, error) {
	id, err := rotationTarget(rec)
	if err != nil {
		return false, err
	}
	now := m.now()
	old, err := m.keystore.Read(ctx, record.ID(id))
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil // its record is purged with its deadline
	case err != nil:
		return false, err
	case old.RetireAt == 0 || old.Quiet == 0 || old.EndsAt() <= clock.Millis(now) || old.Status != keystate.Active:
		return false, nil // not finished, over, or ended otherwise
	}
	quiet, err := m.quiet(ctx, old, now)
	if err != nil || !quiet {
		return false, err
	}
	retired := false
	old, err = m.keystore.Edit(backend.Urgent(ctx), record.ID(id), func(k *keystate.State, _ bool) (bool, error) {
		// Still the rotation that was looked at?
		retired = k.RetireAt == old.RetireAt && k.Status == keystate.Active
		if retired {
			k.RetireAt, k.Retired = clock.Millis(now), true
		}
		return retired, nil
	})
	if err != nil || !retired {
		return false, err
	}
	m.observe(Event{Type: EventRetired, ID: id, Subject: old.Subject()})
	if err := m.store.Delete(ctx, rec.ID, rec.Version); err != nil &&
		!errors.Is(err, backend.ErrNotFound) && !errors.Is(err, backend.ErrConflict) {
		return true, errs.OfStore("fob: delete rotation", err)
	}
	return true, nil
}

// quiet reports whether the successor has been used, and the old key neither
// since its successor was issued nor within its quiet time. That is longer than usage
// may be on its way from any process of the fleet: by as much again, because a use has
// the time of a clock that may be behind this one.
func (m *Manager) quiet(ctx context.Context, old *keystate.State, now time.Time) (bool, error) {
	usage, err := m.usageOf(ctx, ID(old.ID), ID(old.Successor))
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	successor, err := m.keystore.Read(ctx, old.Successor)
	if err != nil {
		return false, err
	}
	interval, err := m.fleet.UsageInterval(ctx)
	if err != nil {
		return false, err
	}
	least := max(clock.MillisOf(old.Quiet), 2*interval, 2*m.cfg.UsageInterval)
	last := usage[0].LastUsedAt
	if issued := clock.Instant(successor.IssuedAt); last.Before(issued) {
		last = issued
	}
	return usage[1].Count > 0 && now.Sub(last) >= least, nil
}

func rotationTarget(rec *backend.Record) (ID, error) {
	r, err := record.Open(rec, record.Rotation)
	if err != nil {
		return ID{}, err
	}
	field, v, ok := r.Next()
	id := ID(r.ID(v))
	if !ok || field != record.FieldTarget || r.Bad || r.Rest != "" {
		return ID{}, record.Corrupt(rec, "fields")
	}
	return id, nil
}
