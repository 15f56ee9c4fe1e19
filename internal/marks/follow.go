package marks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// Progress is what is told while all marks are read. Its functions must not block.
type Progress struct {
	Moved  func(marks int) // each second: how many marks were read so far
	Filled func(marks int) // at the end, if Moved was called
	Tried  func(error)     // after each try: nil if all were read; else they are read again after a pause
}

// Settled is what is told of a mark that was read after the feed had named it.
type Settled struct {
	Mark    Mark
	Created int64        // when its record was made (Unix milliseconds)
	NamedAt clock.Moment // when the feed named it
}

// KeepFilled reads all marks whenever the feed begins, until ctx ends. One goroutine runs it,
// and another one KeepSettled, so that a revocation is known at once, however many others
// are still to be read. It does not recover a panic of the store, after which it can be
// called again.
func (l *Ledger) KeepFilled(ctx context.Context, lister backend.Lister, to Progress) {
	if _, _, complete := l.Known(); !complete && l.filling() > 0 {
		ring(l.toFill) // it may have been told before it panicked
	}
	var backoff retry.Backoff
	for waits(ctx, l.toFill) {
		if err := l.fillAll(ctx, lister, to); err != nil {
			if ctx.Err() == nil {
				to.Tried(errs.OfStore("fob: read what was revoked", err))
			}
			if errors.Is(err, backend.ErrCorrupt) {
				retry.Pause(ctx, corruptPause)
			} else {
				backoff.Pause(ctx)
			}
			ring(l.toFill)
			continue
		}
		to.Tried(nil)
		backoff.Reset()
	}
}

// corruptPause is the pause before all marks are read again, where a record has kept the
// store from reading them. Somebody has to mend it, and there may be ten million others.
const corruptPause = time.Minute

// settleEvery is the pause between two reads of marks that the feed has named and that
// nobody needs. Without it each process would read once for each revocation: a fleet of 500
// with ten logouts a second would ask the store for 5,000 reads a second.
const settleEvery = 500 * time.Millisecond

// KeepSettled reads the marks that the feed has named, until ctx ends, and calls told with
// each. The first is read at once. Those that are named within settleEvery after that are
// read together, or as soon as somebody asks the set for one of them. It is run like
// KeepFilled.
func (l *Ledger) KeepSettled(ctx context.Context, told func(Settled)) {
	ring(l.toSettle)
	var backoff retry.Backoff
	for waits(ctx, l.toSettle) {
		if _, named, _ := l.Known(); named == 0 {
			continue
		}
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = l.settleSome(ctx, told); err != nil {
				backoff.Pause(ctx) // the feed tells what is wrong with the store
				continue
			}
			backoff.Reset()
		}
		l.rest(ctx)
	}
}

// rest waits for settleEvery, or until a mark is needed that was named.
func (l *Ledger) rest(ctx context.Context) {
	t := time.NewTimer(settleEvery)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.needed:
	case <-ctx.Done():
	}
}

// waits waits until a bell rings. It returns false when ctx has ended.
func waits(ctx context.Context, bell <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case <-bell:
		return true
	}
}

// movedEvery is the pause between two calls of Progress.Moved.
const movedEvery = time.Second

// fillAll reads all marks of the store into the set.
func (l *Ledger) fillAll(ctx context.Context, lister backend.Lister, to Progress) error {
	number, read, last, moved := l.filling(), 0, l.Clock.Now().Mono, false
	for _, kind := range []backend.Kind{record.Mark, record.Subject, record.Account} {
		err := all(ctx, l.Store.Store, lister, kind, func(recs []backend.Record) error {
			ids, found := make([]record.ID, 0, len(recs)), make([]Mark, 0, len(recs))
			var bad []record.ID
			for i := range recs {
				mark, err := Decode(&recs[i])
				if err != nil {
					bad = append(bad, recs[i].ID)
					continue
				}
				ids, found = append(ids, recs[i].ID), append(found, mark)
			}
			l.fill(ids, found, bad)
			read += len(recs)
			if now := l.Clock.Now().Mono; now-last >= int64(movedEvery) {
				last, moved = now, true
				to.Moved(read)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	l.filled(number)
	if moved {
		to.Filled(read)
	}
	return nil
}

// DropOver removes from memory the marks of what has expired by every clock, also those of
// which the feed has not told that they were purged. It reads nothing, and believes the
// clock of this process: it is for whoever may purge (see backend.Purger).
func (l *Ledger) DropOver() { l.dropOver(l.now()) }

// all calls fn with all records of a kind, by whatever the store has for that.
func all(ctx context.Context, store backend.Store, lister backend.Lister, kind backend.Kind, fn func([]backend.Record) error) error {
	if scanner, ok := backend.As[backend.Scanner](store); ok {
		return scanner.Scan(ctx, kind, fn)
	}
	q := backend.Query{Kind: kind, Limit: backend.MaxLimit}
	for {
		page, err := lister.List(ctx, q)
		if err != nil {
			return err
		}
		if err := fn(page.Records); err != nil {
			return err
		}
		if q.After = page.Next; q.After == "" {
			return nil
		}
	}
}

// settleSome reads marks that the feed has named, at most as many as a store reads in one
// call, and puts them into the set. A mark that cannot be read is told to Problem, and is no
// error. An error means that the store could not be asked. more says that others are named.
func (l *Ledger) settleSome(ctx context.Context, told func(Settled)) (more bool, err error) {
	ids, as := l.namedNow(backend.MaxLimit)
	if len(ids) == 0 {
		return false, nil
	}
	read, bad, err := l.readNamed(ctx, ids)
	if err != nil {
		return true, err
	}
	for _, id := range ids {
		var to Mark
		rec, wrong := read[id], bad[id]
		if rec != nil {
			to, wrong = Decode(rec)
		}
		switch {
		case wrong != nil:
			to = Mark{Bad: fmt.Errorf("record %x: %w", id, wrong)}
			l.Problem(id, to.Bad) // until the record can be read
		case rec != nil && as[id].at != (clock.Moment{}):
			told(Settled{to, rec.Created, as[id].at})
		}
		if l.settle(id, as[id], to) {
			l.Problem(id, nil)
		}
	}
	return len(ids) == backend.MaxLimit, nil // what was named meanwhile rings again
}

// readNamed reads records by their IDs, without those that do not exist. bad says of those
// that the store cannot read what is wrong with them.
func (l *Ledger) readNamed(ctx context.Context, ids []record.ID) (read map[record.ID]*backend.Record, bad map[record.ID]error, err error) {
	read, bad = make(map[record.ID]*backend.Record, len(ids)), make(map[record.ID]error)
	recs, failed, err := l.Store.GetEach(ctx, ids...)
	if err != nil {
		return nil, nil, err
	}
	for id, err := range failed {
		if !errors.Is(err, backend.ErrCorrupt) {
			return nil, nil, err
		}
		bad[id] = errs.OfStore("read", err)
	}
	for i := range recs {
		read[recs[i].ID] = &recs[i]
	}
	return read, bad, nil
}
