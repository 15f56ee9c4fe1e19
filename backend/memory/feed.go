package memory

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
)

// historyLen is how many changes the feed remembers: a watcher that falls further
// behind, or resumes from further back, gets a Reset.
const historyLen = 1 << 16

// feed is the log of changes and who wants to hear of them. Store.mu guards it.
type feed struct {
	seq      uint64           // of the last change; versions are these numbers
	log      []backend.Change // the change numbered n is at n % history
	watchers map[*watcher]struct{}
}

// watcher is one Watch. Its channel is a flag: something is new.
type watcher struct{ news chan struct{} }

// publish numbers a change, records it, and wakes the watchers; it never waits
// for one.
func (f *feed) publish(id backend.ID) uint64 {
	f.seq++
	c := backend.Change{ID: id, Version: f.seq}
	if i := f.seq % historyLen; i < uint64(len(f.log)) {
		f.log[i] = c
	} else {
		if len(f.log) == 0 {
			f.log = append(f.log, backend.Change{}) // number 0 is no change
		}
		f.log = append(f.log, c)
	}
	for w := range f.watchers {
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
	return f.seq
}

// since returns the changes after number from, and reports whether they are all
// remembered.
func (f *feed) since(from uint64) ([]backend.Change, bool) {
	if f.seq-from >= historyLen {
		return nil, false
	}
	if from == f.seq {
		return nil, true
	}
	first, last := (from+1)%historyLen, f.seq%historyLen
	if first <= last {
		return slices.Clone(f.log[first : last+1]), true
	}
	return slices.Concat(f.log[first:], f.log[:last+1]), true
}

// latestOfEach keeps the latest change of each ID, in place.
func latestOfEach(changes []backend.Change) []backend.Change {
	if len(changes) < 2 {
		return changes
	}
	at := make(map[backend.ID]int, len(changes))
	kept := changes[:0]
	for _, c := range changes {
		if i, seen := at[c.ID]; seen {
			kept[i].Version = c.Version
			continue
		}
		at[c.ID] = len(kept)
		kept = append(kept, c)
	}
	return kept
}

// Watch implements backend.Watcher. It runs in its caller's goroutine.
func (s *Store) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	if err := s.ready(ctx, &s.mu); err != nil {
		return err
	}
	w := &watcher{news: make(chan struct{}, 1)}
	s.feed.watchers[w] = struct{}{}
	at, known := s.place(from)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.feed.watchers, w)
		s.mu.Unlock()
	}()

	tick := time.NewTicker(backend.ProofEvery(ctx) / 2)
	defer tick.Stop()
	for {
		// Before the state is read: a proof must not claim more than it saw.
		b := backend.Batch{AsOf: time.Now()}
		s.mu.RLock()
		if known {
			b.Changes, known = s.feed.since(at)
		}
		b.Reset = !known
		at, known = s.feed.seq, true
		closed := s.closed.Load()
		s.mu.RUnlock()
		if closed {
			return backend.ErrClosed
		}
		b.Changes = latestOfEach(b.Changes) // outside the lock: it may be long
		b.Token = s.token(at)
		if err := fn(b); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("memory: watch: %w", ctx.Err())
		case <-s.done:
			return backend.ErrClosed
		case <-w.news:
		case <-tick.C:
		}
	}
}

// place is where a token stands in the feed, and whether it is of this one.
func (s *Store) place(t backend.Token) (seq uint64, known bool) {
	if t == nil {
		return s.feed.seq, true
	}
	if len(t) != len(s.instance)+8 || string(t[:len(s.instance)]) != string(s.instance[:]) {
		return 0, false
	}
	seq = binary.BigEndian.Uint64(t[len(s.instance):])
	return seq, seq <= s.feed.seq
}
