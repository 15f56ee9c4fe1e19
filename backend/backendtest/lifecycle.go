package backendtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/backend"
)

func contextChecks() []check {
	return []check{
		{4, "a context that is done", nil, checkDoneContext},
		{4, "a Put that is cancelled under way", nil, checkCancelledPut},
		{4, "reads that are cancelled under way", nil, checkCancelledReads},
		{4, "a Watch that is cancelled", []Capability{Watcher}, checkCancelledWatch},
	}
}

// calls are all the methods of the store but Close, each in a call that would
// succeed: rec is there, and fresh is not.
func (p *probe) calls(rec, fresh backend.Record) map[string]func(ctx context.Context) error {
	next := rec
	next.Body = []byte("overwritten")
	calls := map[string]func(ctx context.Context) error{
		"Get":          func(ctx context.Context) error { _, err := p.store.Get(ctx, rec.ID); return err },
		"Put IfAbsent": func(ctx context.Context) error { _, err := p.store.Put(ctx, fresh, backend.IfAbsent()); return err },
		"Put IfVersion": func(ctx context.Context) error {
			_, err := p.store.Put(ctx, next, backend.IfVersion(rec.Version))
			return err
		},
		"Delete": func(ctx context.Context) error { return p.store.Delete(ctx, rec.ID, rec.Version) },
	}
	if c, ok := optional[backend.Counter](p); ok {
		calls["Count"] = func(ctx context.Context) error { _, err := c.Count(ctx, backend.Query{Kind: 1}, 1); return err }
	}
	if l, ok := optional[backend.Lister](p); ok {
		calls["List"] = func(ctx context.Context) error { _, err := l.List(ctx, backend.Query{Kind: 1}); return err }
	}
	if u, ok := optional[backend.UsageRecorder](p); ok {
		calls["AddUsage"] = func(ctx context.Context) error {
			return u.AddUsage(ctx, []backend.Usage{{ID: rec.ID, N: 1, Last: born}, {ID: fresh.ID, N: 1, Last: born}})
		}
		calls["Usage"] = func(ctx context.Context) error { _, err := u.Usage(ctx, []backend.ID{rec.ID}); return err }
	}
	if g, ok := optional[backend.Purger](p); ok {
		calls["Purge"] = func(ctx context.Context) error { _, err := g.Purge(ctx, time.UnixMilli(born), 10); return err }
	}
	if m, ok := optional[backend.Maintainer](p); ok {
		calls["Maintain"] = m.Maintain
	}
	if w, ok := optional[backend.Watcher](p); ok {
		calls["Watch"] = func(ctx context.Context) error {
			return w.Watch(ctx, nil, func(backend.Batch) error { return errStop })
		}
	}
	return calls
}

var errStop = errors.New("backendtest: the consumer has seen enough")

func checkDoneContext(p *probe) {
	rec := sample(1)
	rec.PurgeAt = born // due: a Purge would remove it
	rec = p.create(rec)
	fresh := sample(2)
	cancelled, cancel := context.WithCancel(p.ctx)
	cancel()
	late, stop := context.WithDeadline(p.ctx, time.Now().Add(-time.Hour))
	defer stop()
	for name, call := range p.calls(rec, fresh) {
		var errCancelled, errLate error
		p.within(name+" with a context that is done", func() {
			errCancelled, errLate = call(cancelled), call(late)
		})
		p.answers(errCancelled, context.Canceled, "%s with a cancelled context", name)
		p.answers(errLate, context.DeadlineExceeded, "%s past its deadline", name)
	}
	p.holds(rec)
	p.lacks(fresh.ID)
	if u, ok := optional[backend.UsageRecorder](p); ok {
		got, err := u.Usage(p.ctx, []backend.ID{rec.ID, fresh.ID})
		if err != nil || got[0].N != 0 || got[1].N != 0 {
			p.broken("AddUsage with a context that is done added: usage is %v (%v)", got, err)
		}
	}
}

// cutter cancels calls at about the moment at which they end: it moves to where they do.
type cutter struct {
	probe          *probe
	n, early, late int           // calls, and those that were cancelled before and after their end
	after          time.Duration // how long after its beginning the next one is cancelled
}

// more reports whether there is something to learn from another call. Some of each kind
// are enough: to some stores, each call that is cut off costs a connection.
func (c *cutter) more() bool { return c.n < 300 && min(c.early, c.late) < 20 }

