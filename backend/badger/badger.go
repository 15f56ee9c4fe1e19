package badger

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/calls"
	"github.com/fobkit/fob/backend/internal/news"
	"github.com/fobkit/fob/backend/internal/writequeue"
)

// Store is a store in a directory. Make one with Open. It is safe for concurrent
// use and runs two goroutines of its own, which Close ends.
type Store struct {
	opts  Options
	dir   string
	db    *badgerdb.DB
	epoch [16]byte // of this database; renewed by Restore

	queue *writequeue.Queue[*batch]
	stop  chan struct{} // closed by Close
	done  sync.WaitGroup

	calls  calls.Gate
	failed atomic.Pointer[error] // of the commit that failed, if one did

	// head is the last change committed, floor the oldest that the feed still has.
	// The writer alone changes them.
	head, floor atomic.Uint64
	changed     *news.Bell // rings when a change is committed

	flattening sync.Mutex // one compaction by hand at a time

	commits, writes atomic.Uint64
	hooks           hooks
}

// hooks are for tests.
type hooks struct {
	commitError func() error         // in place of a commit's own answer
	freeBytes   func() uint64        // in place of the file system's
	batched     func(operations int) // before a batch is evaluated
	applied     func() error         // after each operation that succeeded, in place of its answer
	committing  func()               // after it, before it is written
}

var (
	_ backend.Store         = (*Store)(nil)
	_ backend.Watcher       = (*Store)(nil)
	_ backend.Lister        = (*Store)(nil)
	_ backend.Counter       = (*Store)(nil)
	_ backend.BulkReader    = (*Store)(nil)
	_ backend.Scanner       = (*Store)(nil)
	_ backend.UsageRecorder = (*Store)(nil)
	_ backend.Purger        = (*Store)(nil)
	_ backend.Maintainer    = (*Store)(nil)
)

