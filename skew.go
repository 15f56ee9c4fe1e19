package fob

import (
	"context"
	"errors"
	"fmt"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
)

// What two clocks may differ by, and for how much longer records are kept for that.
const (
	maxSkew     = clock.MaxSkew
	purgeMargin = clock.PurgeMargin
)

// checkSkew compares the clock with that of the store, where it has one, and is
// ErrSkew if any difference was seen that is more than clock.MaxSkew. That is a problem of
// Health as long as it is.
func (m *Manager) checkSkew(ctx context.Context) (err error) {
	if theirs, ok := backend.As[backend.Clock](m.store); ok {
		err := m.skew.Compare(ctx, &m.clock, theirs.Now)
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return errs.OfStore("fob: read the store's clock", err)
		}
	}
	defer func() { m.problem("clock", err) }()
	if by := m.skew.Get(m.clock.Now()); by.Abs() > clock.MaxSkew {
		return fmt.Errorf("%w: another clock differs by %v (negative: it is behind), at most %v are allowed", ErrSkew, by, clock.MaxSkew)
	}
	return nil
}
