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

// Usage is written behind, so what the store holds of a key trails by the interval of
// whichever process it was used in. A key may be retired for being quiet only when it was
// for longer than that. A process that takes longer than DefaultUsageInterval writes its
// interval into the store, and until it has, writes as often as the default says.
//
// The record is renewed by who needs it and is purged when nobody does any more, so that
// nobody has to take it back.

func usageRecord() record.ID { return record.Named(record.Fleet, "usage interval") }

// UsageInterval reads the longest interval at which any process on the store writes its
// usage, and DefaultUsageInterval at least. A record that cannot be understood is
// errs.ErrCorrupt.
func (f *Fleet) UsageInterval(ctx context.Context) (time.Duration, error) {
	interval, _, err := f.readUsage(ctx)
	return interval, err
}

// readUsage is UsageInterval, with its record, which is empty where none is above the
// default.
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

// JoinUsage sees to it that the fleet knows at which interval this process writes its
// usage, and returns the interval that it may keep to: the default where that fails. The
// largest of all processes stands in the record until its process has not renewed it for
// so long that the record is due; then a process with a smaller one writes its own.
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
		// Two intervals, and as far as the clock of whoever purges may be ahead.
		rec.PurgeAt = now + (2*want + clock.PurgeMargin).Milliseconds()
		w := record.NewBody()
		w.Number(record.FieldUsageInterval, roundedUp(want))
		rec.ID = usageRecord()
		return retry.Raced(f.replace(ctx, rec, w))
	})
	if err != nil {
		return DefaultUsageInterval, fmt.Errorf("fob: tell the fleet the usage interval: %w", err)
	}
	return want, nil
}
