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
		did, failed := s.retireQuiet(ctx, page.Records)
		retired, problems = retired+did, append(problems, failed...)
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

// rotated is a rotation whose old key is still accepted.
type rotated struct {
	rec   *backend.Record // of the rotation
	old   *keystate.State
	least time.Duration // how long the old key must have been unused
}

// retireQuiet retires the quiet keys of a page of rotations. It asks the store a few times
// for the whole page, and then for each key that it may retire: there can be very many
// rotations, and each process looks at all of them.
func (s *Sweeper) retireQuiet(ctx context.Context, page []backend.Record) (retired int, problems []error) {
	now := s.cfg.Clock.Read()
	all, problems := s.open(ctx, page, clock.Millis(now))
	unused, err := s.unused(ctx, all, now)
	if err != nil {
		problems = append(problems, err)
	}
	quiet, err := s.quiet(ctx, unused, now)
	if err != nil {
		problems = append(problems, err)
	}
	for _, r := range quiet {
		did, err := s.retire(ctx, r, now)
		if err != nil {
			problems = append(problems, err)
		}
		if did {
			retired++
		}
	}
	return retired, problems
}

// open returns the rotations of a page that have finished and whose old key has not ended.
func (s *Sweeper) open(ctx context.Context, page []backend.Record, now int64) (open []rotated, problems []error) {
	of := make(map[record.ID]*backend.Record, len(page))
	ids := make([]record.ID, 0, len(page))
	for i := range page {
		id, err := targetOf(&page[i])
		if err != nil {
			problems = append(problems, err)
			continue
		}
		of[id], ids = &page[i], append(ids, id)
	}
	olds, err := s.cfg.Keys.ReadMany(ctx, ids...) // without what was purged: the record of that rotation is purged at its deadline
	if err != nil {
		problems = append(problems, err)
	}
	for _, old := range olds {
		if old.RetireAt != 0 && old.Quiet != 0 && old.EndsAt() > now && old.Status == keystate.Active {
			open = append(open, rotated{rec: of[old.ID], old: old})
		}
	}
	return open, problems
}

// unused returns those of the rotations whose successor has been used, and whose old key
// has not been used within its quiet time. The quiet time counts as at least twice the
// longest interval at which any process of the fleet writes its usage: once because a use
// may not be written yet, and once more because the time of a use comes from a clock that
// may be behind this one.
func (s *Sweeper) unused(ctx context.Context, all []rotated, now time.Time) (unused []rotated, err error) {
	if len(all) == 0 {
		return nil, nil
	}
	ids := make([]record.ID, 0, 2*len(all))
	for _, r := range all {
		ids = append(ids, r.old.ID, r.old.Successor)
	}
	usage, err := s.cfg.Usage(ctx, ids...)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, nil
	case errors.Is(err, errs.ErrCorrupt) && len(all) > 1:
		return s.unusedEach(ctx, all, now) // the store does not say of which key
	case err != nil:
		return nil, err
	}
	interval, err := s.cfg.Fleet.UsageInterval(ctx)
	if err != nil {
		return nil, err
	}
	for i, r := range all {
		r.least = max(clock.MillisOf(r.old.Quiet), 2*interval, 2*s.cfg.Interval)
		if usage[2*i+1].N > 0 && now.Sub(clock.Instant(usage[2*i].Last)) >= r.least {
			unused = append(unused, r)
		}
	}
	return unused, nil
}

// quiet returns those of the rotations whose successor was issued so long ago that the old
// key can have been quiet since then. A key whose successor is gone stays until its overlap
// is over.
func (s *Sweeper) quiet(ctx context.Context, unused []rotated, now time.Time) (quiet []rotated, err error) {
	ids := make([]record.ID, len(unused))
	for i, r := range unused {
		ids[i] = r.old.Successor
	}
	successors, err := s.cfg.Keys.ReadMany(ctx, ids...)
	issued := make(map[record.ID]int64, len(successors))
	for _, k := range successors {
		issued[k.ID] = k.IssuedAt
	}
	for _, r := range unused {
		if at, found := issued[r.old.Successor]; found && now.Sub(clock.Instant(at)) >= r.least {
			quiet = append(quiet, r)
		}
	}
	return quiet, err
}

func (s *Sweeper) unusedEach(ctx context.Context, all []rotated, now time.Time) (unused []rotated, err error) {
	var problems []error
	for i := range all {
		one, err := s.unused(ctx, all[i:i+1], now)
		unused = append(unused, one...)
		if err != nil {
			problems = append(problems, err)
		}
	}
	return unused, errors.Join(problems...)
}

// retire ends the overlap of a key that is quiet. It reports whether it did.
func (s *Sweeper) retire(ctx context.Context, r rotated, now time.Time) (bool, error) {
	retired := false
	old, err := s.cfg.Keys.Edit(backend.Urgent(ctx), r.old.ID, func(k *keystate.State, _ bool) (bool, error) {
		// The key may have been changed or rotated differently meanwhile.
		retired = k.RetireAt == r.old.RetireAt && k.Status == keystate.Active
		if retired {
			k.RetireAt, k.Retired = clock.Millis(now), true
		}
		return retired, nil
	})
	if err != nil || !retired {
		return false, err
	}
	s.cfg.Retired(old)
	if err := s.cfg.Keys.Delete(ctx, r.rec.ID, r.rec.Version); err != nil &&
		!errors.Is(err, backend.ErrNotFound) && !errors.Is(err, backend.ErrConflict) {
		return true, errs.OfStore("fob: delete rotation", err)
	}
	return true, nil
}
