package sqlite

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/writequeue"
	code "modernc.org/sqlite/lib"
)

// op is one write on its way to the writer.
type op = writequeue.Op[*batch]

// maxBatch is the most that one commit takes: what is waiting is taken, nothing is waited
// for. It is less than what would be quickest for this process alone: other
// processes wait while the lock is held.
const maxBatch = 256

// writer is the goroutine that writes, and its connection, nil after a failure.
type writer struct {
	*Store
	c *conn
}

// batch is one transaction in the making.
type batch struct {
	c     *conn
	seq   uint64 // of the last change in it
	nonce int64
}

// write is the writer goroutine: it waits for the lock, takes what is waiting by
// then, makes one transaction of it, commits that with one sync, and then tells
// everybody.
func (s *Store) write(c *conn) {
	w := &writer{Store: s, c: c}
	defer w.drop()
	s.queue.Run(s.stop, w.begin, w.commit)
}

// drop gives up the connection, and with it a transaction that is open.
func (w *writer) drop() {
	if w.c != nil {
		w.c.discard()
		w.c = nil
	}
}

var errGone = errors.New("sqlite: nobody waits for it any more")

// begin starts a transaction for an op, which nobody has taken yet: its caller
// can still give up while the lock is waited for.
func (w *writer) begin(o *op) error {
	if o.GivenUp() {
		return errGone
	}
	if w.c == nil {
		c, err := w.dial(context.Background(), forWriting)
		if err != nil {
			return contractError("write", phaseWriting, err)
		}
		w.c = c
	}
	err := waitWhileBusy(context.Background(), w.stop, o.Submitted().Add(w.opts.BusyTimeout), func() error {
		if o.GivenUp() {
			return errGone
		}
		_, err := w.c.run(sqlBegin)
		return err
	})
	if isBroken(err) {
		w.drop()
	}
	return contractError("write", phaseWriting, err)
}

// commit applies ops in the transaction that was begun, and sets the answer of
// each.
func (w *writer) commit(ops []*op) {
	if w.hooks.batched != nil {
		w.hooks.batched(len(ops))
	}
	low := w.low()
	live := make([]*op, 0, len(ops))
	for _, o := range ops {
		switch {
		case !o.Take(): // its caller has gone
		case low != nil && !o.Urgent:
			o.Err = low
		default:
			live = append(live, o)
		}
	}
	for {
		culprit, err := w.attempt(live)
		if err == nil {
			return
		}
		// The transaction is undone. Where one op met a damaged page, the others may
		// do without it.
		if culprit < 0 || primaryCode(err) != code.SQLITE_CORRUPT || len(live) == 1 {
			return
		}
		live = append(live[:culprit:culprit], live[culprit+1:]...)
		if err := w.begin(live[0]); err != nil {
			for _, o := range live {
				o.Err = err
			}
			return
		}
	}
}

// attempt applies and commits ops, and sets their answers. When it fails, which
// op the engine failed at is said, or -1.
func (w *writer) attempt(ops []*op) (culprit int, err error) {
	fail := func(ph phase, err error) {
		w.opts.Logger.Warn("sqlite: a transaction failed", "error", err)
		w.drop()
		for _, o := range ops {
			// A refusal may rest on a change that was in this transaction.
			if p := ph; o.Err != nil {
				o.Err = contractError("write", min(p, phaseWriting), err)
			} else {
				o.Err = contractError("write", p, err)
			}
		}
	}
	b := &batch{c: w.c}
	if err := b.begin(); err != nil {
		fail(phaseWriting, err)
		return -1, err
	}
	head, applied := b.seq, 0
	for i, o := range ops {
		if o.Err = o.Apply(b); o.Err == nil && w.hooks.applied != nil {
			o.Err = w.hooks.applied()
		}
		if o.Err == nil {
			applied++
		} else if !writequeue.Refused(o.Err) {
			err := o.Err
			fail(phaseWriting, err)
			return i, err
		}
	}
	if applied == 0 {
		// Nothing to undo; this ends the transaction without a sync.
		if _, err := w.c.run(sqlRollback); err != nil {
			w.drop()
		}
		return -1, nil
	}
	if b.seq != head {
		err = b.trim(w.keep())
	}
	if err != nil {
		fail(phaseWriting, err)
		return -1, err
	}
	if w.hooks.committing != nil {
		w.hooks.committing()
	}
	_, err = w.c.run(sqlCommit)
	if w.hooks.commitError != nil && err == nil {
		err = w.hooks.commitError()
	}
	if err != nil {
		fail(phaseCommitting, err)
		return -1, err
	}
	w.commits.Add(1)
	w.writes.Add(uint64(applied))
	if b.seq != head {
		w.changed.Ring()
	}
	return -1, nil
}

// begin reads where the feed ends.
func (b *batch) begin() error {
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never returns an error
	b.nonce = int64(binary.BigEndian.Uint64(nonce[:]))
	var head int64
	if err := b.c.row(sqlHead, nil, &head); err != nil {
		return err
	}
	b.seq = uint64(head)
	return nil
}

// change numbers a change and puts it into the feed.
func (b *batch) change(id backend.ID) error {
	b.seq++
	_, err := b.c.run(sqlInsertChange, int64(b.seq), id[:], b.nonce)
	return err
}