// load reads or writes the format and the epoch, and finds the ends of the feed. A store of
// an older layout has the number of this one from then on.
func (s *Store) load() error {
	err := s.db.Update(func(txn *badgerdb.Txn) error {
		item, err := txn.Get(keyFormat)
		if errors.Is(err, badgerdb.ErrKeyNotFound) {
			if anyKey(txn) {
				return fmt.Errorf("%w: it is the BadgerDB of another application", ErrNotAStore)
			}
			_, _ = rand.Read(s.epoch[:]) // never returns an error
			return errors.Join(txn.Set(keyFormat, []byte{layoutFormat}), txn.Set(keyEpoch, s.epoch[:]))
		}
		if err != nil {
			return err
		}
		version, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		switch {
		case len(version) != 1 || version[0] < oldestFormat:
			return fmt.Errorf("no layout is %x: %w", version, backend.ErrCorrupt)
		case version[0] > layoutFormat:
			return fmt.Errorf("the store has layout %d, and this version of fob knows layouts %d to %d: %w",
				version[0], oldestFormat, layoutFormat, backend.ErrUnavailable)
		case version[0] < layoutFormat:
			if err := txn.Set(keyFormat, []byte{layoutFormat}); err != nil {
				return err
			}
		}
		if item, err = txn.Get(keyEpoch); err != nil {
			return err
		}
		epoch, err := item.ValueCopy(nil)
		if err != nil || copy(s.epoch[:], epoch) != len(epoch) || len(epoch) != len(s.epoch) {
			return errors.Join(backend.ErrCorrupt, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("badger: open %s: %w", s.dir, err)
	}
	return s.db.View(func(txn *badgerdb.Txn) error {
		s.head.Store(logEnd(txn, true))
		s.floor.Store(max(logEnd(txn, false), 1))
		return nil
	})
}

// anyKey reports whether anything is in the database.
func anyKey(txn *badgerdb.Txn) bool {
	it := txn.NewIterator(badgerdb.IteratorOptions{})
	defer it.Close()
	it.Rewind()
	return it.Valid()
}

// logEnd is the first or the last number in the feed, 0 if it is empty.
func logEnd(txn *badgerdb.Txn, last bool) uint64 {
	it := txn.NewIterator(badgerdb.IteratorOptions{Prefix: []byte{prefixLog}, Reverse: last})
	defer it.Close()
	if last {
		it.Seek(logKey(^uint64(0)))
	} else {
		it.Rewind()
	}
	if !it.Valid() {
		return 0
	}
	return binary.BigEndian.Uint64(it.Item().Key()[1:])
}

// readable says why reading is refused after a failed commit.
func (s *Store) readable() error {
	if failed := s.failed.Load(); failed != nil && !s.opts.ReadAfterFailure {
		return fmt.Errorf("badger: a commit failed, open the store again: %w: %w", backend.ErrUnavailable, *failed)
	}
	return nil
}

// closePatience bounds Close after a failed commit: on a file system that
// refuses every write BadgerDB tries to flush for ever.
const closePatience = 10 * time.Second

// Close implements backend.Store. It waits for the writes under way and syncs.
// After a failed commit, or when a commit does not come back, it waits for 10
// seconds at most; if that is not enough, the error says so, and only the end of
// the process frees the directory.
func (s *Store) Close() error {
	if !s.calls.Close() {
		return nil
	}
	close(s.stop) // every call that is under way has left: nothing comes into the queue any more
	if !s.ended() {
		return errStuck
	}
	closed := make(chan error, 1)
	go func() { closed <- s.db.Close() }()
	var patience <-chan time.Time
	if s.failed.Load() != nil {
		t := time.NewTimer(closePatience)
		defer t.Stop()
		patience = t.C
	}
	select {
	case err := <-closed:
		if err != nil {
			return fmt.Errorf("badger: close: %w", err)
		}
		return nil
	case <-patience:
		return errStuck
	}
}

var errStuck = fmt.Errorf("badger: close: the disk does not take writes; end the process: %w", backend.ErrUnavailable)

// ended waits for the goroutines, as long as commits go on.
func (s *Store) ended() bool {
	ended := make(chan struct{})
	go func() {
		s.done.Wait()
		close(ended)
	}()
	tick := time.NewTicker(closePatience)
	defer tick.Stop()
	for {
		commits := s.commits.Load()
		select {
		case <-ended:
			return true
		case <-tick.C:
			if s.commits.Load() == commits {
				return false
			}
		}
	}
}

// Stats is what a Store has done since it was opened.
type Stats struct {
	Writes  uint64 // operations that changed something, each durable
	Commits uint64 // synced commits that they took
}

// Stats returns the counts so far.
func (s *Store) Stats() Stats {
	return Stats{Writes: s.writes.Load(), Commits: s.commits.Load()}
}

// The upkeep: how often it looks, and from how many overwrites on it asks for a
// compaction.
const (
	upkeepEvery   = 10 * time.Minute
	worthFlatten  = 200_000
	flattenAtOnce = 1 // workers: upkeep must not take the cores
)

// upkeep compacts now and then: overwritten versions on the lowest level are
// not reclaimed by themselves.
func (s *Store) upkeep() {
	tick := time.NewTicker(upkeepEvery)
	defer tick.Stop()
	var flattened uint64
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			if writes := s.writes.Load(); writes-flattened >= worthFlatten && s.mayCompact() == nil {
				if err := s.flatten(flattenAtOnce); err != nil {
					s.opts.Logger.Warn("badger: compaction failed", "error", err)
				}
				flattened = writes
			}
		}
	}
}

// flatten compacts. BadgerDB stops and starts its compactors for that, and loses
// some if two do it at once.
func (s *Store) flatten(workers int) error {
	s.flattening.Lock()
	defer s.flattening.Unlock()
	return s.db.Flatten(workers)
}

// Maintain implements backend.Maintainer: it compacts now.
func (s *Store) Maintain(ctx context.Context) error {
	if err := s.calls.Enter(ctx); err != nil {
		return err
	}
	defer s.calls.Leave()
	if err := s.mayCompact(); err != nil {
		return err
	}
	if err := s.flatten(2); err != nil {
		return fmt.Errorf("badger: compact: %w", err)
	}
	return nil
}
