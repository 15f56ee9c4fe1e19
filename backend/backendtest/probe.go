package backendtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
)

// check tests one thing, under the rule that demands it.
type check struct {
	rule  int
	name  string
	needs []Capability // it does not run for a store that lists one as missing
	run   func(p *probe)
}

func (c check) String() string { return fmt.Sprintf("R%d %s", c.rule, c.name) }

// duties are the rules of package backend in half a sentence each.
var duties = [...]string{
	1:  "arguments past a limit are ErrInvalid, and nothing is written",
	2:  "what Get and List return equals what was Put",
	3:  "all methods are safe for concurrent use",
	4:  "a context that is done makes a call fail with its error and change nothing, and one that ends later makes a Put or an AddUsage fail with ErrIndeterminate unless its outcome is known",
	5:  "Get sees every Put that returned before it began",
	6:  "the store shares no memory with its caller",
	7:  "of n concurrent Puts with the same condition exactly one returns nil",
	8:  "versions are above zero and rise strictly per ID",
	9:  "a Put that returned nil survives",
	10: "a failed condition is ErrConflict, or ErrNotFound where there is no record, and a change of what is immutable is ErrInvalid",
	11: "Close ends everything, may be called again, and every other call after it answers ErrClosed",
	12: "the first Batch comes at once, and every change after it is delivered, or else a Reset",
	13: "while the engine answers, a Batch comes at least every HeartbeatEvery, and every change committed before its AsOf has been delivered",
	14: "a slow fn never delays a writer",
	15: "lists are in order, and a record that keeps its place during the walk appears exactly once",
	16: "AddUsage adds N and moves Last forward only, the whole batch or none of it, and Usage answers in the order asked",
	17: "Purge removes at most limit records that are due, with their usage, and never another",
	18: "what a store keeps back when its space runs out is for Delete, Purge and a Put that is Urgent, and for nothing else",
	19: "GetMany answers for each record as Get does, and leaves out those that do not exist",
	20: "Scan delivers every record of a Kind that exists meanwhile",
	21: "a record is in the list of each label that the last Put gave it, and in no other",
	22: "Count returns how many records the query selects, or most if there are that many or more",
}

// reporter is the part of testing.T that checks use: the suite's own test watches
// it fail.
type reporter interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// probe is one check under way.
type probe struct {
	reporter
	rule  int
	store backend.Store
	ctx   context.Context
	t     *testing.T // for the functions of Options and newStore only
	opts  Options
	fresh func(t *testing.T) backend.Store
}

func (c check) do(r reporter, t *testing.T, newStore func(t *testing.T) backend.Store, opts Options) {
	r.Helper()
	p := &probe{reporter: r, rule: c.rule, ctx: context.Background(), t: t, opts: opts, fresh: newStore}
	p.store = newStore(t)
	defer func() { p.discard(p.store) }()
	for _, need := range c.needs {
		there, listed := has(p.store, need), slices.Contains(opts.Missing, need)
		switch {
		case there && listed:
			r.Fatalf("package backend: the store has the capability %s, and Options.Missing lists it", need)
		case !there && !listed:
			r.Fatalf("package backend: the store lacks the capability %s, and Options.Missing does not list it", need)
		case !there:
			r.Logf("the store lacks %s, as listed: nothing to test", need)
			return
		}
	}
	c.run(p)
}

func has(s backend.Store, c Capability) (ok bool) {
	switch c {
	case Watcher:
		_, ok = backend.As[backend.Watcher](s)
	case Lister:
		_, ok = backend.As[backend.Lister](s)
	case Counter:
		_, ok = backend.As[backend.Counter](s)
	case UsageRecorder:
		_, ok = backend.As[backend.UsageRecorder](s)
	case Purger:
		_, ok = backend.As[backend.Purger](s)
	case BulkReader:
		_, ok = backend.As[backend.BulkReader](s)
	case Scanner:
		_, ok = backend.As[backend.Scanner](s)
	}
	return ok
}

// optional is a capability of the store, for checks that use it where it is there.
func optional[T any](p *probe) (T, bool) { return backend.As[T](p.store) }

// capability is one that the check needs.
func capability[T any](p *probe) T {
	t, _ := backend.As[T](p.store)
	return t
}

// another is one more empty store, closed when the check has done with it.
func (p *probe) another() (s backend.Store, discard func()) {
	s = p.fresh(p.t)
	return s, func() { p.discard(s) }
}

// broken ends the check with the sentence about its rule: one, even where several
// errors were joined.
func (p *probe) broken(format string, args ...any) {
	p.Helper()
	what := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	p.Fatalf("rule R%d of package backend: %s: %s", p.rule, duties[p.rule], what)
}

// discard closes a store that the check has done with. What Close promises has
// its own group; a Close that hangs must not hang the others.
func (p *probe) discard(s backend.Store) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Close() // its own group looks at it
	}()
	p.waited(done)
}

// waited waits for c to be closed and reports whether it was.
func (p *probe) waited(c <-chan struct{}) bool {
	t := time.NewTimer(p.opts.Patience)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}

// within runs do, which may not end the check, and fails if it does not return.
func (p *probe) within(what string, do func()) {
	p.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	if !p.waited(done) {
		p.broken("%s did not end within %v", what, p.opts.Patience)
	}
}

// eventually waits until cond holds and reports whether it did.
func (p *probe) eventually(cond func() bool) bool {
	for start := time.Now(); !cond(); time.Sleep(time.Millisecond) {
		if time.Since(start) > p.opts.Patience {
			return cond()
		}
	}
	return true
}

var sentinels = []error{
	backend.ErrNotFound, backend.ErrConflict, backend.ErrIndeterminate, backend.ErrUnavailable,
	backend.ErrClosed, backend.ErrInvalid, backend.ErrCorrupt,
}

// is reports whether err is want and no other sentinel: callers branch on it. For
// a context's error, want is that error.
func is(err, want error) bool {
	if want == nil || err == nil {
		return err == want
	}
	for _, s := range sentinels {
		if s != want && errors.Is(err, s) {
			return false
		}
	}
	return errors.Is(err, want)
}

// ofContext reports whether err is a context's error and no sentinel: the call
// surely changed nothing.
func ofContext(err error) bool {
	return is(err, context.Canceled) || is(err, context.DeadlineExceeded)
}

// answers fails unless err is want, and no other sentinel.
func (p *probe) answers(err, want error, format string, args ...any) {
	p.Helper()
	if !is(err, want) {
		p.broken("%s answered (%v), want (%v)", fmt.Sprintf(format, args...), err, want)
	}
}
