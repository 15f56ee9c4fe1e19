package fob

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// The fleet is every process on one store. How old an answer may be in the most
// patient of them decides when a revocation holds everywhere. A process that stays
// within fleetDefault need not say so. One whose settings allow more writes that into
// the store first, and until that is done it keeps to the default. So a revocation that
// reads the bound after its own write knows the bound of everybody who could hold an
// older answer: who raised it later began to read later, and found the revocation.
const fleetDefault = defaultStaleness

// Likewise for how long tokens live: a revocation of one must be known for as long as any
// process accepts it. Whoever gives a token a longer life than defaultMaxTTL writes that
// into the store first, and nobody takes it back: such tokens may outlive their issuer.

// worst is more than any Config allows: the bound while nobody can be asked.
const worst = maxStaleness + maxStaleIfError

// clockStride is by how much a clock goes on at most from one reading to the next: by
// more nobody knows how old anything is.
const clockStride = 2 * worst

func fleetRecord() record.ID { return record.Named(record.Fleet, "staleness") }

// patience is how old an answer of this Manager may be while its store fails.
func (c *Config) patience() time.Duration { return c.MaxStaleness + c.StaleIfError }

// fleet is for joining and leaving at the same time.
type fleet struct {
	mu   sync.Mutex // guards left, and whether the engine has joined
	left int        // how often it was left
	// ttl is the life of tokens, in nanoseconds, that the fleet is known to know of.
	ttl atomic.Int64
}

// bounds is what the fleet's record says.
type bounds struct {
	staleness time.Duration // how old an answer may be in any process
	ttl       time.Duration // how long any token lives
}

// leaveFleet makes nothing be believed for longer than everybody expects, until the fleet
// is joined anew: by whoever begins to after this, for what was read before counts no more.
func (m *Manager) leaveFleet() {
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	m.fleet.left++
	m.fleet.ttl.Store(0)
	m.engine.Leave()
}

// fleetLeft is how often it was left until now.
func (m *Manager) fleetLeft() int {
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	return m.fleet.left
}

// enterFleet notes that the fleet knows, unless it was left since left was read.
func (m *Manager) enterFleet(left int) {
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	if m.fleet.left == left {
		m.engine.Join(m.clock.Now().Mono)
	}
}

// joinFleet raises the fleet's bound to this Manager's, if that is higher.
func (m *Manager) joinFleet(ctx context.Context) error {
	left := m.fleetLeft()
	if err := m.raiseFleet(ctx, bounds{staleness: m.cfg.patience()}); err != nil {
		return err
	}
	m.enterFleet(left)
	return nil
}

// raiseFleet raises the fleet's bounds to want where they are lower.
func (m *Manager) raiseFleet(ctx context.Context, want bounds) error {
	return retry.Do(ctx, func(bool) error {
		have, rec, err := m.readFleet(ctx)
		if err != nil || have.staleness >= want.staleness && have.ttl >= want.ttl {
			return err
		}
		return retry.Raced(m.writeFleet(ctx, rec, bounds{max(have.staleness, want.staleness), max(have.ttl, want.ttl)}))
	})
}

// announceTTL makes sure that the fleet knows of tokens that live so long, before one is
// issued.
func (m *Manager) announceTTL(ctx context.Context, ttl time.Duration) error {
	if ttl <= defaultMaxTTL || int64(ttl) <= m.fleet.ttl.Load() {
		return nil
	}
	left := m.fleetLeft()
	ttl = max(ttl, m.cfg.Tokens.MaxTTL) // once for all of them
	if err := m.raiseFleet(ctx, bounds{ttl: ttl}); err != nil {
		return err
	}
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	if m.fleet.left == left {
		m.fleet.ttl.Store(max(m.fleet.ttl.Load(), int64(ttl)))
	}
	return nil
}

// longestTTL is how long any token lives that a process on this store accepts. Where
// that cannot be read it is the most that any Config allows: a mark that is kept for too
// long costs memory, one that is gone too early brings a token back.
func (m *Manager) longestTTL(ctx context.Context) time.Duration {
	have, _, err := m.readFleet(ctx)
	if err != nil {
		return limitTTL
	}
	return max(have.ttl, m.cfg.Tokens.MaxTTL)
}

// tryJoin joins the fleet if that is still to be done. Until it is, nothing here is
// believed for longer than everybody expects.
func (m *Manager) tryJoin(ctx context.Context) {
	if m.engine.Joined() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	switch err := m.joinFleet(ctx); {
	case err == nil:
		m.problem("fleet", nil)
	case m.running.Err() != nil:
	case errors.Is(err, ErrCorrupt):
		m.problem("fleet", fmt.Errorf("fob: join the fleet: %w", err)) // until LowerFleetStaleness mends it
	default:
		m.report(Event{Type: EventUpkeepFailed, Err: fmt.Errorf("fob: join the fleet: %w", err)})
	}
}

