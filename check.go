package fob

import (
	"context"
	"errors"
	"fmt"

	"github.com/fobkit/fob/internal/errs"
)

// Check looks whether the Manager can work as it is configured, for the start of a
// process: New asks nothing of the store, so that a process can start while that is
// down. It reads the store, compares every secret of Config with its check value in the
// store (a pepper or a ForeignKeys.Digest that is another one than before is ErrPepper,
// a SealKey ErrSealKey), lets the other processes know how patient this one is (see
// FleetStaleness), compares the clock with that of the store where it has one (ErrSkew),
// and looks whether the feed was lost. Its error joins all that is
// wrong, what Health.Problems tells too; nil means that nothing is. A secret with which
// nothing was made yet has no check value and is taken for right.
//
// It may be called at any time, by a readiness probe, say: it costs a read for each
// secret, one of the token keys, one of the fleet's record, and one of the store's clock
// where it has one.
func (m *Manager) Check(ctx context.Context) error {
	if m.life.Closed() {
		return ErrClosed
	}
	wrongs := m.peppers.Check(ctx) // a secret that is wrong is a problem, below
	if m.tokens != nil && m.tokens.Stored() {
		if err := m.tokens.Check(ctx); err != nil && errs.IsOutage(err) {
			wrongs = append(wrongs, err)
		} else {
			m.problem(ringName, err)
		}
	}
	if _, err := m.fleet.Bounds(ctx); err != nil {
		wrongs = append(wrongs, err)
	} else if !m.fleet.Joined() {
		if err := m.fleet.Join(ctx); err != nil {
			wrongs = append(wrongs, fmt.Errorf("join the fleet: %w", err))
		}
	}
	if err := m.checkSkew(ctx); err != nil && !errors.Is(err, ErrSkew) {
		wrongs = append(wrongs, err)
	}
	h := m.Health()
	wrongs = append(wrongs, h.Problems...)
	if h.Err != nil {
		wrongs = append(wrongs, h.Err)
	}
	if len(wrongs) == 0 {
		return nil
	}
	return fmt.Errorf("fob: check: %w", errors.Join(wrongs...))
}

// ringName is what the token keys are called among the problems.
const ringName = "token keys"
