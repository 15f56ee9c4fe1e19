// Package feed follows the feed of a store: it begins, continues where it stopped, and
// begins again after the feed was lost. It does not know what a change means: the functions
// of a Follower do.
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

// Follower is a feed, and the functions that are told of it. The functions are called in
// the goroutine of Run, or in the goroutine in which the store delivers a batch, and never
// two of them at the same time.
type Follower struct {
	Watcher backend.Watcher
	// Begin drops what is in memory or reads it anew, because the feed misses no change from
	// now on, but may have missed some before. If Begin fails, the feed counts as lost, and Begin is called
	// again.
	Begin func(context.Context) error
	// Apply takes in the changes of a batch, of which there may be none. If Apply fails,
	// the feed counts as lost, and the same changes are delivered again.
	Apply func(context.Context, []backend.Change) error
	// Proved is told an instant, by the machine's clock: the feed has proved that it told
	// of every change before it.
	Proved func(asOf time.Time)
	// Lost is told why the feed was lost, or why a try to follow it again has failed.
	Lost func(error)
}

// Run follows the feed until ctx ends or the store is closed. If the store, Begin, Apply or
// Proved panics, the feed counts as lost.
func (f *Follower) Run(ctx context.Context) {
	var backoff retry.Backoff
	var token backend.Token // where the feed continues; nil: it begins anew, and everything is read anew
	batch := func(b backend.Batch) error {
		if token == nil || b.Reset {
			// The store reports a reset only once. So the token is cleared first: if Begin
			// fails, the next round begins anew too.
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
				// The panic is caught here, before it goes through the store, which may
				// hold a lock while it calls this function.
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
			token = nil // the store cannot continue from this token
		}
		f.Lost(errs.OfStore("fob: follow the feed", err))
		backoff.Pause(ctx)
	}
}
