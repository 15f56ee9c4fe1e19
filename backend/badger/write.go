package badger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/writequeue"
)

// op is one write on its way to the writer.
type op = writequeue.Op[*batch]

// maxBatch is the most that one commit takes: what is waiting is taken, nothing is waited
// for. What the queue takes in bytes is well below what fits into one transaction.
const maxBatch = 1024

// batch is one transaction in the making. It is evaluated while the batch before it is
// committed: see docs/decisions/0018-queues-that-fold-writes.md.
type batch struct {
	txn *badgerdb.Txn
	// before is the batch that is being committed meanwhile, if there is one. The
	// transaction began before that commit and does not see it.
	before *batch
	// wrote is what the batch leaves under the keys that batches read: those of records and
	// of usage; nil is nothing.
	wrote map[string][]byte

	seq     uint64 // of the last change in it
	first   uint64 // the last change before it
	trimmed uint64 // the floor of the feed after it

	applied []*op
	broken  error // why nothing of it may be written
	checked bool  // room and low are set
	room    room
	low     error
}

// write is the writer goroutine: it takes what is waiting, makes one transaction of it,
// commits that with one sync, and then tells everybody. Meanwhile it evaluates what comes.
func (s *Store) write() {
	s.queue.RunAhead(s.stop, writequeue.Ahead[*batch]{Open: s.open, Apply: s.apply, Commit: s.commit, Drop: func(b *batch) { b.txn.Discard() }})
}

// open begins a batch on top of another one that is about to be committed, or of none.
func (s *Store) open(behind *batch) *batch {
	b := &batch{seq: s.head.Load(), trimmed: s.floor.Load()}
	if behind != nil {
		behind.before = nil // it is evaluated, and what was before it is committed
		s.trim(behind)
		if behind.broken == nil {
			b.before, b.seq, b.trimmed = behind, behind.seq, behind.trimmed
		}
	}
	b.first = b.seq
	b.txn = s.db.NewTransaction(true) // does not wait: nothing is being committed
	return b
}

// apply evaluates ops in a batch, and answers those that are refused.
func (s *Store) apply(b *batch, ops []*op) {
	if s.hooks.batched != nil {
		s.hooks.batched(len(ops))
	}
	if b.broken != nil || s.failed.Load() != nil {
		return // commit answers them
	}
	if !b.checked {
		b.room, b.low = s.room()
		b.checked = true
	}
	for _, o := range ops {
		if !o.Take() {
			continue // its caller has gone
		}
		if b.room == roomForNobody || b.room == roomForUrgent && !o.Urgent {
			o.Err = b.low
			continue
		}
		o.Err = o.Apply(b)
		if s.hooks.applied != nil && o.Err == nil {
			o.Err = s.hooks.applied()
		}
		if o.Err == nil {
			b.applied = append(b.applied, o)
			continue
		}
		if !writequeue.Refused(o.Err) {
			// The transaction may hold half of this op: nothing of it is written. What was
			// answered so far rests on changes that are not made, refusals too.
			b.broken = o.Err
			return
		}
	}
}

// commit writes a batch and sets the answer of each of its ops.
func (s *Store) commit(b *batch, ops []*op) {
	defer b.txn.Discard()
	if s.hooks.committing != nil {
		s.hooks.committing()
	}
	refuse := func(err error) {
		for _, o := range ops {
			o.Take()
			o.Err = err
		}
	}
	if failed := s.failed.Load(); failed != nil {
		// Of the batch before, perhaps, on whose changes this one rests.
		refuse(fmt.Errorf("badger: a commit failed, open the store again: %w: %w", backend.ErrUnavailable, *failed))
		return
	}
	if b.broken != nil {
		refuse(fmt.Errorf("badger: write: %w: %w", backend.ErrUnavailable, b.broken))
		return
	}
	if len(b.applied) == 0 {
		return
	}
	err := b.txn.Commit()
	if s.hooks.commitError != nil && err == nil {
		err = s.hooks.commitError()
	}
	if err != nil {
		s.failed.CompareAndSwap(nil, &err)
		s.opts.Logger.Error("badger: commit failed, the store must be opened again", "error", err)
		for _, o := range ops {
			// A refusal may rest on a change that was in this commit.
			if o.Err != nil {
				o.Err = fmt.Errorf("badger: commit: %w: %w", backend.ErrUnavailable, err)
			}
		}
		for _, o := range b.applied {
			o.Err = fmt.Errorf("badger: commit: %w: %w", backend.ErrIndeterminate, err)
		}
		return
	}
	s.commits.Add(1)
	s.writes.Add(uint64(len(b.applied)))
	s.floor.Store(b.trimmed)
	s.head.Store(b.seq)
	s.changed.Ring()
}

// change numbers a change and puts it into the feed.
func (b *batch) change(id backend.ID) (version uint64, err error) {
	b.seq++
	return b.seq, b.txn.Set(logKey(b.seq), id[:])
}

// set writes a value that batches read.
func (b *batch) set(key, value []byte) error {
	b.note(key, value)
	return b.txn.Set(key, value)
}

func (b *batch) delete(key []byte) error {
	b.note(key, nil)
	return b.txn.Delete(key)
}

func (b *batch) note(key, value []byte) {
	if b.wrote == nil {
		b.wrote = make(map[string][]byte)
	}
	b.wrote[string(key)] = value
}

