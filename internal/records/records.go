// Package records writes the records of a store as a Manager does: it is sure of what it
// has written, or says that it is not.
package records

import (
	"context"
	"errors"
	"fmt"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/retry"
)

// Store is a store and what has to be told of each change of it. It is safe for
// concurrent use if Forget is.
type Store struct {
	backend.Store
	// Forget ends the answers in memory that were made from these records. It is called
	// after each write that was made, or may have been.
	Forget func(ids ...backend.ID)
}

// Create writes a new record and is sure of it when it returns nil. One that is there
// already is errs.ErrConflict.
func (s *Store) Create(ctx context.Context, rec backend.Record) (version uint64, err error) {
	return s.Replace(ctx, rec, backend.IfAbsent())
}

// Replace writes rec under cond. If the store cannot say whether it did, it looks, and
// writes again what it finds to be its own.
func (s *Store) Replace(ctx context.Context, rec backend.Record, cond backend.Cond) (version uint64, err error) {
	err = retry.Do(ctx, func(unsure bool) error {
		if unsure {
			found, err := s.Get(ctx, rec.ID)
			switch {
			case errors.Is(err, backend.ErrNotFound): // surely not applied: the same condition again
			case err != nil:
				return errs.OfStore("write", err)
			case string(found.Body) == string(rec.Body) && found.Created == rec.Created:
				cond = backend.IfVersion(found.Version)
			default:
				if v, ok := cond.Version(); !ok || v != found.Version {
					return fmt.Errorf("fob: write: %w", errs.ErrConflict) // ours may have come before it
				}
			}
		}
		var err error
		if version, err = s.Put(ctx, rec, cond); err == nil {
			s.Forget(rec.ID)
			return nil
		}
		if err = errs.OfStore("write", err); errors.Is(err, errs.ErrIndeterminate) {
			s.Forget(rec.ID)
			return retry.Again(err)
		}
		return err
	})
	return version, err
}
