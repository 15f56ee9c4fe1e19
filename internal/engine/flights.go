package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/guard"
)

// Of many who want one answer that is not in memory, one loads it and the others wait:
// they are on one flight. But a load may hang that would be answered at once if it were
// begun now, so nobody waits for another one's load for long, and nobody is told of its
// failure who came after it began.
const (
	// joinWait bounds how long a load is waited for before one of those who wait begins
	// another. A load takes a few milliseconds as a rule, and up to a second over a store
	// that is in trouble, when to ask it twice would only add to that.
	joinWait = 2 * time.Second
	// leftWait bounds the same for who comes to a load when its caller has given up on it,
	// and is how long after that anybody can: it was left for a reason.
	leftWait = 250 * time.Millisecond
	// joinTries bounds how often a caller waits for answers that turn out to be of no
	// use to it before it loads its own.
	joinTries = 3
	// loadTimeout bounds such a load.
	loadTimeout = 10 * time.Second
)

// collapse loads, or waits for the same load of another caller.
func (e *Engine[B]) collapse(ctx context.Context, q *Lookup[B]) (*Answer[B], error) {
	flights := e.flights
	// The first flight began before this call did; every later one began after it.
	flight, leads := flights.Join(flightKey{q.Seen, q.Form}, binary.LittleEndian.Uint64(q.Seen[:]))
	for first, useless := true, 0; ; first = false {
		if leads {
			return e.lead(ctx, q, flight)
		}
		failed, err := wait(ctx, flight)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("fob: verify: %w", ctx.Err())
		case err != nil:
			// It took too long. Of all who wait one asks for itself now.
		case failed != nil && !first:
			return nil, failed
		case failed == nil:
			// What the other one found is taken from memory only, and not from its hands:
			// there it is no longer good if something changed before this call began.
			if found, err := e.recall(q); found != nil || err != nil {
				return found, err
			}
			if useless++; useless == joinTries {
				return e.load(ctx, q) // and not as the leader of a flight, for it waits for nobody
			}
		}
		flight, leads = flights.Succeed(flight)
	}
}

// wait waits for a flight, and not for long.
func wait(ctx context.Context, flight *cache.Flight[flightKey, error]) (failed, err error) {
	limit := joinWait
	if flight.Left() {
		limit = leftWait
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return flight.Wait(ctx)
}

// recall looks for an answer that came into memory while q waited. How old it may
// be is counted from when q began.
func (e *Engine[B]) recall(q *Lookup[B]) (*Answer[B], error) {
	a, ok := q.Memory.Get(q.At, q.Now.Mono)
	if ok && a.Form == q.Form && a.Seen.Equal(&q.Seen) && e.Believes(a.AsOf(), q.Now) {
		return a, nil
	}
	return nil, e.knownAbsent(q)
}

// flightKey is what those want alike who share a load.
type flightKey struct {
	seen Digest
	form int16
}

// errAbandoned is what those are told who wait for a load that panicked.
var errAbandoned = errors.New("fob: verify: the load was abandoned")

// lead loads for everybody who waits. The load runs in the first caller's
// goroutine, which costs nothing; when that caller leaves before its end, it is begun
// anew in one of its own, so that nobody suffers from somebody else's deadline, and
// a store that is slower than all deadlines still fills the cache.
func (e *Engine[B]) lead(ctx context.Context, q *Lookup[B], flight *cache.Flight[flightKey, error]) (*Answer[B], error) {
	failed, handedOver := errAbandoned, false
	defer func() {
		if !handedOver {
			e.flights.Land(flight, failed)
		}
	}()
	found, err := e.load(ctx, q)
	failed = errs.Unchecked(err)
	if failed != nil && ctx.Err() != nil {
		failed = nil // that is this caller's own; the others look for themselves
		handedOver = e.detach(ctx, q, flight)
	}
	return found, err
}

// detach begins a load anew that its caller did not wait for, unless too many such run,
// or the others have given up on it too. Close ends it and waits.
func (e *Engine[B]) detach(ctx context.Context, q *Lookup[B], flight *cache.Flight[flightKey, error]) bool {
	release, ok := e.cfg.Hold()
	if !ok {
		return false
	}
	if !e.flights.Leave(flight) {
		release()
		return false
	}
	rest := *q
	rest.Presented = strings.Clone(q.Presented) // the caller's memory is its own again
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
	stop := context.AfterFunc(e.cfg.Running, cancel)
	left := time.AfterFunc(leftWait, func() { e.flights.Retire(flight) })
	go func() {
		failed := errAbandoned
		defer func() {
			left.Stop()
			stop()
			cancel()
			e.flights.Land(flight, failed)
			release()
		}()
		err := guard.Run(rest.Presented, func() error {
			rest.Now = e.Now()
			_, err := e.load(ctx, &rest)
			failed = errs.Unchecked(err)
			return nil
		})
		if err != nil {
			e.cfg.Failed(fmt.Errorf("fob: verify: %w", err))
		}
	}()
	return true
}