// call makes one call, which reports whether it was answered before it was cancelled.
func (c *cutter) call(what string, do func(ctx context.Context) (answered bool)) {
	ctx, cancel := context.WithCancel(c.probe.ctx)
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for start := time.Now(); time.Since(start) < c.after; {
			runtime.Gosched() // a timer is too coarse
		}
		cancel()
	})
	var answered bool
	c.probe.within(what, func() { answered = do(ctx) })
	cutting.Wait()
	step := c.after / time.Duration(2+c.n%4)
	c.n++
	if answered {
		c.late++
		c.after -= step
	} else {
		c.early++
		c.after += step + time.Microsecond
	}
}

// checkCancelledPut ends contexts at all moments of a Put, while others write, and
// compares what the caller was told with what happened.
func checkCancelledPut(p *probe) {
	stop := p.load()
	defer stop()
	for c := (&cutter{probe: p}); c.more(); {
		rec := sample(c.n)
		var v uint64
		var err error
		c.call("a Put whose context ends", func(ctx context.Context) bool {
			v, err = p.store.Put(ctx, rec, backend.IfAbsent())
			return err == nil
		})
		got, missing := p.store.Get(p.ctx, rec.ID)
		switch {
		case is(err, nil) && missing == nil && got.Version == v && same(got, rec):
		case is(err, backend.ErrIndeterminate) && errors.Is(err, context.Canceled):
		case is(err, context.Canceled) && is(missing, backend.ErrNotFound):
		default:
			p.broken("a Put whose context ended answered (%v), and Get after it (%v)", err, missing)
		}
	}
}

// load writes in the background until stop is called, so that calls have to
// wait for each other.
func (p *probe) load() (stop func()) {
	var done atomic.Bool
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; !done.Load(); i++ {
				rec := sample(1_000_000 + w*100_000 + i%10_000)
				v, err := p.store.Put(p.ctx, rec, backend.IfAbsent())
				if err == nil {
					_ = p.store.Delete(p.ctx, rec.ID, v)
				}
			}
		})
	}
	return func() {
		done.Store(true)
		wg.Wait()
	}
}

// checkCancelledReads does the same with a Get and a List after it.
func checkCancelledReads(p *probe) {
	rec := p.create(sample(1))
	stop := p.load()
	defer stop()
	for c := (&cutter{probe: p}); c.more(); {
		var got backend.Record
		var err, listErr error
		c.call("a read whose context ends", func(ctx context.Context) bool {
			got, err = p.store.Get(ctx, rec.ID)
			if l, ok := optional[backend.Lister](p); ok {
				_, listErr = l.List(ctx, backend.Query{Kind: 1, Owner: "owner", Limit: 5})
			}
			return err == nil && listErr == nil
		})
		if err == nil && !same(got, rec) || err != nil && !is(err, context.Canceled) {
			p.broken("a Get whose context ended answered (%s, %v)", show(got), err)
		}
		if listErr != nil && !is(listErr, context.Canceled) {
			p.broken("a List whose context ended answered (%v)", listErr)
		}
	}
}

func checkCancelledWatch(p *probe) {
	w := p.watch(nil)
	p.begun(w)
	w.cancel()
	if !p.waited(w.done) {
		p.broken("a Watch goes on %v after its context was cancelled", p.opts.Patience)
	}
	p.answers(w.err, context.Canceled, "a Watch whose context was cancelled")

	ctx, cancel := context.WithTimeout(p.ctx, 30*time.Millisecond)
	defer cancel()
	var err error
	p.within("a Watch past its deadline", func() {
		err = capability[backend.Watcher](p).Watch(ctx, nil, func(backend.Batch) error { return nil })
	})
	p.answers(err, context.DeadlineExceeded, "a Watch past its deadline")
}

func closeChecks() []check {
	return []check{
		{11, "Close may be called again", nil, checkCloseTwice},
		{11, "every call after Close", nil, checkUseAfterClose},
		{11, "Close ends every Watch", []Capability{Watcher}, checkCloseEndsWatch},
		{11, "Close amid calls", nil, checkCloseAmidCalls},
		{11, "Close leaves no goroutine", nil, checkGoroutines},
	}
}

// close closes the store, which must succeed.
func (p *probe) close() {
	p.Helper()
	var err error
	p.within("Close", func() { err = p.store.Close() })
	p.answers(err, nil, "Close")
}

