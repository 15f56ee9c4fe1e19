// Package retry repeats changes of records. Every change is a compare-and-set: it reads a
// record, decides, and writes under the condition that the record has not changed since.
// The package does not know what is changed; it decides what follows from each way in which
// such a write can end, once for all changes:
//
//   - The write lost a race against another write, or against a purge of the record. It has
//     surely changed nothing, so the change is decided again from what is in the store now.
//     This repeats until the caller's time is up, with a random pause that grows, so that of
//     many callers that change one record each gets its turn. When the time is up, the caller
//     is told that others were in its way (ErrContended).
//   - The outcome of the write is unknown. It may have been applied, so it is written again
//     until the store confirms it. Every later try is told so, because the record that it
//     finds may be the one that it wrote itself. If the change then ends without a
//     confirmation, its outcome counts as unknown.
//   - Any other error ends the change.
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
	// Within bounds the time of a change whose caller has set no deadline.
	Within = 10 * time.Second
	// unknownMax bounds how often a change is written again because its outcome is unknown.
	unknownMax = 32
	// There is no pause after the first atOnce tries, because a race between two callers
	// is over by then. Later pauses begin with pauseFirst and grow up to pauseMax.
	atOnce     = 2
	pauseFirst = time.Millisecond
	pauseMax   = 64 * time.Millisecond
)

// tryAgain is the error of a try after which Do makes another one.
type tryAgain struct{ err error }

func (e *tryAgain) Error() string { return e.err.Error() }

func (e *tryAgain) Unwrap() error { return e.err }

// Again wraps the error of a try after which Do makes another try. err says why: a race was
// lost, or the outcome is unknown.
func Again(err error) error { return &tryAgain{err} }

// Raced is Again for the error of a write that lost a race: the record has changed, or is
// gone. Any other error it returns as it is. The next try has to read the record first, and
// to end with an error of its own if the record is gone.
func Raced(err error) error {
	if errors.Is(err, errs.ErrConflict) || errors.Is(err, errs.ErrNotFound) {
		return Again(err)
	}
	return err
}

// Do calls try until try returns nil, or an error that Again did not make. unsure tells try
// that an earlier try may have been applied.
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

// Jitter returns a random duration from zero up to, but not including, d; zero if d is not
// positive.
func Jitter(d time.Duration) time.Duration {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return time.Duration(binary.LittleEndian.Uint64(b[:]) % uint64(max(1, d)))
}
