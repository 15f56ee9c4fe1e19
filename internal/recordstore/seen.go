package recordstore

import (
	"context"
	"errors"

	"github.com/fobkit/fob/backend"
)

// Seen is a store whose reads are observed: Saw or Missing is called before the reader gets
// the record. Only Get and GetMany are observed, and not what other capabilities of the
// store read.
type Seen struct {
	backend.Store
	Saw     func(rec backend.Record) // called for a record that was read
	Missing func(id backend.ID)      // called for a record that does not exist
}

// Unwrap returns the wrapped store.
func (s *Seen) Unwrap() backend.Store { return s.Store }

// Get implements backend.Store.
func (s *Seen) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	rec, err := s.Store.Get(ctx, id)
	switch {
	case err == nil:
		s.Saw(rec)
	case errors.Is(err, backend.ErrNotFound):
		s.Missing(id)
	}
	return rec, err
}

// GetMany implements backend.BulkReader, also for a store that does not.
func (s *Seen) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	found, err := getMany(ctx, s.Store, ids)
	if err != nil {
		return nil, err
	}
	missing := make(map[backend.ID]struct{}, len(ids))
	for _, id := range ids {
		missing[id] = struct{}{}
	}
	for _, rec := range found {
		delete(missing, rec.ID)
		s.Saw(rec)
	}
	for id := range missing {
		s.Missing(id)
	}
	return found, nil
}