// left is what the batch, or the one before it, leaves under a key that batches read. ok is
// false if neither writes there.
func (b *batch) left(key []byte) (value []byte, ok bool) {
	for at := b; at != nil && !ok; at = at.before {
		value, ok = at.wrote[string(key)]
	}
	return value, ok
}

func (b *batch) get(id backend.ID) (backend.Record, error) {
	switch value, ok := b.left(recordKey(id)); {
	case !ok:
		return readRecord(b.txn, id)
	case value == nil:
		return backend.Record{}, backend.ErrNotFound
	default:
		return decodeRecord(id, value)
	}
}

func (b *batch) usage(id backend.ID) (backend.Usage, error) {
	switch value, ok := b.left(usageKey(id)); {
	case !ok:
		return readUsage(b.txn, id)
	case value == nil:
		return backend.Usage{ID: id}, nil
	default:
		return decodeUsage(id, value)
	}
}

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if err := backend.CheckPut(rec, cond); err != nil {
		return 0, err
	}
	rec.Body = bytes.Clone(rec.Body) // the writer may outlast this call
	var version uint64
	o := &op{Size: 512 + 4*len(rec.Owner) + len(rec.Body), Urgent: backend.IsUrgent(ctx)}
	o.Apply = func(b *batch) (err error) {
		version, err = b.put(rec, cond)
		return err
	}
	if err := s.queue.Submit(ctx, o); err != nil {
		return 0, err
	}
	return version, nil
}

func (b *batch) put(rec backend.Record, cond backend.Cond) (uint64, error) {
	old, err := b.get(rec.ID)
	exists := err == nil
	if err != nil && !errors.Is(err, backend.ErrNotFound) {
		return 0, err
	}
	fixed, moving := indexKeys(&rec)
	if cond.Absent() {
		if exists {
			return 0, backend.ErrConflict
		}
		moving = append(moving, fixed...)
	} else {
		v, _ := cond.Version()
		switch {
		case !exists:
			return 0, backend.ErrNotFound
		case old.Version != v:
			return 0, backend.ErrConflict
		}
		if err := backend.CheckUpdate(old, rec); err != nil {
			return 0, err
		}
		_, before := indexKeys(&old)
		for _, k := range before {
			if err := b.txn.Delete(k); err != nil {
				return 0, err
			}
		}
	}
	if rec.Version, err = b.change(rec.ID); err != nil {
		return 0, err
	}
	for _, k := range moving {
		if err := b.txn.Set(k, nil); err != nil {
			return 0, err
		}
	}
	return rec.Version, b.set(recordKey(rec.ID), encodeRecord(&rec))
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, id backend.ID, version uint64) error {
	return s.queue.Submit(ctx, &op{Size: 1024, Urgent: true, Apply: func(b *batch) error {
		old, err := b.get(id)
		if err != nil {
			return err
		}
		if old.Version != version {
			return backend.ErrConflict
		}
		return b.remove(&old)
	}})
}

func (b *batch) remove(rec *backend.Record) error {
	fixed, moving := indexKeys(rec)
	for _, k := range append(fixed, moving...) {
		if err := b.txn.Delete(k); err != nil {
			return err
		}
	}
	for _, k := range [][]byte{recordKey(rec.ID), usageKey(rec.ID)} {
		if err := b.delete(k); err != nil {
			return err
		}
	}
	_, err := b.change(rec.ID)
	return err
}

// maxUsageBatch is what surely fits into one transaction.
const maxUsageBatch = 10_000

// AddUsage implements backend.UsageRecorder. A batch is at most 10,000 long.
func (s *Store) AddUsage(ctx context.Context, usage []backend.Usage) error {
	if len(usage) > maxUsageBatch {
		return fmt.Errorf("badger: %w: %d usages at once, at most %d", backend.ErrInvalid, len(usage), maxUsageBatch)
	}
	usage = append([]backend.Usage(nil), usage...)
	return s.queue.Submit(ctx, &op{Size: 64 * len(usage), Alone: len(usage) > 1000, Apply: func(b *batch) error {
		// All is read before anything is written: the batch goes whole or not at all.
		sums := make(map[backend.ID]backend.Usage, len(usage))
		for _, u := range usage {
			have, seen := sums[u.ID]
			if !seen {
				var err error
				if have, err = b.usage(u.ID); err != nil {
					return err
				}
			}
			have.N += u.N
			have.Last = max(have.Last, u.Last)
			sums[u.ID] = have
		}
		for id, u := range sums {
			if err := b.set(usageKey(id), encodeUsage(u)); err != nil {
				return err
			}
		}
		return nil
	}})
}

// Purge implements backend.Purger. What is due is looked up in the transaction
// that removes it, so a record whose PurgeAt moves meanwhile stays.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if err := backend.CheckPurge(limit); err != nil {
		return 0, err
	}
	n := 0
	err := s.queue.Submit(ctx, &op{Alone: true, Urgent: true, Apply: func(b *batch) error {
		due, err := s.dueBefore(b.txn, before.UnixMilli(), limit)
		if err != nil {
			return err
		}
		for i := range due {
			if err := b.remove(&due[i]); err != nil {
				return err
			}
		}
		n = len(due)
		return nil
	}})
	if err != nil {
		return 0, err
	}
	return n, nil
}
