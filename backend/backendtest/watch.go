package backendtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
)

// watch is a Watch in a goroutine of its own, and what it has delivered.
type watch struct {
	cancel   context.CancelFunc
	patience time.Duration
	done     chan struct{} // closed when Watch has returned
	err      error         // what it returned; read it after done

	mu      sync.Mutex // guards what is below
	latest  map[backend.ID]uint64
	batches int
	resets  int
	last    backend.Token
	wrong   string // the first Batch that was wrong, or ""
}

// watch follows the feed from a token; stop it.
func (p *probe) watch(from backend.Token) *watch { return p.watchWith(from, nil) }

// watchWith calls fn, if it is set, for each Batch before it is noted.
func (p *probe) watchWith(from backend.Token, fn func(backend.Batch) error) *watch {
	ctx, cancel := context.WithCancel(p.ctx)
	w := &watch{cancel: cancel, patience: p.opts.Patience, done: make(chan struct{}), latest: make(map[backend.ID]uint64)}
	feed := capability[backend.Watcher](p)
	go func() {
		defer close(w.done)
		w.err = feed.Watch(ctx, from, func(b backend.Batch) error {
			noted := backend.Batch{Changes: slices.Clone(b.Changes), Token: slices.Clone(b.Token), Reset: b.Reset}
			if fn != nil {
				if err := fn(b); err != nil {
					return err
				}
			}
			w.note(noted)
			return nil
		})
	}()
	return w
}

func (w *watch) note(b backend.Batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batches++
	if b.Reset {
		w.resets++
	}
	if len(b.Token) == 0 {
		w.wrong = "a Batch has no Token"
	}
	for _, c := range b.Changes {
		w.latest[c.ID] = max(w.latest[c.ID], c.Version)
	}
	w.last = b.Token
}

// stop ends the Watch and waits for it, but not for ever: one that does not end
// has a check of its own.
func (w *watch) stop() {
	w.cancel()
	t := time.NewTimer(w.patience)
	defer t.Stop()
	select {
	case <-w.done:
	case <-t.C:
	}
}

// token is that of the last Batch.
func (w *watch) token() backend.Token {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.last)
}

func (w *watch) count() (batches, resets int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.batches, w.resets
}

func (w *watch) has(id backend.ID, version uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest[id] >= version
}

// ended is what Watch returned, if it has returned.
func (w *watch) ended() (err error, ended bool) {
	select {
	case <-w.done:
		return w.err, true
	default:
		return nil, false
	}
}

// begun waits for the first Batch: what is written afterwards is delivered.
func (p *probe) begun(w *watch) {
	p.Helper()
	p.await(w, "the first Batch", func() bool { n, _ := w.count(); return n > 0 })
}

// sees waits until the watch has been told of this version of the record, or a
// later one.
func (p *probe) sees(w *watch, id backend.ID, version uint64) {
	p.Helper()
	p.await(w, fmt.Sprintf("version %d of record %x, or a later one,", version, id), func() bool { return w.has(id, version) })
	w.mu.Lock()
	wrong := w.wrong
	w.mu.Unlock()
	if wrong != "" {
		p.broken("%s", wrong)
	}
}

// await waits for something in a watch that goes on.
func (p *probe) await(w *watch, what string, there func() bool) {
	p.Helper()
	if p.eventually(func() bool {
		_, over := w.ended()
		return over || there()
	}) && there() {
		return
	}
	batches, resets := w.count()
	if err, over := w.ended(); over {
		p.broken("Watch returned (%v) before %s had been delivered, after %d batches", err, what, batches)
	}
	p.broken("%s was not delivered within %v, in %d batches with %d Resets", what, p.opts.Patience, batches, resets)
}

// follow runs one Watch here, until enough returns true or patience ends; then
// the answer is false.
func (p *probe) follow(from backend.Token, enough func(backend.Batch) bool) bool {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, p.opts.Patience)
	defer cancel()
	err := capability[backend.Watcher](p).Watch(ctx, from, func(b backend.Batch) error {
		if enough(b) {
			return errStop
		}
		return nil
	})
	if is(err, context.DeadlineExceeded) {
		return false
	}
	if !is(err, errStop) {
		p.broken("Watch returned (%v) where fn had returned another error, or none", err)
	}
	return true
}

// after is a time that the suite waits where nothing may come.
const after = 5 * backend.HeartbeatEvery

// pause lets a feed run for a while.
func pause() { time.Sleep(after) }
