package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/internal/fleet"
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
