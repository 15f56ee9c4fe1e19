package keystate

import (
	"context"
	"errors"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/fobkit/fob/internal/retry"
)

// Store reads and changes the keys of a store. It is safe for concurrent use.
type Store struct {
	recordstore.Store
	// Retention is how long the record of a revoked or expired key is kept, in
	// milliseconds. Margin is how long that of an expired key is kept at least, because the
	// clock of another process may be behind.
	Retention, Margin int64
	Closed            func() bool // reports whether keys must not be changed any more
}

// Read reads a key from the store, without the cache. It fails with errs.ErrNotFound if
// there is none.
func (s *Store) Read(ctx context.Context, id record.ID) (*State, error) {
	rec, err := s.Get(ctx, id)
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	k := new(State)
	return k, Decode(&rec, k)
}

// ReadMany reads many keys, in any order and without those that do not exist. A key that
// cannot be read does not keep it from the others: err joins the errors of all such keys.
func (s *Store) ReadMany(ctx context.Context, ids ...record.ID) (keys []*State, err error) {
	recs, failed, err := s.GetEach(ctx, ids...)
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	var problems []error
	for _, err := range failed {
		problems = append(problems, errs.OfStore("read", err))
	}
	for i := range recs {
		k := new(State)
		if err := Decode(&recs[i], k); err != nil {
			problems = append(problems, err)
			continue
		}
		keys = append(keys, k)
	}
	return keys, errors.Join(problems...)
}

// Add writes a new key, and sets the version of k. It fails with errs.ErrConflict if a key
// with that ID exists already.
func (s *Store) Add(ctx context.Context, k *State) error {
	version, err := s.Create(ctx, s.RecordOf(k))
	if err != nil {
		return err
	}
	k.Version = version
	return nil
}

// Edit changes a key by compare-and-set: it reads the key, calls edit, and writes the key.
// It begins again if another change came between the read and the write. edit reports false
// if there is nothing to change. unsure tells edit that an earlier try may have been
// applied. When Edit has returned nil, no verification that begins later sees the old
// state.
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
			// The caller learns the state of the key from this error. A verification that
			// begins after that must not answer from an older state.
			s.Forget(id)
			return err
		}
		// After an unknown outcome the change is written again even if it can be read,
		// because what can be read need not be durable.
		if !changed && !unsure {
			// Another process may have made the change, and the feed may not have told of
			// it yet.
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
			s.Forget(id) // the write may have been applied
			return retry.Again(errs.OfStore("write", err))
		}
		return retry.Raced(errs.OfStore("write", err))
	})
	return edited, err
}

// RecordOf returns the record of a key, with the time at which the store may purge it.
func (s *Store) RecordOf(k *State) backend.Record { return k.Record(s.PurgeAt(k)) }

// PurgeAt returns when the record of a key may be purged; zero means never. A revoked key
// is accepted by nobody, whatever the clocks say. A key that expires may still be accepted
// by a process whose clock is behind.
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

// Retained returns until when the record is kept of something that ends at an instant (Unix
// milliseconds) by the clock.
func (s *Store) Retained(end int64) int64 { return end + max(s.Retention, s.Margin) }
