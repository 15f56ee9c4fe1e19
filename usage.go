package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/usagelog"
)

// Usage is how often a credential was accepted, and when last. It is written
// behind: what the store holds trails by up to Config.UsageInterval, and a
// crash loses at most that much. It is never counted twice.
//
// What a key is exchanged for is used in its name: an exchange, each acceptance of such
// a token by a Manager, and each refresh is a use of the key. A token of no key has no
// usage; what a TokenVerifier accepts is seen by nobody.
type Usage struct {
	Count      uint64
	LastUsedAt time.Time // UTC, milliseconds; zero: never used
}

// flushUsage writes what was used since the last time.
func (m *Manager) flushUsage(ctx context.Context) error {
	recorder, _ := backend.As[backend.UsageRecorder](m.store)
	return m.usage.Flush(ctx, recorder, func(err error) { m.observe(Event{Type: EventUsageLost, Err: err}) })
}

// writeUsage writes usage, and returns when that is due again.
func (m *Manager) writeUsage(ctx context.Context) (next time.Duration, err error) {
	next, err = m.fleet.JoinUsage(ctx)
	return next, errors.Join(err, m.flushUsage(ctx))
}

// Usage returns how a credential was used: what the store holds and what this
// Manager has not written yet. A store that keeps no usage fails with
// errors.ErrUnsupported. An ID that was never used, or never was, gives zeros.
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
