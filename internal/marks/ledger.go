package marks

import (
	"context"
	"errors"
	"slices"

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
	found, rec, err := l.get(ctx, id)
	return found, rec.Created, err
}

// Refused returns what the marks whose records have the ids say of a credential:
// errs.ErrRevoked if judge returns that for one of them, else errs.ErrDisabled if judge
// returns that, else nil. If live is true, a mark that the set knows is taken from there. The
// others are read from the store, all in one call; before that, reads is called with each of
// their ids. The errors of the second result are those of Read.
func (l *Ledger) Refused(ctx context.Context, live bool, reads func(record.ID), judge func(record.ID, *Mark) error, ids ...record.ID) (refused, err error) {
	var unknown []record.ID
	for _, id := range ids {
		found, known := l.Get(id)
		switch {
		case !live || !known:
			unknown = append(unknown, id)
			continue
		case found.Bad != nil:
			return nil, found.Bad
		}
		if says := judge(id, &found); says != nil {
			refused = says
		}
		if errors.Is(refused, errs.ErrRevoked) {
			return refused, nil
		}
	}
	for _, id := range unknown {
		reads(id)
	}
	read, err := l.ReadAll(ctx, unknown...)
	if err != nil {
		return nil, err
	}
	for i, id := range unknown {
		if says := judge(id, &read[i]); says != nil && !errors.Is(refused, errs.ErrRevoked) {
			refused = says
		}
	}
	return refused, nil
}

// ReadAll reads many marks from the store, in one call. The marks are in the order of ids;
// the zero Mark where there is none, and for the zero ID. Its errors are those of Read.
func (l *Ledger) ReadAll(ctx context.Context, ids ...record.ID) ([]Mark, error) {
	asked := slices.DeleteFunc(slices.Clone(ids), func(id record.ID) bool { return id == record.ID{} })
	recs, err := l.Store.GetMany(ctx, asked...)
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

// Holders is what was said of a subject and of its account.
type Holders struct{ Subject, Account Mark }

// Refused returns why a credential is refused that was stamped with these epochs of its
// subject and its account: errs.ErrRevoked, errs.ErrDisabled or nil.
func (h *Holders) Refused(epoch, accountEpoch uint64) error {
	switch {
	case epoch < h.Subject.Epoch || accountEpoch < h.Account.Epoch:
		return errs.ErrRevoked
	case h.Subject.Disabled() || h.Account.Disabled():
		return errs.ErrDisabled
	}
	return nil
}

// ReadHolders reads from the store what was said of a subject and of its account, whose
// records have these IDs; the zero ID stands for no account. Its errors are those of Read.
func (l *Ledger) ReadHolders(ctx context.Context, subject, account record.ID) (Holders, error) {
	found, err := l.ReadAll(ctx, subject, account)
	if err != nil {
		return Holders{}, err
	}
	return Holders{found[0], found[1]}, nil
}

func (l *Ledger) get(ctx context.Context, id record.ID) (Mark, backend.Record, error) {
	rec, err := l.Store.Get(ctx, id)
	if errors.Is(err, backend.ErrNotFound) {
		return Mark{}, backend.Record{}, nil
	}
	if err != nil {
		return Mark{}, backend.Record{}, err
	}
	found, err := Decode(&rec)
	return found, rec, err
}

// An epoch is a number that only rises. A credential is stamped at issue with those of its
// subject, its account and its issuer, and is revoked when one of them rises. An epoch is at
// least the Unix time in milliseconds of the last revocation. So it rises even if the store
// was restored from a backup and has lost its last values.

// Place says in which record a mark is.
type Place struct {
	ID      record.ID // its first byte is the kind of the record
	Owner   string    // the subject or the account as stores list it; "" for others
	PurgeAt int64     // when the record may be purged; zero for never (Unix milliseconds)
}

// Change changes a mark by compare-and-set: it reads the mark, calls change with it and the
// time (Unix milliseconds), and writes what change returns; nothing if the mark covers that
// already. It begins again if another change came between. made is the mark that it wrote,
// may have written, or found. written says that it wrote something.
func (l *Ledger) Change(ctx context.Context, at Place, change func(old Mark, now int64) Mark) (made Mark, written bool, err error) {
	err = retry.Do(ctx, func(bool) error {
		old, found, err := l.get(ctx, at.ID)
		if errors.Is(err, errs.ErrCorrupt) {
			return err // not through OfStore, because it says already what was read
		}
		if err != nil {
			return errs.OfStore("read", err)
		}
		now := l.now()
		next := change(old, now)
		if old.Covers(&next) {
			l.Learn(at.ID, old) // the feed may not have told of it yet
			made, written = old, false
			return nil
		}
		made, written = next.Join(old), true
		rec := backend.Record{ID: at.ID, Kind: backend.Kind(at.ID[0]), Owner: at.Owner, Created: now, PurgeAt: max(at.PurgeAt, found.PurgeAt)}
		cond := backend.IfAbsent()
		if found.Version != 0 {
			rec.Created, cond = found.Created, backend.IfVersion(found.Version)
		}
		if made.isOfToken() && !isHolder(rec.Kind) {
			made.PurgeAt = rec.PurgeAt
		}
		made.Encode(&rec)
		return l.write(ctx, rec, cond, made)
	})
	return made, written, err
}

// End writes the mark that revokes a token or a family. already says that the mark existed,
// and nothing was written. The record may be purged from purgeAt on (Unix milliseconds).
//
// Nobody has such a mark as a rule, so End writes first, and reads only if there was one.
func (l *Ledger) End(ctx context.Context, id record.ID, purgeAt int64, reason string) (already bool, err error) {
	to := Mark{Before: clock.Forever, PurgeAt: purgeAt, Reason: reason}
	rec := backend.Record{ID: id, Kind: record.Mark, Created: l.now(), PurgeAt: purgeAt}
	to.Encode(&rec)
	switch _, err = l.Store.Replace(backend.Urgent(ctx), rec, backend.IfAbsent()); {
	case err == nil:
		l.Learn(id, to)
		return false, nil
	case !errors.Is(err, errs.ErrConflict):
		return false, err
	}
	_, written, err := l.Change(ctx, Place{ID: id, PurgeAt: purgeAt}, func(old Mark, _ int64) Mark {
		if old.Before == clock.Forever {
			return old
		}
		return to
	})
	return !written && err == nil, err
}

func (l *Ledger) now() int64 { return clock.Millis(l.Clock.Read()) }

// above returns an epoch that is higher than that of the mark. now is in Unix milliseconds.
func (k *Mark) above(now int64) uint64 { return max(k.Epoch+1, uint64(now)) }

// write writes a mark, at the end of a try.
func (l *Ledger) write(ctx context.Context, rec backend.Record, cond backend.Cond, to Mark) error {
	if _, err := l.Store.Replace(backend.Urgent(ctx), rec, cond); err != nil {
		return retry.Raced(err)
	}
	l.Learn(rec.ID, to)
	return nil
}
