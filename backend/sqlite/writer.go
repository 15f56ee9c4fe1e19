package sqlite

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
	code "modernc.org/sqlite/lib"
)

// op is one write on its way to the writer.
type op struct {
	// apply makes the change in the batch's transaction. An error of its own
	// (ErrConflict …) changes nothing and fails this op only. It may be called again
	// after the transaction was rolled back.
	apply func(*batch) error
	size  int  // bytes it may add, roughly
	alone bool // it is long enough to be a transaction by itself
	// urgent ends something or makes room: it may use the reserve on a full disk.
	urgent bool
	until  time.Time

	// state settles who has the op when its caller gives up: cancelled while still
	// queued it surely was not applied.
	state atomic.Uint32
	err   error
	done  chan struct{}
}

const (
	queued = iota
	taken
	cancelled
)

// The most that one commit takes: what is waiting is taken, nothing is waited
// for. It is less than what would be quickest for this process alone: other
// processes wait while the lock is held.
const (
	maxBatch      = 256
	maxBatchBytes = 1 << 20
)

// commitPatience is how long a caller whose context has ended still waits for a
// commit under way: the outcome is worth it, a disk that hangs is not.
const commitPatience = time.Second

// submit hands an op to the writer and waits for what becomes of it.
func (s *Store) submit(ctx context.Context, o *op) error {
	if err := s.calls.Enter(ctx); err != nil {
		return err
	}
	o.done = make(chan struct{})
	o.until = time.Now().Add(s.opts.BusyTimeout)
	select {
	case s.queue <- o:
		s.calls.Leave()
	case <-ctx.Done():
		s.calls.Leave()
		return fmt.Errorf("sqlite: %w", ctx.Err())
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		if o.state.CompareAndSwap(queued, cancelled) {
			return fmt.Errorf("sqlite: %w", ctx.Err())
		}
		// It is being committed, which takes as long as the disk does.
		t := time.NewTimer(commitPatience)
		defer t.Stop()
		select {
		case <-o.done:
		case <-t.C: // nothing of o may be read any more
			return fmt.Errorf("sqlite: %w: %w", backend.ErrIndeterminate, ctx.Err())
		}
	}
	return o.err
}

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
	var held *op // taken from the queue, but too much for the batch before
	for {
		first := held
		held = nil
		if first == nil {
			select {
			case first = <-s.queue:
			case <-s.stop:
				select {
				case first = <-s.queue: // accepted before: it is answered
				default:
					return
				}
			}
		}
		if err := w.begin(first); err != nil {
			settle(first, err)
			continue
		}
		ops, size := []*op{first}, first.size
		for !first.alone && len(ops) < maxBatch {
			var next *op
			select {
			case next = <-s.queue:
			default:
			}
			if next == nil {
				break
			}
			if next.alone || size+next.size > maxBatchBytes {
				held = next
				break
			}
			ops, size = append(ops, next), size+next.size
		}
		w.commit(ops)
	}
}

func settle(o *op, err error) {
	o.err = err
	close(o.done)
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
	if o.state.Load() == cancelled {
		return errGone
	}
	if w.c == nil {
		c, err := w.dial(context.Background(), forWriting)
		if err != nil {
			return classified("write", writing, err)
		}
		w.c = c
	}
	err := wait(context.Background(), w.stop, o.until, func() error {
		if o.state.Load() == cancelled {
			return errGone
		}
		_, err := w.c.run(sqlBegin)
		return err
	})
	if broken(err) {
		w.drop()
	}
	return classified("write", writing, err)
}

// commit applies ops in the transaction that was begun, and answers each.
func (w *writer) commit(ops []*op) {
	defer func() {
		for _, o := range ops {
			close(o.done)
		}
	}()
	if w.hooks.batched != nil {
		w.hooks.batched(len(ops))
	}
	low := w.low()
	live := make([]*op, 0, len(ops))
	for _, o := range ops {
		switch {
		case !o.state.CompareAndSwap(queued, taken): // its caller has gone
		case low != nil && !o.urgent:
			o.err = low
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
		if culprit < 0 || primary(err) != code.SQLITE_CORRUPT || len(live) == 1 {
			return
		}
		live = append(live[:culprit:culprit], live[culprit+1:]...)
		if err := w.begin(live[0]); err != nil {
			for _, o := range live {
				o.err = err
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
			if p := ph; o.err != nil {
				o.err = classified("write", min(p, writing), err)
			} else {
				o.err = classified("write", p, err)
			}
		}
	}
	b := &batch{c: w.c}
	if err := b.begin(); err != nil {
		fail(writing, err)
		return -1, err
	}
	head, applied := b.seq, 0
	for i, o := range ops {
		if o.err = o.apply(b); o.err == nil && w.hooks.applied != nil {
			o.err = w.hooks.applied()
		}
		if o.err == nil {
			applied++
		} else if !refusal(o.err) {
			err := o.err
			fail(writing, err)
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
		fail(writing, err)
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
		fail(committing, err)
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

// refusal reports whether an op's error is an answer, and not a failure.
func refusal(err error) bool {
	return errors.Is(err, backend.ErrConflict) || errors.Is(err, backend.ErrNotFound) ||
		errors.Is(err, backend.ErrInvalid) || errors.Is(err, backend.ErrCorrupt)
}

// change numbers a change and puts it into the feed.
func (b *batch) change(id backend.ID) error {
	b.seq++
	_, err := b.c.run(sqlInsertChange, int64(b.seq), id[:], b.nonce)
	return err
}
