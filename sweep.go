package fob

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
)

// sweepBatch bounds one sweep: how many records it purges and how many
// rotations it looks at. What is left waits for the next.
const sweepBatch = 1000

// Swept is what one sweep did.
type Swept struct {
	Purged  int // records removed, at most 1,000
	Retired int // rotated keys retired early
	// More reports that old records are left for the next sweep.
	More bool
}

// Sweep does the Manager's upkeep once: it removes records whose retention is
// over, and retires rotated keys that have gone quiet. It runs by itself every
// Config.SweepInterval; call it to have it done now. One call is bounded; it
// never removes the record of a credential that could still be accepted.
func (m *Manager) Sweep(ctx context.Context) (Swept, error) {
	if m.closed.Load() {
		return Swept{}, ErrClosed
	}
	var done Swept
	retired, err1 := m.retireQuiet(ctx)
	done.Retired = retired
	var err2 error
	if purger, ok := backend.As[backend.Purger](m.store); ok {
		done.Purged, err2 = purger.Purge(ctx, m.now(), sweepBatch)
		done.More = done.Purged == sweepBatch
		if err2 != nil {
			err2 = storeError("fob: purge", err2)
		}
	}
	return done, errors.Join(err1, err2)
}

// rotationWalk goes through all rotations, a batch at each sweep.
type rotationWalk struct {
	mu    sync.Mutex // guards after
	after backend.Cursor
}

func (w *rotationWalk) next(ctx context.Context, lister backend.Lister) ([]backend.Record, error) {
	w.mu.Lock()
	q := backend.Query{Kind: recordRotation, Limit: sweepBatch, After: w.after}
	w.mu.Unlock()
	page, err := lister.List(ctx, q)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.after = page.Next; err != nil {
		w.after = "" // the cursor may be what was wrong
	}
	return page.Records, err
}

// retireQuiet ends the overlap of rotated keys whose successor is in use and
// which have not been used for their quiet time.
func (m *Manager) retireQuiet(ctx context.Context) (retired int, err error) {
	lister, ok := backend.As[backend.Lister](m.store)
	if !ok {
		return 0, nil
	}
	records, err := m.rotations.next(ctx, lister)
	if err != nil {
		return 0, storeError("fob: list rotations", err)
	}
	var problems []error
	for i := range records {
		did, err := m.retireIfQuiet(ctx, &records[i])
		if err != nil {
			problems = append(problems, err)
		}
		if did {
			retired++
		}
	}
	return retired, errors.Join(problems...)
}

func (m *Manager) retireIfQuiet(ctx context.Context, rec *backend.Record) (bool, error) {
	id, err := rotationTarget(rec)
	if err != nil {
		return false, err
	}
	now := m.now()
	old, err := m.readKey(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil // its record is purged with its deadline
	case err != nil:
		return false, err
	case old.retireAt == 0 || old.quiet == 0 || old.endsAt() <= millis(now) || old.status != StatusActive:
		return false, nil // not finished, over, or ended otherwise
	}
	quiet, err := m.quiet(ctx, old, now)
	if err != nil || !quiet {
		return false, err
	}
	retired := false
	old, err = m.editKey(ctx, id, func(k *Key, _ bool) (bool, error) {
		// Still the rotation that was looked at?
		retired = k.retireAt == old.retireAt && k.status == StatusActive
		if retired {
			k.retireAt, k.retired = millis(now), true
		}
		return retired, nil
	})
	if err != nil || !retired {
		return false, err
	}
	m.observe(Event{Type: EventRetired, ID: id, Subject: old.subject})
	if err := m.store.Delete(ctx, rec.ID, rec.Version); err != nil &&
		!errors.Is(err, backend.ErrNotFound) && !errors.Is(err, backend.ErrConflict) {
		return true, storeError("fob: delete rotation", err)
	}
	return true, nil
}

// quiet reports whether the successor has been used, and the old key neither
// since its successor was issued nor within its quiet time. That is longer than usage
// may be on its way from any process of the fleet: by as much again, because a use has
// the time of a clock that may be behind this one.
func (m *Manager) quiet(ctx context.Context, old *Key, now time.Time) (bool, error) {
	usage, err := m.usageOf(ctx, old.id, old.successor)
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	successor, err := m.readKey(ctx, old.successor)
	if err != nil {
		return false, err
	}
	interval, _, err := m.readFleetUsage(ctx)
	if err != nil {
		return false, err
	}
	least := max(time.Duration(old.quiet)*time.Millisecond, 2*interval, 2*m.cfg.UsageInterval)
	last := usage[0].LastUsedAt
	if issued := successor.IssuedAt(); last.Before(issued) {
		last = issued
	}
	return usage[1].Count > 0 && now.Sub(last) >= least, nil
}

func rotationTarget(rec *backend.Record) (ID, error) {
	r, err := openBody(rec, recordRotation)
	if err != nil {
		return ID{}, err
	}
	field, v, ok := r.next()
	id := ID(r.id(v))
	if !ok || field != fieldTarget || r.bad || r.rest != "" {
		return ID{}, corrupt(rec, "fields")
	}
	return id, nil
}
