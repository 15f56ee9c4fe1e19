package errs

import (
	"errors"
	"fmt"

	"github.com/fobkit/fob/backend"
)

// IsOutage reports whether err means that the store could not be asked, rather
// than that it gave an answer which cannot be used.
func IsOutage(err error) bool {
	for _, known := range []error{ErrRejected, ErrCorrupt, ErrPepper, ErrBusy, ErrClosed, ErrSealKey, ErrPanicked, backend.ErrClosed} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
}

// ErrPanicked is wrapped by the error that a panic was turned into.
var ErrPanicked = errors.New("panicked")

// ErrReadBack is why something that was just written is read: it counts as it stands
// in the store.
var ErrReadBack = errors.New("fob: read back what was written")

// OfStore says what was being done and gives the store's sentinels their
// meaning here; the store's own error stays reachable.
func OfStore(doing string, err error) error {
	var ours error
	switch {
	case errors.Is(err, backend.ErrNotFound):
		ours = ErrNotFound
	case errors.Is(err, backend.ErrConflict):
		ours = ErrConflict
	case errors.Is(err, backend.ErrIndeterminate):
		ours = ErrIndeterminate
	case errors.Is(err, backend.ErrCorrupt):
		ours = ErrCorrupt
	default:
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w (%w)", doing, ours, err)
}

// Settle turns the error that ended a change into "outcome unknown" if an
// earlier try may have been applied.
func Settle(unsure bool, err error) error {
	if !unsure || err == nil || errors.Is(err, ErrIndeterminate) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrIndeterminate, err)
}

// Unclassified hides a rejection inside an error that is none: a source that
// fails must not make a credential look bad.
func Unclassified(err error) error {
	if errors.Is(err, ErrRejected) {
		return errors.New(err.Error())
	}
	return err
}

// OfCheck is an error of the store during a verification.
func OfCheck(err error) error {
	if errors.Is(err, backend.ErrNotFound) {
		return ErrUnknown
	}
	return OfStore("fob: verify", err)
}
