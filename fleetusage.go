package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// Usage is written behind, so what the store holds of a key trails by the UsageInterval
// of whichever process it was used in. A key may be retired for being quiet only when it
// was for longer than that. A process that writes its usage once a minute or more often
// need not say so; one that takes longer writes that into the store, and until it has,
// writes once a minute.
//
// The record is renewed by who needs it and is purged when nobody does any more, so that
// nobody has to take it back.
const fleetUsage = defaultUsage

func fleetUsageRecord() record.ID { return record.Named(record.Fleet, "usage interval") }

// readFleetUsage returns the largest UsageInterval of any process on the store, and its
// record, which is empty where none is above fleetUsage.
func (m *Manager) readFleetUsage(ctx context.Context) (time.Duration, backend.Record, error) {
	rec, err := m.store.Get(ctx, fleetUsageRecord())
	if errors.Is(err, backend.ErrNotFound) {
		return fleetUsage, backend.Record{}, nil
	}
	if err != nil {
		return 0, rec, errs.OfStore("read the fleet's usage interval", err)
	}
	r, err := record.Open(&rec, record.Fleet)
	if err != nil {
		return 0, rec, err
	}
	field, v, ok := r.Next()
	if interval := clock.MillisOf(r.Millis(v)); ok && field == record.FieldUsageInterval && !r.Bad && r.Rest == "" {
		return max(interval, fleetUsage), rec, nil
	}
	return 0, rec, record.Corrupt(&rec, "usage interval")
}

// joinUsage sees to it that the fleet knows of this Manager's UsageInterval, if that is
// above fleetUsage. The largest stands there until its process has not renewed it for so
// long that the record is due; then a process with a smaller one writes its own.
func (m *Manager) joinUsage(ctx context.Context) error {
	want := m.cfg.UsageInterval
	if want <= fleetUsage {
		return nil
	}
	err := retry.Do(ctx, func(bool) error {
		have, rec, err := m.readFleetUsage(ctx)
		if err != nil {
			return err
		}
		now := clock.Millis(m.now())
		if have >= want && rec.PurgeAt-now > (want+purgeMargin-maxSkew).Milliseconds() {
			return nil
		}
		cond := backend.IfAbsent()
		if rec.Version > 0 {
			cond = backend.IfVersion(rec.Version)
		} else {
			rec = backend.Record{ID: fleetUsageRecord(), Kind: record.Fleet, Created: now}
		}
		// Two intervals, and as far as the clock of whoever purges may be ahead.
		rec.PurgeAt = now + (2*want + purgeMargin).Milliseconds()
		w := record.NewBody()
		w.Number(record.FieldUsageInterval, roundedUp(want))
		w.Seal(&rec)
		_, err = m.records.Replace(ctx, rec, cond)
		return retry.Raced(err)
	})
	if err != nil {
		return fmt.Errorf("fob: tell the fleet the usage interval: %w", err)
	}
	return nil
}

// writeUsage writes usage, and returns when that is due again.
func (m *Manager) writeUsage(ctx context.Context) (next time.Duration, err error) {
	next = m.cfg.UsageInterval
	err = m.joinUsage(ctx)
	if err != nil {
		next = min(next, fleetUsage) // nobody knows that it may be later
	}
	return next, errors.Join(err, m.flushUsage(ctx))
}
