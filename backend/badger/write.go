package badger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/labels"
	"github.com/fobkit/fob/backend/internal/writequeue"
)

// op is one write on its way to the writer.
type op = writequeue.Op[*batch]

// maxBatch is the most that one commit takes: what is waiting is taken, nothing is waited
// for. What the queue takes in bytes is well below what fits into one transaction.
const maxBatch = 1024

// write is the writer goroutine: it takes what is waiting, makes one transaction of it,
// commits that with one sync, and then tells everybody. Meanwhile it evaluates what comes.
func (s *Store) write() {
	s.queue.RunAhead(s.stop, writequeue.Ahead[*batch]{Open: s.open, Apply: s.apply, Commit: s.commit, Drop: (*batch).discard})
}

// open begins a batch on top of another one that is about to be committed, or of none.
func (s *Store) open(behind *batch) *batch {
	b := &batch{db: s.db, seq: s.head.Load(), trimmed: s.floor.Load()}
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
		b.makeRoom()
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
	defer b.discard()
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
	commits, err := b.commit()
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
	s.commits.Add(commits)
	s.writes.Add(uint64(len(b.applied)))
	s.floor.Store(b.trimmed)
	s.head.Store(b.seq)
	s.changed.Ring()
}

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if err := backend.CheckPut(rec, cond); err != nil {
		return 0, err
	}
	rec.Body, rec.Labels = bytes.Clone(rec.Body), slices.Clone(rec.Labels) // the writer may outlast this call
	var version uint64
	// A label is in the value and, where it is new, in a key.
	o := &op{Size: 512 + 4*len(rec.Owner) + 2*labels.Room(rec.Labels) + 64*len(rec.Labels) + len(rec.Body), Urgent: backend.IsUrgent(ctx)}
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
	var gone, added [][]byte
	if cond.Absent() {
		if exists {
			return 0, backend.ErrConflict
		}
		added = listed(&rec)
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
		gone, added = moved(&old, &rec)
	}
	if rec.Version, err = b.change(rec.ID); err != nil {
		return 0, err
	}
	for _, k := range gone {
		if err := b.erase(k); err != nil {
			return 0, err
		}
	}
	for _, k := range added {
		if err := b.write(k, nil); err != nil {
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
	for _, k := range listed(rec) {
		if err := b.erase(k); err != nil {
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
			b.makeRoom()
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
