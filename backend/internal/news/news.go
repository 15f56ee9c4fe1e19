// Package news wakes whoever waits for something new, the Watches of a store above all, and
// says how long a Watch waits from one proof to the next.
package news

import "sync"

// Bell wakes all who wait for it. Make one with NewBell. It is safe for concurrent use
// and starts no goroutine.
type Bell struct {
	mu   sync.Mutex // guards next
	next chan struct{}
}

// NewBell makes a Bell that has not rung yet.
func NewBell() *Bell { return &Bell{next: make(chan struct{})} }

// Ring wakes everybody who has called Next since the last Ring. It waits for nobody.
func (b *Bell) Ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.next)
	b.next = make(chan struct{})
}

// Next returns a channel that the next Ring closes. Whoever calls it before looking for
// what is new misses nothing that comes between the look and the wait.
func (b *Bell) Next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next
}
