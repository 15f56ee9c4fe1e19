package marks

import (
	"context"
	"errors"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/fobkit/fob/internal/retry"
)

// Ledger reads and writes the records of marks, and keeps the Set up to date with what it
// finds. It is safe for concurrent use. Its writes are urgent (backend.Urgent), and durable
// once it has returned nil.
type Ledger struct {
	*Set
	Store recordstore.Store
	Clock *clock.Clock
	// Problem is told of a mark that cannot be read; a nil error says that the mark can be
	// read again.
	Problem func(id record.ID, err error)
}

// Learn adds a mark to the set, and then drops every answer in memory that was made from an
// older state. In this order an answer that is made between the two is made from the new
// mark, or is dropped. Learn also drops the answers if the set has the mark already,
// because the store may have had the mark before the feed told of it.
func (l *Ledger) Learn(id record.ID, to Mark) {
	l.Raise(id, to)
	l.Store.Forget(id)
}

// Read reads one mark from the store. created is when its record was made (Unix
// milliseconds). Both are zero if there is no such mark. A record that cannot be read is
// errs.ErrCorrupt. Errors of the store are returned as they are.
func (l *Ledger) Read(ctx context.Context, id record.ID) (found Mark, created int64, err error) {
	found, rec, err := l.get(ctx, id, Decode)
	return found, rec.Created, err
}

// Any reports whether ends returns true for one of the marks whose records have the ids. If
// live is true, a mark that the set knows is taken from there. The others are read from the
// store, all in one call; before that, reads is called with each of their ids. The errors
// are those of Read.
func (l *Ledger) Any(ctx context.Context, live bool, reads func(record.ID), ends func(record.ID, *Mark) bool, ids ...record.ID) (bool, error) {
	var unknown []record.ID
	for _, id := range ids {
		found, known := l.Get(id)
		switch {
		case !live || !known:
			unknown = append(unknown, id)
		case found.Bad != nil:
			return false, found.Bad
		case ends(id, &found):
			return true, nil
		}
	}
	for _, id := range unknown {
		reads(id)
	}
	read, err := l.ReadAll(ctx, unknown...)
	if err != nil {
		return false, err
	}
	for i, id := range unknown {
		if ends(id, &read[i]) {
			return true, nil
		}
	}
	return false, nil
}

// ReadAll reads many marks from the store, in one call. The marks are in the order of ids;
// the zero Mark where there is none. Its errors are those of Read.
func (l *Ledger) ReadAll(ctx context.Context, ids ...record.ID) ([]Mark, error) {
	recs, err := l.Store.GetMany(ctx, ids...)
	if err != nil {
		return nil, err
	}
	found := make([]Mark, len(ids))
	for i := range recs {
		mark, err := Decode(&recs[i])
		if err != nil {
			return nil, err
		}
		for at, id := range ids {
			if id == recs[i].ID {
				found[at] = mark
			}
		}
	}
	return found, nil
}

func (l *Ledger) get(ctx context.Context, id record.ID, decode func(*backend.Record) (Mark, error)) (Mark, backend.Record, error) {
	rec, err := l.Store.Get(ctx, id)
	if errors.Is(err, backend.ErrNotFound) {
		return Mark{}, backend.Record{}, nil
	}
	if err != nil {
		return Mark{}, backend.Record{}, err
	}
	found, err := decode(&rec)
	return found, rec, err
}

// The epoch of a subject is a number that only rises. A credential is stamped with it at
// issue, and is revoked when it rises. The epoch is at least the Unix time in milliseconds
// of the last revocation. So it rises even if the store was restored from a backup and has
// lost its last values. All of this is so for the epoch of an issuer too.

// ReadEpoch reads from the store the epoch of the subject whose record has the ID; zero if
// there is none. Its errors are those of Read.
func (l *Ledger) ReadEpoch(ctx context.Context, id record.ID) (uint64, error) {
	found, _, err := l.get(ctx, id, DecodeEpoch)
	return found.Epoch, err
}

