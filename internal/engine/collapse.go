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

// If many callers want the same answer and it is not in memory, one of them loads it and
// the others wait: they share one flight. But a load may hang, while a load that began now
// would be answered at once. So nobody waits long for the load of another caller. And a
// caller that came after a load had begun is not told that this load failed.
const (
	// joinWait bounds how long callers wait for a load before one of them begins another
	// one. A load takes a few milliseconds as a rule. Over a store in trouble it takes up
	// to a second, and to ask such a store twice would only add to the trouble.
	joinWait = 2 * time.Second
	// leftWait is that bound for a load whose caller has given up on it, because there was
	// a reason to give up. It is also how long after that other callers may still join the
	// load.
	leftWait = 250 * time.Millisecond
	// joinTries bounds how often a caller waits for answers that turn out to be of no use
	// to it, before it loads the answer itself.
	joinTries = 3
	// loadTimeout bounds a load that goes on although its caller has left.
	loadTimeout = 10 * time.Second
)

// collapse loads the answer, or waits for another caller that loads the same answer.
func (e *Engine[B]) collapse(ctx context.Context, q *Lookup[B]) (*Answer[B], error) {
	flights := e.flights
	// The first flight may have begun before this call did; every later one began after it.
	flight, leads := flights.Join(flightKey{q.Seen, q.Form}, binary.LittleEndian.Uint64(q.Seen[:]))
	for first, useless := true, 0; ; first = false {
		if leads {
			return e.lead(ctx, q, flight)
		}
		failed, err := waitFor(ctx, flight)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, fmt.Errorf("fob: verify: %w", ctx.Err())
		case err != nil:
			// The load took too long. One of all callers that wait begins a new one.
		case failed != nil && !first:
			return nil, failed
		case failed == nil:
			// The answer is taken from memory, and not from the caller that loaded it: if
			// something changed before this call began, the answer is no longer in memory.
			if found, err := e.recall(q); found != nil || err != nil {
				return found, err
			}
			if useless++; useless == joinTries {
				return e.load(ctx, q) // outside of any flight, so that this caller waits for nobody
			}
		}
		flight, leads = flights.Succeed(flight)
	}
}

// waitFor waits until a flight ends, but not for long. failed is the error that the load
// ended with. err says that the flight has not ended.
func waitFor(ctx context.Context, flight *cache.Flight[flightKey, error]) (failed, err error) {
	limit := joinWait
	if flight.Left() {
		limit = leftWait
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return flight.Wait(ctx)
}

// recall looks in memory for an answer that came there while q waited. Its age is measured
// from when q began.
func (e *Engine[B]) recall(q *Lookup[B]) (*Answer[B], error) {
	a, ok := q.Memory.Get(q.At, q.Now.Mono)
	if ok && a.Form == q.Form && a.Seen.Equal(&q.Seen) && e.Believes(a.AsOf(), q.Now) {
		return a, nil
	}
	return nil, e.knownAbsent(q)
}

// flightKey identifies a load: callers with the same flightKey share one.
type flightKey struct {
	seen Digest
	form int16
}

// errAbandoned is the error for callers that wait for a load that panicked.
var errAbandoned = errors.New("fob: verify: the load was abandoned")

// lead loads the answer for all callers that wait. The load runs in the goroutine of the
// first caller, which costs nothing. If that caller leaves before the load ends, the load
// begins again in a goroutine of its own. So no caller suffers from the deadline of another
// one, and the answer gets into memory even if the store is slower than all deadlines.
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
		failed = nil // this caller's context has ended; the others look in memory, or load
		handedOver = e.detach(ctx, q, flight)
	}
	return found, err
}

// detach begins a load again whose caller has left, unless too many such loads run, or the
// other callers have given up on it too. The load ends when Config.Running does.
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
	rest.Presented = strings.Clone(q.Presented) // the caller may use the memory of its text again
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
