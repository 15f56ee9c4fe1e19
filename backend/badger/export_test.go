package badger

import (
	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
)

// FailCommits makes commits answer err after they were made; nil ends it.
func (s *Store) FailCommits(err error) { s.hooks.commitError = func() error { return err } }

// SetFree makes the file system look as if that much were free.
func (s *Store) SetFree(free func() uint64) { s.hooks.freeBytes = free }

// OnBatch is called with the number of operations that are evaluated together, before they
// are. A batch may be evaluated in several parts.
func (s *Store) OnBatch(f func(int)) { s.hooks.batched = f }

// Overwrite puts a value under a record's key, past all checks.
func (s *Store) Overwrite(id backend.ID, change func([]byte) []byte) error {
	return s.db.Update(func(txn *badgerdb.Txn) error {
		item, err := txn.Get(recordKey(id))
		if err != nil {
			return err
		}
		value, err := item.ValueCopy(nil)
		if err != nil {
			return err
		}
		return txn.Set(recordKey(id), change(value))
	})
}

// KeepLog is how many changes the feed remembers.
const KeepLog = keepLog

// DropLog removes a change from the feed, as trimming does.
func (s *Store) DropLog(seq uint64) error {
	return s.db.Update(func(txn *badgerdb.Txn) error { return txn.Delete(logKey(seq)) })
}

// OnCommit is called before each commit.
func (s *Store) OnCommit(f func()) { s.hooks.committing = f }

// OnApplied is called after each operation of a batch that succeeded; its error takes
// the place of the engine's.
func (s *Store) OnApplied(f func() error) { s.hooks.applied = f }

// Waiting is how many operations wait for the writer.
func (s *Store) Waiting() int { return s.queue.Waiting() }

// What must be free, in bytes.
const (
	OpenFree     = openFree
	LastFree     = lastFree
	LeastMinFree = leastMinFree
)

// The parts in which a Scan reads.
const (
	ScanAtOnce = scanAtOnce
	ByList     = byList
)

// Written are the keys that a change wrote, by the letter that they begin with. Each commit
// has a time of its own; a key has that of the last one which wrote it.
func (s *Store) Written() (at map[string]uint64) {
	at = make(map[string]uint64)
	_ = s.db.View(func(txn *badgerdb.Txn) error {
		it := txn.NewIterator(badgerdb.IteratorOptions{})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			at[string(it.Item().Key())] = it.Item().Version()
		}
		return nil
	})
	return at
}

// SetLayout makes the marker name another layout.
func (s *Store) SetLayout(layout byte) error {
	return s.db.Update(func(txn *badgerdb.Txn) error { return txn.Set(keyFormat, []byte{layout}) })
}

// Layout is the layout that the marker names.
func (s *Store) Layout() (layout byte) {
	_ = s.db.View(func(txn *badgerdb.Txn) error {
		item, err := txn.Get(keyFormat)
		if err != nil {
			return err
		}
		return item.Value(func(b []byte) error { layout = b[0]; return nil })
	})
	return layout
}