// RaiseEpoch raises the epoch of a subject. If least is not zero, it raises the epoch to
// least, and does nothing if the epoch is that high already. If least is zero, it raises
// the epoch to a new value. It returns the epoch that it wrote, may have written, or found
// to be high enough. owner is the subject as stores list it.
func (l *Ledger) RaiseEpoch(ctx context.Context, id record.ID, owner, reason string, least uint64) (epoch uint64, err error) {
	err = retry.Do(ctx, func(bool) error {
		old, found, err := l.get(ctx, id, DecodeEpoch)
		if err != nil {
			return errs.OfStore("read", err)
		}
		if least > 0 && old.Epoch >= least {
			l.Store.Forget(id) // the feed may not have told of it yet
			epoch = old.Epoch
			return nil
		}
		now := l.now()
		if epoch = least; epoch == 0 {
			epoch = old.above(now)
		}
		rec, cond := recordOver(found, record.Subject, id, now)
		rec.Owner = owner
		w := record.NewBody()
		w.Text(record.FieldReason, reason)
		w.Number(record.FieldEpoch, epoch)
		w.Finish(&rec)
		return l.write(ctx, rec, cond, Mark{Epoch: epoch, Reason: reason})
	})
	return epoch, err
}

// RaiseIssuer raises the mark of the issuer whose record has the ID. If to has an epoch,
// the mark is raised until it covers to; nothing is written if it does already. If to has
// no epoch, the mark gets a new epoch, and tokens with a lower stamp are revoked: those
// that were issued before to.Before, or all of them if to.Before is zero. RaiseIssuer
// returns the mark that it wrote, may have written, or found.
func (l *Ledger) RaiseIssuer(ctx context.Context, id record.ID, to Mark) (made Mark, err error) {
	err = retry.Do(ctx, func(bool) error {
		now := l.now()
		old, found, err := l.get(ctx, id, Decode)
		if errors.Is(err, errs.ErrCorrupt) {
			return err // not through OfStore, because it says already what was read
		}
		if err != nil {
			return errs.OfStore("read", err)
		}
		next := to
		switch {
		case to.Epoch != 0 && old.Covers(&to):
			l.Learn(id, old)
			made = old
			return nil
		case to.Epoch == 0:
			next.Epoch = old.above(now)
			if to.Before == 0 {
				next.Ends = next.Epoch
			}
		}
		made = next.Join(old)
		rec, cond := recordOver(found, record.Mark, id, now)
		made.Encode(&rec)
		return l.write(ctx, rec, cond, made)
	})
	return made, err
}

// End writes the mark that revokes a token or a family. already says that the mark existed,
// and nothing was written. The record may be purged from purgeAt on (Unix milliseconds).
//
// Nobody has such a mark as a rule, so End writes first, and reads only if there was one.
func (l *Ledger) End(ctx context.Context, id record.ID, purgeAt int64, reason string) (already bool, err error) {
	to := Mark{Before: clock.Forever, PurgeAt: purgeAt, Reason: reason}
	found := false
	err = retry.Do(ctx, func(bool) error {
		if found {
			old, _, err := l.get(ctx, id, Decode)
			if err != nil {
				return errs.OfStore("read", err)
			}
			if old != (Mark{}) {
				l.Learn(id, old)
				already = true
				return nil
			}
		}
		rec, cond := recordOver(backend.Record{}, record.Mark, id, l.now())
		rec.PurgeAt = purgeAt
		to.Encode(&rec)
		err := l.write(ctx, rec, cond, to)
		found = err != nil
		return err
	})
	return already && err == nil, err
}

func (l *Ledger) now() int64 { return clock.Millis(l.Clock.Read()) }

// above returns an epoch that is higher than that of the mark. now is in Unix milliseconds.
func (k *Mark) above(now int64) uint64 { return max(k.Epoch+1, uint64(now)) }

// recordOver returns a record without a body, to be written in the place of found, and the
// condition under which it may be written. A found without a version means that there was
// no record.
func recordOver(found backend.Record, kind backend.Kind, id record.ID, now int64) (backend.Record, backend.Cond) {
	if found.Version == 0 {
		return backend.Record{ID: id, Kind: kind, Created: now}, backend.IfAbsent()
	}
	return backend.Record{ID: id, Kind: kind, Created: found.Created}, backend.IfVersion(found.Version)
}

// write writes a mark, at the end of a try.
func (l *Ledger) write(ctx context.Context, rec backend.Record, cond backend.Cond, to Mark) error {
	if _, err := l.Store.Replace(backend.Urgent(ctx), rec, cond); err != nil {
		return retry.Raced(err)
	}
	l.Learn(rec.ID, to)
	return nil
}
