package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/internal/errs"
)

// Every change here is a compare-and-set: it reads, decides, and writes under the
// condition that nothing came between. What follows from each way in which such a
// write can end is decided in retry, once for all of them:
//
//   - It lost a race, to another write or to a purge of the record. It has surely
//     changed nothing, so it is decided anew from what is there now. That goes on for as
//     long as the caller lasts, with a random pause that grows, so that of many who change
//     one record each gets its turn. Only when the time is up the caller is told that
//     others were in its way (ErrContended).
//   - Its outcome is unknown. It may have been applied, so it is written again until
//     the store confirms it; a try after that is told so, for what it finds may be its
//     own. However the change ends from then on, its outcome counts as unknown unless
//     it was confirmed.
//   - Anything else ends the change.
const (
	// retryFor bounds a change whose caller has set no end.
	retryFor = 10 * time.Second
	// retryUnknown bounds how often a change is written again because the store could
	// not say what became of it.
	retryUnknown = 32
	// The pause before another try: none for the first few, for a race between two is
	// over by then, and up to retryPauseMax later.
	retryAtOnce   = 2
	retryPause    = time.Millisecond
	retryPauseMax = 64 * time.Millisecond
)

// tryAgain is the error of a try after which retry makes another one.
type tryAgain struct{ err error }

func (e *tryAgain) Error() string { return e.err.Error() }
func (e *tryAgain) Unwrap() error { return e.err }

// again makes retry try once more. err says why: that a race was lost, or that the
// outcome is unknown.
func again(err error) error { return &tryAgain{err} }

// raced is again for the error of a write that lost a race (the record has changed, or
// has gone), and err for any other. A try that reads the record first finds what is so now,
// and says so where nothing is there.
func raced(err error) error {
	if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
		return again(err)
	}
	return err
}

// retry calls try until it returns nil or an error that is not again's. unsure tells
// try that an earlier one may have been applied.
func retry(ctx context.Context, try func(unsure bool) error) error {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if _, ends := ctx.Deadline(); !ends {
		limited, cancel = context.WithTimeout(ctx, retryFor)
	}
	defer cancel()
	unsure, unknown, pause := false, 0, retryPause
	for n := 0; ; n++ {
		err := try(unsure)
		var next *tryAgain
		if !errors.As(err, &next) {
			return errs.Settle(unsure, err)
		}
		if errors.Is(err, ErrIndeterminate) {
			unsure = true
			if unknown++; unknown >= retryUnknown {
				return next.err
			}
		}
		if n >= retryAtOnce {
			pauseFor(limited, jitter(pause))
			pause = min(2*pause, retryPauseMax)
		}
		switch {
		case limited.Err() == nil:
		case unsure:
			return errs.Settle(true, next.err)
		default:
			return fmt.Errorf("%w (%w)", ErrContended, limited.Err())
		}
	}
}

// pauseFor waits for d, or until ctx ends.
func pauseFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
