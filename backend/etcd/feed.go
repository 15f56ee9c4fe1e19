package etcd

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
)

// maxWaiting is how many changed records wait for a slow consumer, the latest
// version of each; beyond it there is a Reset. About 6 MB.
const maxWaiting = 100_000

// Watch implements backend.Watcher. A goroutine follows etcd and keeps what is
// new, so that a slow fn holds up nobody and lets nothing pile up in the client;
// fn runs in the caller's goroutine.
//
// It goes on through failures that end by themselves: elections, members that stop,
// connections that break. Until it has proof again, a Batch comes only for changes, and
// has the AsOf of the last proof. It returns an error of etcd only where going on is
// hopeless: the client was closed, the user may not read the prefix, or the layout
// is not known.
func (s *Store) Watch(ctx context.Context, from backend.Token, fn func(backend.Batch) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	f := &follower{store: s, from: slices.Clone(from), news: make(chan struct{}, 1), changes: make(map[backend.ID]uint64)}
	if from == nil {
		f.from = nil
	} else if f.from == nil {
		f.from = backend.Token{} // empty is not the same as none
	}
	within, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(s.life, cancel)
	var ended error // read after done
	done := make(chan struct{})
	s.followers.Go(func() {
		defer close(done)
		ended = f.follow(within)
	})
	s.calls.Leave()
	defer func() {
		unhook()
		cancel()
		<-done
	}()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("etcd: watch: %w", ctx.Err())
		case <-s.life.Done():
			return backend.ErrClosed
		case <-f.news:
			if err := fn(f.take()); err != nil {
				return err
			}
		case <-done:
			if over := ctx.Err(); over != nil {
				return fmt.Errorf("etcd: watch: %w", over)
			}
			if s.life.Err() != nil {
				return backend.ErrClosed
			}
			return readFailure(ctx, "watch", ended)
		}
	}
}

// follower is one Watch. Its own goroutine fills it and the caller's takes from
// it.
type follower struct {
	store *Store
	from  backend.Token
	news  chan struct{} // a flag: there is something to take

	// What only the follower's goroutine uses.
	placed bool     // at is where it stands
	lost   bool     // but what follows is gone
	at     position // up to where changes have been noted
	seen   position // what the last proof showed
	warned bool     // of the outage that it is in

	stalls   int           // sessions in a row that did not answer
	patience time.Duration // with the next

	mu      sync.Mutex // guards what is below
	changes map[backend.ID]uint64
	upTo    position
	asOf    time.Time // zero until the first proof, and nothing is delivered before it
	reset   bool
}

// take is the next Batch.
func (f *follower) take() backend.Batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := backend.Batch{Token: f.upTo.token(), AsOf: f.asOf, Reset: f.reset}
	if len(f.changes) > 0 {
		b.Changes = make([]backend.Change, 0, len(f.changes))
		for id, v := range f.changes {
			b.Changes = append(b.Changes, backend.Change{ID: id, Version: v})
		}
		clear(f.changes)
	}
	f.reset = false
	return b
}

// note keeps changes, all of them up to f.at.
func (f *follower) note(changes []backend.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range changes {
		f.changes[c.ID] = c.Version
	}
	if len(f.changes) > maxWaiting {
		clear(f.changes)
		f.reset = true
	}
	f.upTo = f.at
	f.announce()
}

// prove says that all that was committed before asOf has been noted.
func (f *follower) prove(asOf time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.upTo, f.asOf = f.at, asOf
	f.announce()
}

// forget says that the history before f.at is lost.
func (f *follower) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.changes)
	f.reset = true
}

// announce wakes the caller. It never waits for it.
func (f *follower) announce() {
	if f.asOf.IsZero() {
		return
	}
	select {
	case f.news <- struct{}{}:
	default:
	}
}
