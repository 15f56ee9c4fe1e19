package health

import "sync"

// Events counts the events that nobody was told of. The zero value has lost none. It is safe
// for concurrent use.
type Events struct {
	mu   sync.Mutex // guards all
	lost uint64
	err  error
}

// Lost counts an event that was lost because of err.
func (e *Events) Lost(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost++
	e.err = err
}

// State returns how many events were lost, and why the last of them was.
func (e *Events) State() (lost uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost, e.err
}
