package rotation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/usagelog"
	"golang.org/x/sync/semaphore"
)

// pageSize is how many rotations are read at a time. It is small because a store may be so
// slow that one sweep cannot look at all rotations.
const pageSize = 100

// Config is what a Sweeper needs. Its pointers and functions must not be nil, and must be
// safe for concurrent use.
type Config struct {
	Keys  *keystate.Store
	Clock *clock.Clock
	Fleet *fleet.Fleet
	// Interval is how often this process writes its usage.
	Interval time.Duration
	// Usage returns how credentials were used, in the order of ids. It fails with
	// errors.ErrUnsupported if the store keeps no usage; then no key counts as quiet.
	Usage func(ctx context.Context, ids ...record.ID) ([]usagelog.Tally, error)
	// Retired is called for each key that was retired.
	Retired func(old *keystate.State)
}

// Sweeper retires rotated keys that are no longer used. It goes through all rotations, a
// part of them in each sweep. It is safe for concurrent use.
type Sweeper struct {
	cfg   Config
	turn  *semaphore.Weighted // held by the call that sweeps
	after backend.Cursor      // where the next sweep begins
}

// NewSweeper makes a Sweeper that begins with the first rotation.
func NewSweeper(c Config) *Sweeper { return &Sweeper{cfg: c, turn: semaphore.NewWeighted(1)} }

// Sweep ends the overlap of rotated keys whose successor is in use and which have not been
// used for their quiet time. It begins where the last sweep stopped, and more reports
// whether there are rotations that it has not looked at. It looks at no more rotations than
// a store must be able to list at a time (backend.MaxLimit), and at none if the store
// cannot list. A key that it could not look at does not keep it from the others; err joins
// the errors of all such keys.
func (s *Sweeper) Sweep(ctx context.Context) (retired int, more bool, err error) {
	lister, ok := backend.As[backend.Lister](s.cfg.Keys.Store.Store)
	if !ok {
		return 0, false, nil
	}
	if err := s.turn.Acquire(ctx, 1); err != nil {
		return 0, true, fmt.Errorf("fob: retire rotated keys: %w", err)
	}
	defer s.turn.Release(1)
	var problems []error
	for looked := 0; looked < backend.MaxLimit; {
		page, err := lister.List(ctx, backend.Query{Kind: record.Rotation, Limit: pageSize, After: s.after})
		if err != nil {
			s.after = "" // the error may be about the cursor
			return retired, true, errors.Join(append(problems, errs.OfStore("fob: list rotations", err))...)
		}
		for i := range page.Records {
			did, err := s.retireIfQuiet(ctx, &page.Records[i])
			if err != nil {
				problems = append(problems, err)
			}
			if did {
				retired++
			}
		}
		if ctx.Err() != nil {
			return retired, true, errors.Join(problems...) // the next sweep looks at this page again
		}
		looked += len(page.Records)
		if s.after = page.Next; page.Next == "" {
			break
		}
	}
	return retired, s.after != "", errors.Join(problems...)
}

func (s *Sweeper) retireIfQuiet(ctx context.Context, rec *backend.Record) (bool, error) {
	id, err := targetOf(rec)
	if err != nil {
		return false, err
	}
	now := s.cfg.Clock.Read()
	old, err := s.cfg.Keys.Read(ctx, id)
	switch {
	case errors.Is(err, errs.ErrNotFound):
		return false, nil // the record of this rotation is purged at its deadline
	case err != nil:
		return false, err
	case old.RetireAt == 0 || old.Quiet == 0 || old.EndsAt() <= clock.Millis(now) || old.Status != keystate.Active:
		return false, nil // the rotation has not finished, or the key has ended already
	}
	quiet, err := s.isQuiet(ctx, old, now)
	if err != nil || !quiet {
		return false, err
	}
	retired := false
	old, err = s.cfg.Keys.Edit(backend.Urgent(ctx), id, func(k *keystate.State, _ bool) (bool, error) {
		// The key may have been changed or rotated differently meanwhile.
		retired = k.RetireAt == old.RetireAt && k.Status == keystate.Active
		if retired {
			k.RetireAt, k.Retired = clock.Millis(now), true
		}
		return retired, nil
	})
	if err != nil || !retired {
		return false, err
	}
	s.cfg.Retired(old)
	if err := s.cfg.Keys.Delete(ctx, rec.ID, rec.Version); err != nil &&
		!errors.Is(err, backend.ErrNotFound) && !errors.Is(err, backend.ErrConflict) {
		return true, errs.OfStore("fob: delete rotation", err)
	}
	return true, nil
}

// isQuiet reports whether the successor has been used, and the old key has been used
// neither since the successor was issued nor within its quiet time. The quiet time counts
// as at least twice the longest interval at which any process of the fleet writes its
// usage: once because a use may not be written yet, and once more because the time of a use
// comes from a clock that may be behind this one.
func (s *Sweeper) isQuiet(ctx context.Context, old *keystate.State, now time.Time) (bool, error) {
	usage, err := s.cfg.Usage(ctx, old.ID, old.Successor)
	if errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	successor, err := s.cfg.Keys.Read(ctx, old.Successor)
	if err != nil {
		return false, err
	}
	interval, err := s.cfg.Fleet.UsageInterval(ctx)
	if err != nil {
		return false, err
	}
	least := max(clock.MillisOf(old.Quiet), 2*interval, 2*s.cfg.Interval)
	last := clock.Instant(usage[0].Last)
	if issued := clock.Instant(successor.IssuedAt); last.Before(issued) {
		last = issued
	}
	return usage[1].N > 0 && now.Sub(last) >= least, nil
}
