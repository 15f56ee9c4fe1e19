// Package outbox holds what a Watch has still to deliver. The goroutine that follows the
// engine puts changes and proofs in, and never waits; the goroutine of the caller takes
// them out as fast as the caller is.
package outbox

import (
	"slices"
	"sync"
	"time"

	"github.com/fobkit/fob/backend"
)

// Box is the outbox of one Watch. Make one with New. It is safe for concurrent use, by one
// goroutine that takes and any that put in.
type Box struct {
	most, atOnce int
	ready        chan struct{}

	mu      sync.Mutex // guards what is below
	changes map[backend.ID]uint64
	next    backend.Batch // without its changes
	fresh   bool          // there is something new in the two
	// What is taken in parts: the changes that are left of it, and what they end with.
	// Until then the feed is where it was.
	left []backend.Change
	end  backend.Batch
	was  backend.Batch
}

// New makes an empty Box for a Watch that begins at a token. At most most changed records
// wait in it for a slow caller, the latest version of each: if there are more, the caller
// gets a Reset in their place. One Batch has at most atOnce changes.
func New(from backend.Token, most, atOnce int) *Box {
	return &Box{most: most, atOnce: atOnce, ready: make(chan struct{}, 1), changes: make(map[backend.ID]uint64), was: backend.Batch{Token: from}}
}

// Ready has a value when there may be something to take. Nothing is taken before the first
// proof.
func (b *Box) Ready() <-chan struct{} { return b.ready }

// Add adds changes that are told early: the feed is still where it was, and proves no more.
func (b *Box) Add(changes []backend.Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(changes)
	b.ring()
}

// Prove adds changes, notes that every change before asOf was added, and that the feed is
// at token. A zero asOf proves no more than what was proved before.
func (b *Box) Prove(changes []backend.Change, token backend.Token, asOf time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prove(token, asOf)
	b.add(changes)
	b.ring()
}

// Reset is a Prove for a feed that begins here, because its history was lost: what was
// added and not taken is of no use any more.
func (b *Box) Reset(token backend.Token, asOf time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prove(token, asOf)
	b.lose()
	b.ring()
}

func (b *Box) prove(token backend.Token, asOf time.Time) {
	b.next.Token = token
	if !asOf.IsZero() {
		b.next.AsOf = asOf
	}
}

func (b *Box) add(changes []backend.Change) {
	for _, c := range changes {
		b.changes[c.ID] = max(b.changes[c.ID], c.Version)
	}
	if len(b.changes)+len(b.left) > b.most {
		b.lose()
	}
}

func (b *Box) lose() {
	clear(b.changes)
	b.left, b.next.Reset = nil, true
	b.was.Token = b.next.Token // it stands for what was dropped: the Reset tells of that
}

func (b *Box) ring() {
	b.fresh = true
	b.tell()
}

func (b *Box) tell() {
	if b.next.AsOf.IsZero() {
		return
	}
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// Take takes out one Batch. The place and the proof of all that waited come with the last
// of its changes; if some are left, Ready has a value again.
func (b *Box) Take() backend.Batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.left) == 0 {
		for id, v := range b.changes {
			b.left = append(b.left, backend.Change{ID: id, Version: v})
		}
		clear(b.changes)
		b.end, b.fresh = b.next, false
	}
	n := min(len(b.left), b.atOnce)
	out := b.was
	out.Changes, b.left = slices.Clip(b.left[:n]), b.left[n:]
	if len(b.left) == 0 {
		b.was = backend.Batch{Token: b.end.Token, AsOf: b.end.AsOf}
		out.Token, out.AsOf, b.left = b.end.Token, b.end.AsOf, nil
	}
	if len(b.left) > 0 || b.fresh {
		b.tell() // what came between two parts was told of by a value that is gone
	}
	out.Reset, b.next.Reset = b.next.Reset, false
	return out
}
