// Package memory is the store that lives in the process: the reference for the
// contract, for tests, and for programs whose credentials need not outlive
// them. It is not durable: everything is gone with the process. It provides
// every capability of package backend.
package memory

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
)

// Store is a store in memory. Make one with New. It is safe for concurrent use
// and starts no goroutine.
type Store struct {
	instance [8]byte       // tells tokens of this store from those of another
	done     chan struct{} // closed by Close

	closed atomic.Bool
	shards [64]shard // the records; written under mu as well

	mu    sync.RWMutex // guards what is below, and every change
	lists map[list]*index
	usage map[backend.ID]backend.Usage
	feed  feed
}

// shard holds some of the records, under a lock of its own so that Get waits
// neither for lists nor for the feed. A stored record is never changed, only
// replaced.
type shard struct {
	mu      sync.RWMutex
	records map[backend.ID]*backend.Record
	_       [32]byte // a cache line each
}

// shard is where a record lives. IDs may be ordered by time: all bytes count.
func (s *Store) shard(id *backend.ID) *shard {
	h := (binary.LittleEndian.Uint64(id[:8]) ^ binary.LittleEndian.Uint64(id[8:])) * 0x9e3779b97f4a7c15
	return &s.shards[h>>58]
}

// load is nil for an unknown ID.
func (s *Store) load(id backend.ID) *backend.Record {
	sh := s.shard(&id)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.records[id]
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
)

// New makes an empty store.
func New() *Store {
	s := &Store{
		done:  make(chan struct{}),
		lists: make(map[list]*index),
		usage: make(map[backend.ID]backend.Usage),
	}
	for i := range s.shards {
		s.shards[i].records = make(map[backend.ID]*backend.Record)
	}
	_, _ = rand.Read(s.instance[:]) // never returns an error
	s.feed.watchers = make(map[*watcher]struct{})
	return s
}

// ready is the start of every call; the lock is held when it returns nil.
func (s *Store) ready(ctx context.Context, lock sync.Locker) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	lock.Lock()
	if s.closed.Load() {
		lock.Unlock()
		return backend.ErrClosed
	}
	return nil
}

// Get implements backend.Store.
func (s *Store) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	if err := ctx.Err(); err != nil {
		return backend.Record{}, fmt.Errorf("memory: get: %w", err)
	}
	if s.closed.Load() {
		return backend.Record{}, backend.ErrClosed
	}
	rec := s.load(id)
	if rec == nil {
		return backend.Record{}, backend.ErrNotFound
	}
	return copyOf(rec), nil
}

func copyOf(rec *backend.Record) backend.Record {
	out := *rec
	out.Body, out.Labels = slices.Clone(rec.Body), slices.Clone(rec.Labels)
	return out
}

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	if err := backend.CheckPut(rec, cond); err != nil {
		return 0, err
	}
	if err := s.ready(ctx, &s.mu); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	old := s.load(rec.ID)
	if cond.Absent() {
		if old != nil {
			return 0, backend.ErrConflict
		}
	} else {
		v, _ := cond.Version()
		switch {
		case old == nil:
			return 0, backend.ErrNotFound
		case old.Version != v:
			return 0, backend.ErrConflict
		}
		if err := backend.CheckUpdate(*old, rec); err != nil {
			return 0, err
		}
		s.unlist(old)
	}
	stored := copyOf(&rec)
	// One sequence for all, so that versions rise even across a Delete.
	stored.Version = s.feed.publish(rec.ID)
	sh := s.shard(&rec.ID)
	sh.mu.Lock()
	sh.records[rec.ID] = &stored
	sh.mu.Unlock()
	s.enlist(&stored)
	return stored.Version, nil
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, id backend.ID, version uint64) error {
	if err := s.ready(ctx, &s.mu); err != nil {
		return err
	}
	defer s.mu.Unlock()
	rec := s.load(id)
	switch {
	case rec == nil:
		return backend.ErrNotFound
	case rec.Version != version:
		return backend.ErrConflict
	}
	s.remove(rec)
	return nil
}

func (s *Store) remove(rec *backend.Record) {
	s.unlist(rec)
	sh := s.shard(&rec.ID)
	sh.mu.Lock()
	delete(sh.records, rec.ID)
	sh.mu.Unlock()
	delete(s.usage, rec.ID)
	s.feed.publish(rec.ID)
}

// Close implements backend.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed.Swap(true) {
		close(s.done)
	}
	return nil
}

// GetMany implements backend.BulkReader.
func (s *Store) GetMany(ctx context.Context, ids []backend.ID) ([]backend.Record, error) {
	if err := backend.CheckGetMany(ids); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("memory: get many: %w", err)
	}
	if s.closed.Load() {
		return nil, backend.ErrClosed
	}
	found := make([]backend.Record, 0, len(ids))
	for _, id := range ids {
		if rec := s.load(id); rec != nil {
			found = append(found, copyOf(rec))
		}
	}
	return found, nil
}

// Scan implements backend.Scanner.
func (s *Store) Scan(ctx context.Context, kind backend.Kind, fn func([]backend.Record) error) error {
	if err := backend.CheckScan(kind); err != nil {
		return err
	}
	for i := range s.shards {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("memory: scan: %w", err)
		}
		if s.closed.Load() {
			return backend.ErrClosed
		}
		if found := s.shards[i].of(kind); len(found) > 0 {
			if err := fn(found); err != nil {
				return err
			}
		}
	}
	return nil
}

// of returns the records of a kind. They are copied without the lock, as Get does.
func (sh *shard) of(kind backend.Kind) []backend.Record {
	sh.mu.RLock()
	var stored []*backend.Record
	for _, rec := range sh.records {
		if rec.Kind == kind {
			stored = append(stored, rec)
		}
	}
	sh.mu.RUnlock()
	found := make([]backend.Record, len(stored))
	for i, rec := range stored {
		found[i] = copyOf(rec)
	}
	return found
}

// AddUsage implements backend.UsageRecorder.
func (s *Store) AddUsage(ctx context.Context, batch []backend.Usage) error {
	if err := s.ready(ctx, &s.mu); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, u := range batch {
		have := s.usage[u.ID]
		s.usage[u.ID] = backend.Usage{ID: u.ID, N: have.N + u.N, Last: max(have.Last, u.Last)}
	}
	return nil
}

// Usage implements backend.UsageRecorder.
func (s *Store) Usage(ctx context.Context, ids []backend.ID) ([]backend.Usage, error) {
	if err := s.ready(ctx, s.mu.RLocker()); err != nil {
		return nil, err
	}
	defer s.mu.RUnlock()
	out := make([]backend.Usage, len(ids))
	for i, id := range ids {
		out[i] = s.usage[id]
		out[i].ID = id
	}
	return out, nil
}

// Purge implements backend.Purger.
func (s *Store) Purge(ctx context.Context, before time.Time, limit int) (int, error) {
	if err := backend.CheckPurge(limit); err != nil {
		return 0, err
	}
	if err := s.ready(ctx, &s.mu); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	ix := s.lists[list{by: 'd'}]
	if ix == nil {
		return 0, nil
	}
	var due []*backend.Record
	ix.after(listPlace{}, func(p listPlace) bool {
		if p.at > before.UnixMilli() || len(due) == limit {
			return false
		}
		due = append(due, s.load(p.id))
		return true
	})
	for _, rec := range due {
		s.remove(rec)
	}
	return len(due), nil
}

// token is the instance and a place in the feed.
func (s *Store) token(seq uint64) backend.Token {
	return binary.BigEndian.AppendUint64(slices.Clone(s.instance[:]), seq)
}
