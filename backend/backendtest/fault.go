package backendtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
)

// Op names a method of a store. "" stands for all of them, Close aside.
type Op string

// The operations that a Fault sees.
const (
	OpGet      Op = "get"
	OpPut      Op = "put"
	OpDelete   Op = "delete"
	OpList     Op = "list"
	OpCount    Op = "count"
	OpScan     Op = "scan"
	OpAddUsage Op = "add usage"
	OpUsage    Op = "usage"
	OpPurge    Op = "purge"
	OpWatch    Op = "watch" // one whole Watch
	OpBatch    Op = "batch" // one delivery of a Watch; "" does not stand for it
)

// Call is one call of a store that a Fault is asked about.
type Call struct {
	Op Op
	N  int        // how many calls of this Op there have been, this one included
	ID backend.ID // the record, where there is one
}

// Injection is what a Fault does to a call. The zero Injection does nothing.
// The fields apply in this order. For OpBatch "the store" is the function that
// was given to Watch, and an error ends the Watch.
type Injection struct {
	// Before, if set, runs before the store is called.
	Before func()
	// Delay waits first, or until the context ends: then the store is not called,
	// and the call fails with the context's error.
	Delay time.Duration
	// Hang waits until the context ends, and fails as Delay does.
	Hang bool
	// Fail is returned instead of calling the store: surely not applied.
	Fail error
	// After, if set, runs after the store has answered, before the caller knows.
	After func()
	// Lose is returned after the store was called, in place of its answer: a lost
	// acknowledgement. The change is made and nobody is told.
	Lose error
}

// ErrInjected is wrapped by the errors that the helpers here inject.
var ErrInjected = errors.New("backendtest: injected fault")

// Unavailable is a failure that surely changed nothing.
func Unavailable() Injection {
	return Injection{Fail: fmt.Errorf("%w: %w", backend.ErrUnavailable, ErrInjected)}
}

// LostAck is a call that is made, and whose outcome stays unknown.
func LostAck() Injection {
	return Injection{Lose: fmt.Errorf("%w: %w", backend.ErrIndeterminate, ErrInjected)}
}

// Fault wraps a store and does to its calls what a test tells it: errors before
// and after the fact, delays, hangs, and functions that run in between. It is
// safe for concurrent use.
//
// A Fault has the capabilities of the store it wraps and no others: find them
// with backend.As, as the core does. Lister, Counter, BulkReader, Scanner, UsageRecorder,
// Purger and Watcher pass through the faults; Maintainer is the wrapped store's own, and so
// is a type that joins several capabilities in one interface.
type Fault struct {
	inner   backend.Store
	offered backend.Store // inner behind a layer for each capability it has

	mu     sync.Mutex // guards what is below
	calls  map[Op]int
	decide func(Call) Injection
}

var (
	_ backend.Store   = (*Fault)(nil)
	_ backend.Wrapper = (*Fault)(nil)
)

// NewFault wraps inner. Until Inject it only counts.
func NewFault(inner backend.Store) *Fault {
	f := &Fault{inner: inner, calls: make(map[Op]int)}
	f.offered = f.offer(inner)
	return f
}

// Inject sets what is done to each call from now on; nil does nothing. decide
// is called once for each call, never twice at the same time, and must not use
// the Fault. A call that has begun keeps what was decided for it.
func (f *Fault) Inject(decide func(Call) Injection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decide = decide
}

// stands reports whether op, perhaps "", means called.
func stands(op, called Op) bool {
	return op == called || op == "" && called != OpBatch
}

// InjectOnce does inj to the next call of op, and nothing to the others.
func (f *Fault) InjectOnce(op Op, inj Injection) {
	done := false
	f.Inject(func(c Call) Injection {
		if done || !stands(op, c.Op) {
			return Injection{}
		}
		done = true
		return inj
	})
}

// CrashAfter lets n more calls of the given operations (of all, if none is
// given) through, and makes the next one of them, and from then on every call of
// any kind, fail as unavailable: a crash of the store, seen by its caller. A
// running Watch ends at its next Batch.
func (f *Fault) CrashAfter(n int, ops ...Op) {
	left := n
	f.Inject(func(c Call) Injection {
		if left >= 0 && (slices.Contains(ops, c.Op) || len(ops) == 0 && stands("", c.Op)) {
			left--
		}
		if left < 0 {
			return Unavailable()
		}
		return Injection{}
	})
}

// Calls returns how many calls of op there have been, those that failed by
// injection included.
func (f *Fault) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for called, times := range f.calls {
		if stands(op, called) {
			n += times
		}
	}
	return n
}

// Unwrap returns the wrapped store, behind the layers that put its capabilities
// through the faults.
func (f *Fault) Unwrap() backend.Store { return f.offered }

// call does to one call what was decided.
func call[T any](ctx context.Context, f *Fault, op Op, id backend.ID, do func() (T, error)) (T, error) {
	f.mu.Lock()
	f.calls[op]++
	var inj Injection
	if f.decide != nil {
		inj = f.decide(Call{Op: op, N: f.calls[op], ID: id})
	}
	f.mu.Unlock()

	var zero T
	if inj.Before != nil {
		inj.Before()
	}
	if inj.Delay > 0 || inj.Hang {
		var after <-chan time.Time
		if !inj.Hang {
			t := time.NewTimer(inj.Delay)
			defer t.Stop()
			after = t.C
		}
		select {
		case <-ctx.Done():
			return zero, fmt.Errorf("backendtest: %s: %w", op, ctx.Err())
		case <-after:
		}
	}
	if inj.Fail != nil {
		return zero, inj.Fail
	}
	v, err := do()
	if inj.After != nil {
		inj.After()
	}
	if inj.Lose != nil {
		return zero, inj.Lose
	}
	return v, err
}

// Get implements backend.Store.
func (f *Fault) Get(ctx context.Context, id backend.ID) (backend.Record, error) {
	return call(ctx, f, OpGet, id, func() (backend.Record, error) { return f.inner.Get(ctx, id) })
}

// Put implements backend.Store.
func (f *Fault) Put(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
	return call(ctx, f, OpPut, rec.ID, func() (uint64, error) { return f.inner.Put(ctx, rec, cond) })
}

// Delete implements backend.Store.
func (f *Fault) Delete(ctx context.Context, id backend.ID, version uint64) error {
	_, err := call(ctx, f, OpDelete, id, func() (struct{}, error) {
		return struct{}{}, f.inner.Delete(ctx, id, version)
	})
	return err
}

// Close closes the wrapped store; no fault is injected.
func (f *Fault) Close() error { return f.inner.Close() }
