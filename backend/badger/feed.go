package badger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/news"
)

// keepLog is how many changes the feed remembers on disk, across restarts.
const keepLog = 100_000

// trimAtOnce bounds what one commit trims for each of its own changes, so that
// trimming keeps up and is never a burst.
const trimAtOnce = 2

// trim removes what the feed need no longer remember. Numbers have no gaps, so
// nothing is searched for.
func (s *Store) trim(b *batch) {
	most := trimAtOnce * (b.seq - b.first)
	for range most {
		if b.seq-b.trimmed < keepLog || b.broken != nil {
			return
		}
		b.broken = b.erase(logKey(b.trimmed))
		b.trimmed++
	}
}

// maxChanges bounds one Batch of the feed.
const maxChanges = 10_000

// Watch implements backend.Watcher. It runs in its caller's goroutine and reads
// the log on disk, so that a slow fn holds up nobody and a token outlives a
// restart. A token from before a Restore, or too old, gets a Reset.
func (s *Store) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	at, known := s.head.Load(), true
	if from != nil {
		at, known = s.place(from)
	}
	var proven time.Time
	tick := time.NewTicker(news.ProofPause(ctx))
	defer tick.Stop()
	for {
		changed := s.changed.Next() // taken before the log is read, so that no change between the two is missed
		b, next, err := s.since(ctx, at, known, proven)
		if err != nil {
			return err
		}
		at, known, proven = next, true, b.AsOf
		if err := fn(b); err != nil {
			return err
		}
		if len(b.Changes) == maxChanges {
			continue
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("badger: watch: %w", ctx.Err())
		case <-s.stop:
			return backend.ErrClosed
		case <-changed:
		case <-tick.C:
		}
	}
}

// since reads the changes after number at, and where to go on.
func (s *Store) since(ctx context.Context, at uint64, known bool, proven time.Time) (backend.Batch, uint64, error) {
	if err := s.calls.Enter(ctx); err != nil {
		return backend.Batch{}, 0, err
	}
	defer s.calls.Leave()
	// Also with ReadAfterFailure: what is read then proves nothing.
	if failed := s.failed.Load(); failed != nil {
		return backend.Batch{}, 0, fmt.Errorf("badger: a commit failed, open the store again: %w: %w", backend.ErrUnavailable, *failed)
	}
	// Before the log is read: a proof must not claim more than it saw.
	b := backend.Batch{AsOf: time.Now()}
	head := s.head.Load()
	if !known || at+1 < s.floor.Load() {
		b.Reset, at = true, head
	}
	if at < head {
		next, err := s.changes(&b, at, head)
		switch {
		case errors.Is(err, errTrimmed):
			b.Changes, b.Reset, at = nil, true, head
		case err != nil:
			return backend.Batch{}, 0, readError(err)
		default:
			at = next
		}
	}
	if at < head {
		b.AsOf = proven // more is to come: this batch proves no more than the last
	}
	b.Token = s.token(at)
	return b, at, nil
}

var errTrimmed = errors.New("badger: the feed was trimmed")

// changes appends the changes from at+1 to head, the latest of each ID, at most
// maxChanges, and returns the number of the last one read. It fails with
// errTrimmed if some of them are no longer there.
func (s *Store) changes(b *backend.Batch, at, head uint64) (uint64, error) {
	latest := make(map[backend.ID]int)
	err := s.db.View(func(txn *badgerdb.Txn) error {
		opts := badgerdb.DefaultIteratorOptions
		opts.Prefix = []byte{prefixLog}
		opts.PrefetchSize = int(min(head-at, 100))
		it := txn.NewIterator(opts)
		defer it.Close()
		for it.Seek(logKey(at + 1)); it.Valid() && len(b.Changes) < maxChanges; it.Next() {
			seq := binary.BigEndian.Uint64(it.Item().Key()[1:])
			if seq > head {
				return nil
			}
			if seq != at+1 {
				// Numbers have no gaps: the log was trimmed between the look at its floor
				// and this transaction.
				return errTrimmed
			}
			err := it.Item().Value(func(val []byte) error {
				if len(val) != idLen {
					return backend.ErrCorrupt
				}
				id := backend.ID(val)
				if i, seen := latest[id]; seen {
					b.Changes[i].Version = seq
				} else {
					latest[id] = len(b.Changes)
					b.Changes = append(b.Changes, backend.Change{ID: id, Version: seq})
				}
				return nil
			})
			if err != nil {
				return err
			}
			at = seq
		}
		return nil
	})
	return at, err
}

// token is the epoch and a place in the feed.
func (s *Store) token(seq uint64) backend.Token {
	return binary.BigEndian.AppendUint64(append(backend.Token(nil), s.epoch[:]...), seq)
}

// place is where a token stands in the feed, and whether it is of this one.
func (s *Store) place(t backend.Token) (seq uint64, known bool) {
	if len(t) != len(s.epoch)+8 || string(t[:len(s.epoch)]) != string(s.epoch[:]) {
		return 0, false
	}
	seq = binary.BigEndian.Uint64(t[len(s.epoch):])
	return seq, seq <= s.head.Load()
}
