package keystate

import (
	"context"
	"errors"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/records"
	"github.com/fobkit/fob/internal/retry"
)

// Store reads and changes the keys of a store. It is safe for concurrent use.
type Store struct {
	records.Store
	// Retention is how long the record of a revoked or expired key is kept, in
	// milliseconds, and Margin how long that of an expired one is at least, because the
	// clock of another process may be behind.
	Retention, Margin int64
	Closed            func() bool // nothing is changed any more
}

// Read reads a key from the store, whatever memory has. It is errs.ErrNotFound if there is
// none.
func (s *Store) Read(ctx context.Context, id record.ID) (*State, error) {
	rec, err := s.Get(ctx, id)
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	k := new(State)
	return k, Decode(&rec, k)
}

// Add writes a new key, and gives k its version. One that is there already is
// errs.ErrConflict.
func (s *Store) Add(ctx context.Context, k *State) error {
	version, err := s.Create(ctx, s.RecordOf(k))
	if err != nil {
		return err
	}
	k.Version = version
	return nil
}

// Edit changes a key by compare-and-set: it reads, calls edit, writes, and begins again if
// another change came between. edit reports false when there is nothing to change; unsure
// tells it that an earlier try may have been applied. When Edit has returned nil, no
// verification that begins later sees the old state.
func (s *Store) Edit(ctx context.Context, id record.ID, edit func(k *State, unsure bool) (bool, error)) (edited *State, err error) {
	if s.Closed() {
		return nil, errs.ErrClosed
	}
	err = retry.Do(ctx, func(unsure bool) error {
		k, err := s.Read(ctx, id)
		if err != nil {
			return err
		}
		changed, err := edit(k, unsure)
		if err != nil {
			// What this refusal tells of the key must not be news to a verification after it.
			s.Forget(id)
			return err
		}
		// After an unknown outcome the change is written again even if it can be
		// read: what can be read need not be durable.
		if !changed && !unsure {
			// Somebody else may have made it so, and the feed not have told yet.
			s.Forget(id)
			edited = k
			return nil
		}
		version, err := s.Put(ctx, s.RecordOf(k), backend.IfVersion(k.Version))
		switch {
		case err == nil:
			s.Forget(id)
			k.Version, edited = version, k
			return nil
		case errors.Is(err, backend.ErrIndeterminate):
			s.Forget(id) // it may have been applied
			return retry.Again(errs.OfStore("write", err))
		}
		return retry.Raced(errs.OfStore("write", err))
	})
	return edited, err
}

// RecordOf is the record that a key is written as.
func (s *Store) RecordOf(k *State) backend.Record { return k.Record(s.PurgeAt(k)) }

// PurgeAt is when the record of a key may be forgotten; zero is never. A revoked key is
// accepted by nobody, whatever the clocks; one that expires may still be, by a clock that
// is behind.
func (s *Store) PurgeAt(k *State) int64 {
	end := k.EndsAt()
	switch {
	case k.Status == Revoked && (end == 0 || k.RevokedAt < end):
		return max(k.RevokedAt+s.Retention, k.KeptUntil)
	case end == 0:
		return 0
	}
	return max(s.Retained(end), k.KeptUntil)
}

// Retained is until when the record of something is kept that ends by the clock.
func (s *Store) Retained(end int64) int64 { return end + max(s.Retention, s.Margin) }
