package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/retry"
)

// fleetDefault is how old an answer may be in a process that has said nothing.
const fleetDefault = fleet.DefaultStaleness

// clockStride is by how much a clock goes on at most from one reading to the next: by
// more nobody knows how old anything is.
const clockStride = 2 * fleet.MaxStaleness

// patience is how old an answer of this Manager may be while its store fails.
func (c *Config) patience() time.Duration { return c.MaxStaleness + c.StaleIfError }

// newFleet makes what the others on the store know of this Manager.
func (m *Manager) newFleet() *fleet.Fleet {
	c := fleet.Config{
		Records: m.records, Clock: &m.clock, Patience: m.cfg.patience(), UsageInterval: m.cfg.UsageInterval,
		Joined: m.engine.Joined,
	}
	if m.cfg.Tokens != nil {
		c.MaxTTL = m.cfg.Tokens.MaxTTL
	}
	return fleet.New(c)
}

// joinFleet joins the fleet if that is still to be done. Until it is, nothing here is
// believed for longer than everybody expects.
func (m *Manager) joinFleet(ctx context.Context) {
	if m.fleet.Joined() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	err := m.fleet.Join(ctx)
	if err != nil {
		err = fmt.Errorf("fob: join the fleet: %w", err)
	}
	switch {
	case err == nil:
		m.problem("fleet", nil)
	case m.life.Context().Err() != nil:
	case errors.Is(err, ErrCorrupt):
		m.problem("fleet", err) // until LowerFleetStaleness mends it
	default:
		m.report(Event{Type: EventUpkeepFailed, Err: err})
	}
}

// FleetStaleness returns how old an answer may be in any process on this store: the
// largest sum of MaxStaleness and StaleIfError that any of them was configured with
// since LowerFleetStaleness, and 2 s at least.
func (m *Manager) FleetStaleness(ctx context.Context) (time.Duration, error) {
	if m.life.Closed() {
		return 0, ErrClosed
	}
	have, err := m.fleet.Bounds(ctx)
	if err != nil {
		return 0, fmt.Errorf("fob: fleet staleness: %w", err)
	}
	return have.Staleness, nil
}

// LowerFleetStaleness takes back what processes with larger settings have raised
// FleetStaleness to, once none of them runs any more: nothing here can know that. One that
// does is told by the feed, and raises it again; until then, or while it is cut off,
// receipts and RevokeEverywhere promise too much. A bound below this Manager's own settings
// is ErrInvalid; below 2 s it means 2 s. A record of the bound that is corrupt is replaced.
func (m *Manager) LowerFleetStaleness(ctx context.Context, bound time.Duration) error {
	if m.life.Closed() {
		return ErrClosed
	}
	if bound = max(bound, fleet.DefaultStaleness); bound < m.cfg.patience() || bound > fleet.MaxStaleness {
		return fmt.Errorf("%w: fleet staleness %v, want %v to %v", ErrInvalid, bound, m.cfg.patience(), fleet.MaxStaleness)
	}
	if err := m.fleet.Lower(ctx, bound); err != nil {
		return fmt.Errorf("fob: lower fleet staleness: %w", err)
	}
	return nil
}

// RevokeEverywhere is Revoke that returns only when no process on this store accepts
// the credential any more, whatever happens to their connections: it waits until the
// receipt's EverywhereBy, 2 s as a rule. If ctx ends before that, the credential
// is revoked all the same and the receipt says so; the error is the context's.
func (m *Manager) RevokeEverywhere(ctx context.Context, id ID, reason RevokeReason) (Receipt, error) {
	receipt, err := m.Revoke(ctx, id, reason)
	if err != nil {
		return Receipt{}, err
	}
	return m.WaitEverywhere(ctx, receipt)
}

// WaitEverywhere waits until what a receipt is about holds in every process, and
// returns the receipt with the instant at which it did. It is for receipts that this
// Manager has just given. If the fleet's bound could not be read then, it is read now.
func (m *Manager) WaitEverywhere(ctx context.Context, receipt Receipt) (Receipt, error) {
	if receipt.At.IsZero() {
		return receipt, fmt.Errorf("fob: wait everywhere: %w: not a receipt", ErrInvalid)
	}
	if m.life.Closed() {
		return receipt, ErrClosed
	}
	var backoff retry.Backoff
	for receipt.EverywhereBy.Sub(receipt.At) >= fleet.MaxStaleness {
		bound, err := m.FleetStaleness(ctx)
		if err == nil {
			receipt.EverywhereBy = receipt.At.Add(bound)
			break
		}
		if errors.Is(err, ErrClosed) || errors.Is(err, ErrCorrupt) {
			return receipt, err
		}
		if err := m.sleep(ctx, backoff.Next()); err != nil {
			return receipt, err
		}
	}
	if err := m.sleep(ctx, receipt.EverywhereBy.Sub(m.now())); err != nil {
		return receipt, err
	}
	return receipt, nil
}

// sleep waits for d, and no longer than ctx or the Manager last.
func (m *Manager) sleep(ctx context.Context, d time.Duration) error {
	err := m.life.Sleep(ctx, d)
	if err != nil && !errors.Is(err, ErrClosed) {
		return fmt.Errorf("fob: wait everywhere: %w", err)
	}
	return err
}
