// Package feed follows the feed of a store: it begins, goes on from where it was, and comes
// back after it was lost. What the changes mean is for whoever it tells of them.
package feed

import (
	"context"
	"errors"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/retry"
)

// Follower is a feed, and who is told of it. All of its functions are called by the
// goroutine of Run, or by the one in which the store tells of a batch, and never two at a
// time.
type Follower struct {
	Watcher backend.Watcher
	// Begin reads everything anew: from now on the feed misses nothing, of what was
	// before it may have. If it fails, the feed is lost, and Begin is called again.
	Begin func(context.Context) error
	// Apply takes in changes; there may be none. If it fails, the feed is lost, and tells of
	// these changes again.
	Apply func(context.Context, []backend.Change) error
	// Proved is told the instant, by the machine's clock, of which the feed has proved that
	// it has told of every change before.
	Proved func(asOf time.Time)
	// Lost is told why the feed was lost, or why a try to follow it again has failed.
	Lost func(error)
}

// Run follows the feed until ctx ends or the store is closed. Panics of the store and of
// Begin, Apply and Proved are reasons for which the feed is lost.
func (f *Follower) Run(ctx context.Context) {
	var backoff retry.Backoff
	var token backend.Token // where to go on; nil: from the beginning, with everything read anew
	batch := func(b backend.Batch) error {
		if token == nil || b.Reset {
			// Told once is enough: should this fail, it is done again.
			token = nil
			if err := f.Begin(ctx); err != nil {
				return err
			}
		}
		if err := f.Apply(ctx, b.Changes); err != nil {
			return err
		}
		if len(b.Token) > 0 {
			token = b.Token
		}
		backoff.Reset()
		if !b.AsOf.IsZero() {
			f.Proved(b.AsOf)
		}
		return nil
	}
	for ctx.Err() == nil {
		err := guard.Run("", func() error {
			return f.Watcher.Watch(ctx, token, func(b backend.Batch) error {
				// Not through the store, which may hold a lock while it calls.
				return guard.Run("", func() error { return batch(b) })
			})
		})
		if ctx.Err() != nil || errors.Is(err, backend.ErrClosed) {
			return
		}
		switch {
		case err == nil:
			err = errors.New("the feed ended")
		case errors.Is(err, backend.ErrInvalid):
			token = nil // not one that this store can go on from
		}
		f.Lost(errs.OfStore("fob: follow the feed", err))
		backoff.Pause(ctx)
	}
}
