package engine

import (
	"context"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
)

// These times apply to a lookup whose old answer in memory may be given while the store
// fails.
const (
	// staleWait bounds how long such a lookup waits for the store.
	staleWait = 250 * time.Millisecond
	// storePause is how long the store is not asked for such lookups after it has failed.
	storePause = time.Second
)

// NewLookup makes an empty lookup for [Engine.Find]. A Loader is called through an
// interface, so a lookup cannot stay on the stack of its caller.
func (e *Engine[B]) NewLookup() *Lookup[B] {
	if q, ok := e.lookups.Get().(*Lookup[B]); ok {
		return q
	}
	return new(Lookup[B])
}

// Find returns the answer to a lookup that memory could not answer at once. An error that
// is errs.ErrRejected is a result; any other error means that the answer could not be found
// out.
//
// The lookup is over then, and its memory is used for another one.
func (e *Engine[B]) Find(ctx context.Context, q *Lookup[B]) (*Answer[B], error) {
	found, err := e.find(ctx, q)
	*q = Lookup[B]{} // keeps no text of a credential
	e.lookups.Put(q)
	return found, err
}

func (e *Engine[B]) find(ctx context.Context, q *Lookup[B]) (*Answer[B], error) {
	if q.Fresh {
		return e.load(ctx, q)
	}
	if err := e.knownAbsent(q); err != nil {
		e.refused.Add(1)
		return nil, err
	}
	if q.Old == nil {
		return e.collapse(ctx, q)
	}
	e.rechecked.Add(1)
	if e.cfg.StaleIfError == 0 {
		return e.collapse(ctx, q)
	}
	return e.findOrStandIn(ctx, q)
}

// findOrStandIn is collapse for a lookup that has an old answer in memory. If the store
// fails, it returns the old answer, as long as that may be given.
func (e *Engine[B]) findOrStandIn(ctx context.Context, q *Lookup[B]) (*Answer[B], error) {
	if q.Now.Age(e.storeFailed.Load()) < int64(storePause) {
		if old := e.standIn(q); old != nil {
			return old, nil
		}
	}
	short, cancel := context.WithTimeout(ctx, staleWait)
	defer cancel()
	found, err := e.collapse(short, q)
	if err == nil || ctx.Err() != nil || !errs.IsOutage(err) {
		return found, err
	}
	e.storeFailed.Store(q.Now.Mono)
	if old := e.standIn(q); old != nil {
		return old, nil
	}
	if short.Err() != nil { // the store may still answer a caller that waits longer
		return e.collapse(ctx, q)
	}
	return nil, err
}

// standIn returns the old answer of q if it may be given although the store cannot be
// asked, or nil. It looks the answer up again, because a change that this process made, or
// that the feed told of, has dropped it from memory.
func (e *Engine[B]) standIn(q *Lookup[B]) *Answer[B] {
	now := e.Now()
	a, ok := q.Memory.Get(q.At, now.Mono)
	if !ok || a != q.Old {
		return nil
	}
	a.Confirm(now)
	if !e.Endures(a.AsOf(), now) {
		return nil
	}
	e.stale.Add(1)
	return a
}

// mostMixed bounds how often an answer is loaded again because its records changed meanwhile.
// Whoever changes them that often in a row, each time between two reads of one load, is told
// of states of two records that were not at one time.
const mostMixed = 16

// load loads the answer from the store. If one of its records is found to have changed
// meanwhile, the answer is not remembered, so load loads it once more. An answer may be made
// from several records, each of which goes off and on: it is loaded again until none of them
// was changed here between the first read and the last.
func (e *Engine[B]) load(ctx context.Context, q *Lookup[B]) (*Answer[B], error) {
	found, changed, err := e.loadOnce(ctx, q)
	again := changed && !q.Fresh
	for n := 0; (again || q.mixed) && n < mostMixed && errs.Unchecked(err) == nil; n++ {
		next, _, nextErr := e.loadOnce(ctx, q)
		if errs.Unchecked(nextErr) != nil {
			break
		}
		found, err, again = next, nextErr, false
	}
	return found, err
}

// loadOnce calls the Loader once. It takes the tickets of the caches before the Loader
// reads anything, so that an entry the Loader puts into memory depends on all that it
// reads. changed says that one of the records was found at another version than before.
func (e *Engine[B]) loadOnce(ctx context.Context, q *Lookup[B]) (found *Answer[B], changed bool, err error) {
	q.ticket, q.absentTicket = q.Memory.Begin(), e.absent.Begin()
	q.newest, q.mixed = &e.newest, false
	defer func() { changed = q.End() }()
	found, err = q.Loader.Load(ctx, q)
	return found, false, err
}

// Reading begins a reading of records that serves no lookup.
func (e *Engine[B]) Reading(fresh bool, now clock.Moment) Reading {
	return Reading{Now: now, Fresh: fresh, newest: &e.newest}
}
