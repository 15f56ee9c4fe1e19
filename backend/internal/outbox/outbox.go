// Package outbox holds what a Watch has still to deliver. The goroutine that follows the
// engine puts changes and proofs in, and never waits; the goroutine of the caller takes
// them out as fast as the caller is.
package outbox

import (
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
)

// Box is the outbox of one Watch. Make one with New. It is safe for concurrent use.
type Box struct {
	most  int
	ready chan struct{}

	mu      sync.Mutex // guards what is below
	changes map[backend.ID]uint64
	next    backend.Batch // without its changes
}

// New makes an empty Box, in which at most most changed records wait for a slow caller, the
// latest version of each. If there are more, the caller gets a Reset in their place.
func New(most int) *Box {
	return &Box{most: most, ready: make(chan struct{}, 1), changes: make(map[backend.ID]uint64)}
}

// Ready has a value when there may be something to take. Nothing is taken before the first
// proof.
func (b *Box) Ready() <-chan struct{} { return b.ready }

// Add adds changes, up to those that the token stands for; a nil token says that they are
// told early, and that the feed is still where it was.
func (b *Box) Add(changes []backend.Change, token backend.Token) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(changes, token)
	b.ring()
}

// Prove is Add, and notes that every change before asOf was added. A zero asOf proves no
// more than what was proved before.
func (b *Box) Prove(changes []backend.Change, token backend.Token, asOf time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(changes, token)
	if !asOf.IsZero() {
		b.next.AsOf = asOf
	}
	b.ring()
}

// Lose notes that history was lost before what is added from now on.
func (b *Box) Lose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lose()
}

func (b *Box) lose() {
	clear(b.changes)
	b.next.Reset = true
}

func (b *Box) add(changes []backend.Change, token backend.Token) {
	for _, c := range changes {
		b.changes[c.ID] = max(b.changes[c.ID], c.Version)
	}
	if len(b.changes) > b.most {
		b.lose()
	}
	if token != nil {
		b.next.Token = token
	}
}

func (b *Box) ring() {
	if b.next.AsOf.IsZero() {
		return
	}
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// Take takes everything out.
func (b *Box) Take() backend.Batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.next
	if len(b.changes) > 0 {
		out.Changes = make([]backend.Change, 0, len(b.changes))
		for id, v := range b.changes {
			out.Changes = append(out.Changes, backend.Change{ID: id, Version: v})
		}
		clear(b.changes)
	}
	b.next.Reset = false
	return out
}