func checkCloseTwice(p *probe) {
	p.create(sample(1))
	p.close()
	p.close()
	errs := make([]error, 8)
	p.within("concurrent calls of Close", func() {
		_ = parallel(len(errs), len(errs), func(i int) error {
			errs[i] = p.store.Close()
			return nil
		})
	})
	for _, err := range errs {
		p.answers(err, nil, "Close of a closed store")
	}
	// The first ones at the same time, too.
	other, discard := p.another()
	defer discard()
	p.within("concurrent calls of Close", func() {
		_ = parallel(len(errs), len(errs), func(i int) error {
			errs[i] = other.Close()
			return nil
		})
	})
	for _, err := range errs {
		p.answers(err, nil, "one of several concurrent calls of Close")
	}
}

func checkUseAfterClose(p *probe) {
	rec := sample(1)
	rec.PurgeAt = born
	calls := p.calls(p.create(rec), sample(2))
	p.close()
	for range 2 {
		for name, call := range calls {
			var err error
			p.within(name+" after Close", func() { err = call(p.ctx) })
			p.answers(err, backend.ErrClosed, "%s after Close", name)
		}
	}
}

func checkCloseEndsWatch(p *probe) {
	var watches []*watch
	for range 3 {
		w := p.watch(nil)
		defer w.stop()
		p.begun(w)
		watches = append(watches, w)
	}
	p.close()
	for _, w := range watches {
		if !p.waited(w.done) {
			p.broken("a Watch goes on %v after Close", p.opts.Patience)
		}
		p.answers(w.err, backend.ErrClosed, "a Watch whose store was closed")
	}
}

// checkCloseAmidCalls closes the store under its callers: each of them gets its
// answer, or ErrClosed.
func checkCloseAmidCalls(p *probe) {
	var wg sync.WaitGroup
	var n atomic.Int64
	errs := make([]error, 8)
	for w := range errs {
		wg.Go(func() {
			for i := 0; errs[w] == nil; i++ {
				rec := sample(w*100_000 + i)
				if _, errs[w] = p.store.Put(p.ctx, rec, backend.IfAbsent()); errs[w] != nil {
					return
				}
				_, errs[w] = p.store.Get(p.ctx, rec.ID)
				n.Add(1)
			}
		})
	}
	p.eventually(func() bool { return n.Load() > 50 })
	p.close()
	p.within("the calls that were under way at Close", wg.Wait)
	for _, err := range errs {
		p.answers(err, backend.ErrClosed, "a call that met Close")
	}
}

func checkGoroutines(p *probe) {
	// What an engine starts once for the whole process is none of this store's:
	// p.store has started it by now.
	p.create(sample(1))
	p.close()
	before := make(map[string]bool)
	for _, g := range goroutines() {
		before[name(g)] = true
	}
	for round := range 3 {
		store, discard := p.another()
		q := *p
		q.store = store
		rec := q.create(sample(round))
		q.holds(rec)
		if _, ok := optional[backend.Watcher](&q); ok {
			w := q.watch(nil)
			q.begun(w)
			w.stop()
		}
		for _, call := range q.calls(rec, sample(100)) {
			_ = call(q.ctx)
		}
		discard()
	}
	var left []string
	if !p.eventually(func() bool {
		left = left[:0]
		for _, g := range goroutines() {
			if !before[name(g)] && !strings.Contains(g, "testing.tRunner") && !strings.Contains(g, "testing.(*T).Run") {
				left = append(left, g)
			}
		}
		return len(left) == 0
	}) {
		p.broken("%d goroutines are left after Close, one of them %s", len(left), flat(left[0]))
	}
}

// goroutines are the stacks of all but the one that asks.
func goroutines() []string {
	buf := make([]byte, 1<<16)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			return strings.Split(string(buf[:n]), "\n\n")[1:]
		}
		buf = make([]byte, 2*len(buf))
	}
}

// name is "goroutine 17", without its state.
func name(stack string) string {
	name, _, _ := strings.Cut(stack, " [")
	return name
}

// flat is a stack on one line, cut.
func flat(stack string) string {
	var calls []string
	for line := range strings.Lines(stack) {
		if !strings.HasPrefix(line, "\t") {
			calls = append(calls, strings.TrimSpace(line))
		}
	}
	return fmt.Sprintf("%.500s", strings.Join(calls, " < "))
}
