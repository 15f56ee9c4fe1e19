package engine

import (
	"context"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
)

// Where an old answer may stand in for a store that fails.
const (
	// staleWait bounds how long a lookup waits for the store of which memory has an old
	// answer that may be given.
	staleWait = 250 * time.Millisecond
	// leftAlone is how long the store is not asked for such lookups after it failed.
	leftAlone = time.Second
)

// Find returns the answer to a lookup that memory could not answer at once. An error that is
// errs.ErrRejected is a finding, any other says that it could not be found out.
func (e *Engine[B]) Find(ctx context.Context, q *Lookup[B]) (*Answer[B], error) {
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

// findOrStandIn is collapse for a lookup of which memory has an old answer, which stands in
// if the store fails.
func (e *Engine[B]) findOrStandIn(ctx context.Context, q *Lookup[B]) (*Answer[B], error) {
	if q.Now.Age(e.storeFailed.Load()) < int64(leftAlone) {
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
	if short.Err() != nil { // the store may answer whoever waits for longer
		return e.collapse(ctx, q)
	}
	return nil, err
}

// standIn is the old answer of q, if it may be given although the store cannot be asked. It
// is looked up anew: a change that was made here or told by the feed has ended it.
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

// load finds the answer out from the store. If a record of it is found to have changed
// meanwhile, it is loaded once more, for such an answer is not remembered.
func (e *Engine[B]) load(ctx context.Context, q *Lookup[B]) (*Answer[B], error) {
	found, changed, err := e.loadOnce(ctx, q)
	if changed && !q.Fresh && errs.Unchecked(err) == nil {
		if again, _, err := e.loadOnce(ctx, q); errs.Unchecked(err) == nil {
			return again, err
		}
	}
	return found, err
}

// loadOnce is one call of the loader. An entry that it puts into memory depends on what is
// read after its tickets are taken.
func (e *Engine[B]) loadOnce(ctx context.Context, q *Lookup[B]) (found *Answer[B], changed bool, err error) {
	q.ticket, q.absentTicket = q.Memory.Begin(), e.absent.Begin()
	q.newest = &e.newest
	defer func() { changed = q.End() }()
	found, err = q.Loader.Load(ctx, q)
	return found, false, err
}

// Reading begins to read records for something else than a lookup.
func (e *Engine[B]) Reading(fresh bool, now clock.Moment) Reading {
	return Reading{Now: now, Fresh: fresh, newest: &e.newest}
}
