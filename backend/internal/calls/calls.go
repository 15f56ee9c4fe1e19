// Package calls lets the calls of a store in until it is closed, and tells Close when
// those that are under way have ended.
package calls

import (
	"context"
	"fmt"
	"sync"

	"github.com/fobkit/fob/backend"
)

// Gate is where each call of a store begins and ends. Engine must be set before the
// first call and not changed later; apart from that the zero Gate is open and ready. It
// is safe for concurrent use, starts no goroutine, and must not be copied.
type Gate struct {
	// Engine begins the text of the errors: "badger", for example.
	Engine string

	mu     sync.RWMutex // held for reading by each call, and for writing by Close
	closed bool
}

// Enter begins a call. It fails with the context's error if ctx has ended, and with
// [backend.ErrClosed] from the moment that Close is called; it never waits. A call that
// was let in ends with Leave.
func (g *Gate) Enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return g.Ended(err)
	}
	// Only Close ever asks for the lock for writing. While it waits for a long call, a
	// backup to a slow disk for example, another call must not wait behind it beyond its
	// own deadline: it is refused at once.
	if !g.mu.TryRLock() {
		return backend.ErrClosed
	}
	if g.closed {
		g.mu.RUnlock()
		return backend.ErrClosed
	}
	return nil
}

// Leave ends a call that Enter has let in. Call it exactly once.
func (g *Gate) Leave() { g.mu.RUnlock() }

// Close lets no further call in and waits until those that are under way have left. It
// reports true to the first who calls it, and false to all others, who wait as well.
func (g *Gate) Close() (first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	first = !g.closed
	g.closed = true
	return first
}

// Ended is the error of a call whose context has ended with err, before anything was
// changed: Engine, and err for errors.Is.
func (g *Gate) Ended(err error) error { return fmt.Errorf("%s: %w", g.Engine, err) }
