// Package rotation replaces keys by successors (rotator.go), and retires replaced keys
// before the end of their overlap once nobody uses them (sweeper.go). A rotation has
// several steps, and it is safe to stop after each of them. The package does not know how
// texts are verified, nor when it is time for a sweep.
package rotation

import (
	"context"
	"errors"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// putRecord writes the record by which the Sweeper finds a key that may retire early. An
// attempt that did not finish may have left such a record, with a deadline of its own.
func putRecord(ctx context.Context, keys *keystate.Store, old *keystate.State) error {
	rec := backend.Record{
		ID:      record.Named(record.Rotation, string(old.ID[:])),
		Kind:    record.Rotation,
		Owner:   old.Owner,
		Created: old.IssuedAt,
		PurgeAt: old.RetireAt + clock.PurgeMargin.Milliseconds(),
	}
	w := record.NewBody()
	w.ID(record.FieldTarget, old.ID)
	w.Finish(&rec)
	return retry.Do(ctx, func(bool) error {
		cond := backend.IfAbsent()
		left, err := keys.Get(ctx, rec.ID)
		switch {
		case err == nil:
			cond, rec.PurgeAt = backend.IfVersion(left.Version), max(rec.PurgeAt, left.PurgeAt)
		case !errors.Is(err, backend.ErrNotFound):
			return errs.OfStore("read", err)
		}
		_, err = keys.Replace(ctx, rec, cond)
		return retry.Raced(err)
	})
}

// targetOf returns the ID of the key that the record of a rotation is about.
func targetOf(rec *backend.Record) (record.ID, error) {
	r, err := record.Open(rec, record.Rotation)
	if err != nil {
		return record.ID{}, err
	}
	field, v, ok := r.Next()
	id := record.ID(r.ID(v))
	if !ok || field != record.FieldTarget || r.Bad || r.Rest != "" {
		return record.ID{}, record.Corrupt(rec, "fields")
	}
	return id, nil
}
