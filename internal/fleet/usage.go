package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// Usage is written some time after it was counted. So what the store says of the use of a
// key is behind by up to the interval of the process in which the key was used. A key may
// be retired as unused only if it was unused for longer than that. A process whose interval
// is longer than DefaultUsageInterval announces it in the store, and writes its usage at
// the default interval until it has done so.
//
// The processes that need the record renew it. When none does any more, the record is
// purged, so nobody has to lower the interval.

func usageRecord() record.ID { return record.Named(record.Fleet, "usage interval") }

// UsageInterval reads the longest interval at which any process on the store writes its
// usage; it is at least DefaultUsageInterval. It fails with errs.ErrCorrupt if the record
// cannot be read.
func (f *Fleet) UsageInterval(ctx context.Context) (time.Duration, error) {
	interval, _, err := f.readUsage(ctx)
	return interval, err
}

// readUsage returns the interval and its record. The record is empty if no interval exceeds
// the default.
func (f *Fleet) readUsage(ctx context.Context) (time.Duration, backend.Record, error) {
	rec, err := f.find(ctx, usageRecord(), "read the fleet's usage interval")
	if err != nil || rec.Version == 0 {
		return DefaultUsageInterval, rec, err
	}
	r, err := record.Open(&rec, record.Fleet)
	if err != nil {
		return 0, rec, err
	}
	field, v, ok := r.Next()
	if interval := clock.MillisOf(r.Millis(v)); ok && field == record.FieldUsageInterval && !r.Bad && r.Rest == "" {
		return max(interval, DefaultUsageInterval), rec, nil
	}
	return 0, rec, record.Corrupt(&rec, "usage interval")
}

// JoinUsage announces the interval at which this process writes its usage, and returns the
// interval that this process may use: the default, with an error, if the announcement
// fails. The record holds the longest interval of all processes. If the process with that
// interval has not renewed the record for so long that it is due, a process with a shorter
// interval replaces it by its own.
func (f *Fleet) JoinUsage(ctx context.Context) (interval time.Duration, err error) {
	want := f.cfg.UsageInterval
	if want <= DefaultUsageInterval {
		return want, nil
	}
	err = retry.Do(ctx, func(bool) error {
		have, rec, err := f.readUsage(ctx)
		if err != nil {
			return err
		}
		now := clock.Millis(f.cfg.Clock.Read())
		if have >= want && rec.PurgeAt-now > (want+clock.PurgeMargin-clock.MaxSkew).Milliseconds() {
			return nil
		}
		// The record lasts for two intervals, and for as long as the clock of the process
		// that purges may be ahead.
		rec.PurgeAt = now + (2*want + clock.PurgeMargin).Milliseconds()
		w := record.NewBody()
		w.Number(record.FieldUsageInterval, millisRoundedUp(want))
		rec.ID = usageRecord()
		return retry.Raced(f.replace(ctx, rec, w))
	})
	if err != nil {
		return DefaultUsageInterval, fmt.Errorf("fob: tell the fleet the usage interval: %w", err)
	}
	return want, nil
}
