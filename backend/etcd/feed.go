package etcd

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/news"
	"github.com/fobkit/fob/backend/internal/outbox"
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
	f := &follower{store: s, from: slices.Clone(from), every: news.ProofPause(ctx), box: outbox.New(slices.Clone(from), maxWaiting, backend.MaxLimit)}
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
		case <-f.box.Ready():
			if err := fn(f.box.Take()); err != nil {
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

// follower is one Watch. Its own goroutine fills the box and the caller's takes from it;
// the rest is the former's alone.
type follower struct {
	store *Store
	from  backend.Token
	every time.Duration // how often a proof is wanted
	box   *outbox.Box

	placed bool     // at is where it stands
	lost   bool     // but what follows is gone
	at     position // up to where changes have been noted
	seen   position // what the last proof showed
	warned bool     // of the outage that it is in

	stalls   int           // sessions in a row that did not answer
	patience time.Duration // with the next
}
