package marks

import (
	"context"
	"errors"
	"fmt"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
	"github.com/fobkit/fob/internal/retry"
)

// Ledger reads and writes the records of marks, and keeps the Set up with what it finds.
// It is safe for concurrent use. What it writes is urgent (backend.Urgent), and durable
// once it has returned nil.
type Ledger struct {
	*Set
	Store recordstore.Store
	Clock *clock.Clock
	// Problem is told of a mark that cannot be read, and with nil of one that can again.
	Problem func(id record.ID, err error)
}

// Learn notes a mark, and then forgets every answer that was made from an older one.
// The two are one step, in this order: an answer that is made between them is made
// from the new mark, or is forgotten. It forgets also where the mark is no news, for
// the store may know of it before the feed has told.
func (l *Ledger) Learn(id record.ID, to Mark) {
	l.Raise(id, to)
	l.Store.Forget(id)
}

// Read reads one mark from the store, and when its record was made (Unix milliseconds);
// zeros if there is none. Other errors of the store come as they are. A record that cannot
// be read is errs.ErrCorrupt.
func (l *Ledger) Read(ctx context.Context, id record.ID) (found Mark, created int64, err error) {
	found, rec, err := l.get(ctx, id, Decode)
	return found, rec.Created, err
}

// Load reads all marks anew, at the beginning of a feed. One that cannot be read is a
// problem, and no error.
func (l *Ledger) Load(ctx context.Context, lister backend.Lister) error {
	all := make(map[record.ID]Mark)
	for _, kind := range []backend.Kind{record.Mark, record.Subject} {
		q := backend.Query{Kind: kind, Limit: backend.MaxLimit}
		for {
			page, err := lister.List(ctx, q)
			if err != nil {
				return err
			}
			for i := range page.Records {
				rec := &page.Records[i]
				if all[rec.ID], err = Decode(rec); err != nil {
					all[rec.ID] = l.unreadable(rec.ID, err)
				}
			}
			if q.After = page.Next; q.After == "" {
				break
			}
		}
	}
	l.Replace(all, func(id record.ID) { l.Problem(id, nil) })
	return nil
}

// Changed reads a mark of which the feed has told that it changed, and takes it in. One that
// cannot be read is a problem; an error says that the store could not be asked.
func (l *Ledger) Changed(ctx context.Context, id record.ID) (to Mark, created int64, err error) {
	was := l.Get(id)
	to, created, err = l.Read(ctx, id)
	switch {
	case errors.Is(err, errs.ErrCorrupt):
		l.Spoil(id, l.unreadable(id, err))
		return to, created, nil
	case err != nil:
		return Mark{}, 0, err
	}
	if was.Bad != nil {
		l.Problem(id, nil)
	}
	if to == (Mark{}) {
		l.Drop(id, was) // purged: what it ended has expired
	} else {
		l.Raise(id, to)
	}
	return to, created, nil
}

// unreadable is the mark whose record cannot be read. It is a problem, which ends with the
// next record that can be.
func (l *Ledger) unreadable(id record.ID, err error) Mark {
	bad := Mark{Bad: fmt.Errorf("record %x: %w", id, err)}
	l.Problem(id, bad.Bad)
	return bad
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

// The epoch of a subject is a number that only rises; a credential is stamped
// with it at issue and dies when it rises. It is at least the Unix time in
// milliseconds of the last revocation, so that it rises even over a store that
// was restored from a backup and has forgotten its last values. So is the epoch of an
// issuer.

// ReadEpoch reads the epoch of a subject, whose record has the ID, from the store; zero if
// there is none. Its errors are those of Read.
func (l *Ledger) ReadEpoch(ctx context.Context, id record.ID) (uint64, error) {
	found, _, err := l.get(ctx, id, DecodeEpoch)
	return found.Epoch, err
}

// RaiseEpoch raises the epoch of a subject, to least if that is set and higher,
// else to a new value. It returns the one that it wrote, or may have written, or that was
// high enough. owner is the subject as stores list it.
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
		rec, cond := over(found, record.Subject, id, now)
		rec.Owner = owner
		w := record.NewBody()
		w.Text(record.FieldReason, reason)
		w.Number(record.FieldEpoch, epoch)
		w.Finish(&rec)
		return l.write(ctx, rec, cond, Mark{Epoch: epoch, Reason: reason})
	})
	return epoch, err
}

// RaiseIssuer raises the mark of an issuer, whose record has the ID, and returns what it
// wrote, or may have written, or found. Where to has an epoch, the mark comes to cover to,
// and stays if it does. Else the epoch is a new one, and what is stamped with less is
// revoked: all of it, or what was issued before to.Before.
func (l *Ledger) RaiseIssuer(ctx context.Context, id record.ID, to Mark) (made Mark, err error) {
	err = retry.Do(ctx, func(bool) error {
		now := l.now()
		old, found, err := l.get(ctx, id, Decode)
		if errors.Is(err, errs.ErrCorrupt) {
			return err // of this package, and says what was read
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
		rec, cond := over(found, record.Mark, id, now)
		made.Encode(&rec)
		return l.write(ctx, rec, cond, made)
	})
	return made, err
}

// End writes the mark that ends a token or a family, unless it stands there: already says
// that it does. The record may be forgotten from purgeAt on (Unix milliseconds).
func (l *Ledger) End(ctx context.Context, id record.ID, purgeAt int64, reason string) (already bool, err error) {
	to := Mark{Before: clock.Forever, Reason: reason}
	err = retry.Do(ctx, func(bool) error {
		old, _, err := l.get(ctx, id, Decode)
		if err != nil {
			return errs.OfStore("read", err)
		}
		if old != (Mark{}) {
			l.Learn(id, old)
			already = true
			return nil
		}
		rec, cond := over(backend.Record{}, record.Mark, id, l.now())
		rec.PurgeAt = purgeAt
		to.Encode(&rec)
		return l.write(ctx, rec, cond, to)
	})
	return already && err == nil, err
}

func (l *Ledger) now() int64 { return clock.Millis(l.Clock.Read()) }

// above is an epoch that is higher than that of a mark.
func (k *Mark) above(now int64) uint64 { return max(k.Epoch+1, uint64(now)) }

// over is the beginning of a record that takes the place of one that was found, or of none
// if that is zero, and the condition under which it may be written.
func over(found backend.Record, kind backend.Kind, id record.ID, now int64) (backend.Record, backend.Cond) {
	if found.Version == 0 {
		return backend.Record{ID: id, Kind: kind, Created: now}, backend.IfAbsent()
	}
	return backend.Record{ID: id, Kind: kind, Created: found.Created}, backend.IfVersion(found.Version)
}

// write is the end of a try to write a mark.
func (l *Ledger) write(ctx context.Context, rec backend.Record, cond backend.Cond, to Mark) error {
	if _, err := l.Store.Replace(backend.Urgent(ctx), rec, cond); err != nil {
		return retry.Raced(err)
	}
	l.Learn(rec.ID, to)
	return nil
}
