// Package recordstore writes records into a store, and tells whoever has to know of each
// change. A write has either succeeded when it returns nil, or its error says that the
// outcome is unknown. The package does not know what the records hold.
package recordstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/retry"
)

// Store is a store, and the function that has to know of each change. It is safe for
// concurrent use if Forget is.
type Store struct {
	backend.Store
	// Forget drops the answers in memory that were made from these records. It is called
	// after each write that succeeded, or may have succeeded.
	Forget func(ids ...backend.ID)
}

// Create writes a new record. If it returns nil, the record was surely written. It fails
// with errs.ErrConflict if there is a record with that ID already.
func (s *Store) Create(ctx context.Context, rec backend.Record) (version uint64, err error) {
	return s.Replace(ctx, rec, backend.IfAbsent())
}

// Replace writes rec under cond. If the outcome of a write is unknown, Replace reads the
// record. If it finds what it wrote, it writes it again, because what can be read need not
// be durable.
func (s *Store) Replace(ctx context.Context, rec backend.Record, cond backend.Cond) (version uint64, err error) {
	err = retry.Do(ctx, func(unsure bool) error {
		if unsure {
			found, err := s.Get(ctx, rec.ID)
			switch {
			case errors.Is(err, backend.ErrNotFound): // surely not applied: write again under the same condition
			case err != nil:
				return errs.OfStore("write", err)
			case string(found.Body) == string(rec.Body) && found.Created == rec.Created:
				cond = backend.IfVersion(found.Version)
			default:
				if v, ok := cond.Version(); !ok || v != found.Version {
					return fmt.Errorf("fob: write: %w", errs.ErrConflict) // what was written here may have come before it
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

// GetMany reads many records, of which those that do not exist are left out. A store that
// is no backend.BulkReader is asked for one record after the other.
func (s *Store) GetMany(ctx context.Context, ids ...backend.ID) ([]backend.Record, error) {
	return getMany(ctx, s.Store, ids)
}

// GetEach is GetMany for records of which the store may be unable to read some. Where it is,
// and does not say of which, each is read by itself, and failed has the errors of those that
// could not be read, by their IDs. If there is another error, nothing was read.
func (s *Store) GetEach(ctx context.Context, ids ...backend.ID) (found []backend.Record, failed map[backend.ID]error, err error) {
	if found, err = s.GetMany(ctx, ids...); !errors.Is(err, backend.ErrCorrupt) {
		return found, nil, err
	}
	found, failed = nil, make(map[backend.ID]error)
	for _, id := range ids {
		rec, err := s.Get(ctx, id)
		switch {
		case err == nil:
			found = append(found, rec)
		case !errors.Is(err, backend.ErrNotFound):
			failed[id] = err
		}
	}
	return found, failed, nil
}

func getMany(ctx context.Context, store backend.Store, ids []backend.ID) (found []backend.Record, err error) {
	if bulk, ok := backend.As[backend.BulkReader](store); ok && len(ids) > 1 {
		for part := range slices.Chunk(ids, backend.MaxLimit) {
			recs, err := bulk.GetMany(ctx, part)
			if err != nil {
				return nil, err
			}
			found = append(found, recs...)
		}
		return found, nil
	}
	for _, id := range ids {
		rec, err := store.Get(ctx, id)
		switch {
		case err == nil:
			found = append(found, rec)
		case !errors.Is(err, backend.ErrNotFound):
			return nil, err
		}
	}
	return found, nil
}
