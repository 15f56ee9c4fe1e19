package keystate

import (
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/retry"
)

// MaxWaits is how often a call finds that another one is at the same work, before it
// takes the work over: half a second to a second.
const MaxWaits = 24

// Waits counts how often a call has found another one at the same work. The zero value has
// found none. It must not be used by several goroutines at once.
type Waits int

// Wait is the error of a try after which retry.Do makes another one, because another call
// is at the same work. It is nil once the work is to be taken over; the count begins again
// then.
func (w *Waits) Wait() error {
	if *w++; *w <= MaxWaits {
		return retry.Again(errs.ErrTakenOver)
	}
	*w = 0
	return nil
}