// rejoin joins anew if the fleet's bound is no longer as high as this Manager needs: it
// was lowered by somebody who did not know of it.
func (m *Manager) rejoin(ctx context.Context) {
	if m.cfg.patience() <= fleetDefault {
		return
	}
	if have, _, err := m.readFleet(ctx); err == nil && have.staleness >= m.cfg.patience() {
		return
	}
	m.leaveFleet()
	m.tryJoin(ctx)
}

// writeFleet writes the bounds over rec, which is what readFleet found.
func (m *Manager) writeFleet(ctx context.Context, rec backend.Record, to bounds) error {
	cond := backend.IfAbsent()
	if rec.Version > 0 {
		cond = backend.IfVersion(rec.Version)
	} else {
		rec = backend.Record{ID: fleetRecord(), Kind: record.Fleet, Created: clock.Millis(m.now())}
	}
	w := record.NewBody()
	w.Number(record.FieldStaleness, roundedUp(to.staleness))
	w.Number(record.FieldMaxTTL, roundedUp(to.ttl))
	w.Seal(&rec)
	_, err := m.records.Replace(ctx, rec, cond)
	return err
}

// roundedUp is d in milliseconds.
func roundedUp(d time.Duration) uint64 { return uint64((d + time.Millisecond - 1).Milliseconds()) }

// readFleet returns the fleet's bounds and their record, which is empty where nobody has
// raised one.
func (m *Manager) readFleet(ctx context.Context) (bounds, backend.Record, error) {
	found := bounds{fleetDefault, defaultMaxTTL}
	rec, err := m.store.Get(ctx, fleetRecord())
	if errors.Is(err, backend.ErrNotFound) {
		return found, backend.Record{}, nil
	}
	if err != nil {
		return bounds{}, rec, errs.OfStore("read the fleet's bounds", err)
	}
	r, err := record.Open(&rec, record.Fleet)
	if err != nil {
		return bounds{}, rec, err
	}
	for field, v := range r.Fields {
		switch ms := r.Millis(v); {
		case field == record.FieldStaleness && ms <= worst.Milliseconds():
			found.staleness = max(found.staleness, clock.MillisOf(ms))
		case field == record.FieldMaxTTL && ms <= limitTTL.Milliseconds():
			found.ttl = max(found.ttl, clock.MillisOf(ms))
		default:
			r.Bad = true
		}
	}
	if r.Bad {
		return bounds{}, rec, record.Corrupt(&rec, "bounds")
	}
	return found, rec, nil
}

// FleetStaleness returns how old an answer may be in any process on this store: the
// largest sum of MaxStaleness and StaleIfError that any of them was configured with
// since LowerFleetStaleness, and 2 s at least.
func (m *Manager) FleetStaleness(ctx context.Context) (time.Duration, error) {
	if m.closed.Load() {
		return 0, ErrClosed
	}
	have, _, err := m.readFleet(ctx)
	if err != nil {
		return 0, fmt.Errorf("fob: fleet staleness: %w", err)
	}
	return have.staleness, nil
}

// LowerFleetStaleness takes back what processes with larger settings have raised
// FleetStaleness to, once none of them runs any more: nothing here can know that. One that
// does is told by the feed, and raises it again; until then, or while it is cut off,
// receipts and RevokeEverywhere promise too much. A bound below this Manager's own settings
// is ErrInvalid; below 2 s it means 2 s. A record of the bound that is corrupt is replaced.
func (m *Manager) LowerFleetStaleness(ctx context.Context, bound time.Duration) error {
	if m.closed.Load() {
		return ErrClosed
	}
	if bound = max(bound, fleetDefault); bound < m.cfg.patience() || bound > worst {
		return fmt.Errorf("%w: fleet staleness %v, want %v to %v", ErrInvalid, bound, m.cfg.patience(), worst)
	}
	err := retry.Do(ctx, func(bool) error {
		have, rec, err := m.readFleet(ctx)
		if errors.Is(err, ErrCorrupt) && rec.Kind == record.Fleet {
			// Nobody knows how long tokens live, either.
			have, err = bounds{worst + 1, limitTTL}, nil
		}
		if err == nil && bound < have.staleness {
			err = m.writeFleet(ctx, rec, bounds{bound, have.ttl})
		}
		return retry.Raced(err)
	})
	if err != nil {
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
	if m.closed.Load() {
		return receipt, ErrClosed
	}
	for pause := followPause; receipt.EverywhereBy.Sub(receipt.At) >= worst; pause = min(2*pause, followPauseMax) {
		bound, err := m.FleetStaleness(ctx)
		if err == nil {
			receipt.EverywhereBy = receipt.At.Add(bound)
			break
		}
		if errors.Is(err, ErrClosed) || errors.Is(err, ErrCorrupt) {
			return receipt, err
		}
		if err := m.sleep(ctx, pause); err != nil {
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
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("fob: wait everywhere: %w", ctx.Err())
	case <-m.running.Done():
		return ErrClosed
	}
}
