package fleet

import (
	"context"
	"errors"
	"time"
)

// maxAsking is how many reads of the bounds are under way at a time. While one of them hangs,
// the others go on.
const maxAsking = 4

// patience is how long a read waits for its turn.
const patience = time.Second

// answer is what one read of the bounds has found, for all who asked before it began.
type answer struct {
	done chan struct{} // closed when the rest is known
	have Bounds
	err  error
}

var errNotRead = errors.New("fob: the fleet's bounds were not read")

// Bounds reads the fleet's bounds, as they are after the call began. Of many calls at the
// same time, as in a storm of revocations, those that wait for the next read share it. It
// fails with errs.ErrCorrupt if the record of the bounds cannot be read.
func (f *Fleet) Bounds(ctx context.Context) (Bounds, error) {
	f.turn.Lock()
	shared := f.next
	leads := shared == nil
	if leads {
		shared = &answer{done: make(chan struct{}), err: errNotRead}
		f.next = shared
	}
	f.turn.Unlock()
	if leads {
		f.ask(ctx, shared)
		return shared.have, shared.err
	}
	select {
	case <-shared.done:
		if shared.err == nil {
			return shared.have, nil
		}
	case <-ctx.Done():
	}
	have, _, err := f.read(ctx) // whoever asked for all may have failed by a context of its own
	return have, err
}

// ask reads the bounds for all who wait for a, as soon as it is its turn.
func (f *Fleet) ask(ctx context.Context, a *answer) {
	defer close(a.done)
	impatient := time.NewTimer(patience)
	defer impatient.Stop()
	select {
	case f.asking <- struct{}{}:
		defer func() { <-f.asking }()
	case <-impatient.C: // the others hang; perhaps this one does not
	case <-ctx.Done(): // the read says so
	}
	f.turn.Lock()
	f.next = nil // whoever asks from now on gets what is read later
	f.turn.Unlock()
	a.have, _, a.err = f.read(ctx)
}
