package keystate

import (
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/retry"
)

// MaxWaits is how often a call finds another call at the same work before it takes the work
// over. By then half a second to a second has passed.
const MaxWaits = 24

// Waits counts how often a call has found another call at the same work. The zero value has
// counted none. It must not be used by several goroutines at once.
type Waits int

// Wait returns the error with which a try ends because another call is at the same work;
// after that error retry.Do makes another try. Wait returns nil once the work is to be
// taken over, and then the count begins again.
func (w *Waits) Wait() error {
	if *w++; *w <= MaxWaits {
		return retry.Again(errs.ErrTakenOver)
	}
	*w = 0
	return nil
}
