package records

import (
	"context"
	"errors"

	"github.com/fobkit/fob/backend"
)

// Seen is a store of which somebody is told what is read, before the reader is. Its
// capabilities are the store's own; what they read nobody is told of here.
type Seen struct {
	backend.Store
	Saw     func(rec *backend.Record) // a record that was read
	Missing func(id backend.ID)       // there is none
}

// Unwrap returns the store itself.
func (s *Seen) Unwrap() backend.Store { return s.Store }

// Get implements backend.Store.
func (s *Seen) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	rec, err := s.Store.Get(ctx, id)
	switch {
	case err == nil:
		s.Saw(&rec)
	case errors.Is(err, backend.ErrNotFound):
		s.Missing(id)
	}
	return rec, err
}
