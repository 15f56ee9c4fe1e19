package recordstore

import (
	"context"
	"errors"

	"github.com/fobkit/fob/backend"
)

// Seen is a store whose reads are observed: Saw or Missing is called before the reader gets
// the record. Only Get is observed, and not what other capabilities of the store read.
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
