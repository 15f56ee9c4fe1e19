// Package retry repeats changes of records. Every change is a compare-and-set: it reads,
// decides, and writes under the condition that nothing came between. What follows from
// each way in which such a write can end is decided here, once for all of them:
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
package retry

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/internal/errs"
)

const (
	// Within bounds a change whose caller has set no end.
	Within = 10 * time.Second
	// unknownMax bounds how often a change is written again because the store could
	// not say what became of it.
	unknownMax = 32
	// The pause before another try: none for the first few, for a race between two is
	// over by then, and up to pauseMax later.
	atOnce     = 2
	pauseFirst = time.Millisecond
	pauseMax   = 64 * time.Millisecond
)

// tryAgain is the error of a try after which Do makes another one.
type tryAgain struct{ err error }

func (e *tryAgain) Error() string { return e.err.Error() }

func (e *tryAgain) Unwrap() error { return e.err }

// Again makes Do try once more. err says why: that a race was lost, or that the
// outcome is unknown.
func Again(err error) error { return &tryAgain{err} }

// Raced is Again for the error of a write that lost a race (the record has changed, or
// has gone), and err for any other. A try that reads the record first finds what is so now,
// and says so where nothing is there.
func Raced(err error) error {
	if errors.Is(err, errs.ErrConflict) || errors.Is(err, errs.ErrNotFound) {
		return Again(err)
	}
	return err
}

// Do calls try until it returns nil or an error that is not Again's. unsure tells
// try that an earlier one may have been applied.
func Do(ctx context.Context, try func(unsure bool) error) error {
	limited, cancel := ctx, context.CancelFunc(func() {})
	if _, ends := ctx.Deadline(); !ends {
		limited, cancel = context.WithTimeout(ctx, Within)
	}
	defer cancel()
	unsure, unknown, pause := false, 0, pauseFirst
	for n := 0; ; n++ {
		err := try(unsure)
		var next *tryAgain
		if !errors.As(err, &next) {
			return errs.Settle(unsure, err)
		}
		if errors.Is(err, errs.ErrIndeterminate) {
			unsure = true
			if unknown++; unknown >= unknownMax {
				return next.err
			}
		}
		if n >= atOnce {
			Pause(limited, Jitter(pause))
			pause = min(2*pause, pauseMax)
		}
		switch {
		case limited.Err() == nil:
		case unsure:
			return errs.Settle(true, next.err)
		default:
			return fmt.Errorf("%w (%w)", errs.ErrContended, limited.Err())
		}
	}
}

// Pause waits for d, or until ctx ends.
func Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// Jitter is a random part of d.
func Jitter(d time.Duration) time.Duration {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return time.Duration(binary.LittleEndian.Uint64(b[:]) % uint64(max(1, d)))
}
