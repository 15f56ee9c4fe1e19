package errs

import (
	"context"
	"errors"
	"fmt"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/paseto"
)

// What an error of a store means is decided here, and nowhere else:
//
//	of the store      in a call of a Manager  in a verification        what it says
//	ErrNotFound       ErrNotFound             ErrUnknown, a rejection  there is no such record
//	ErrConflict       ErrConflict             -                        the record has changed, surely nothing was written
//	ErrIndeterminate  ErrIndeterminate        -                        it may have been written
//	ErrCorrupt        ErrCorrupt              ErrCorrupt               the record cannot be used, until somebody mends it
//	any other         as it is                as it is                 the store could not be asked
//	decided by        OfStore                 OfCheck
//
// All but a rejection (ErrRejected) mean that a credential could not be checked
// (Unchecked). Of these, an outage (IsOutage) is what may be over at the next try: an old
// answer may stand in for it, a feed begins again. After a try of which nobody knows whether
// it was applied every later error is ErrIndeterminate (Settle), and the counts of a usage
// that may have been added are dropped (MayBeAdded). What fails for a reason of another
// party's own, a source of token keys say, is no rejection whatever it says (Unclassified).
//
// What is wrong with a text is decided by OfText and OfToken.

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

// ErrTakenOver is why a call waits: another one is at the same work.
var ErrTakenOver = fmt.Errorf("%w: another call has taken it over", ErrConflict)

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

// Unchecked is the error of a verification that could not be made; nil if it was made,
// whatever it has found.
func Unchecked(err error) error {
	if errors.Is(err, ErrRejected) {
		return nil
	}
	return err
}

// MayBeAdded reports whether an error of AddUsage leaves it open whether it was added. The
// error of a context alone should mean that nothing was (rule R4 of package backend), but
// it is also what a store says that never thought of this.
func MayBeAdded(err error) bool {
	return errors.Is(err, backend.ErrIndeterminate) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// OfText is what is wrong with the text of a key or of a refresh secret.
func OfText(p keytext.Problem) error {
	switch p {
	case keytext.Length:
		return ErrKeyLength
	case keytext.Prefix:
		return ErrKeyPrefix
	case keytext.Version:
		return ErrKeyVersion
	case keytext.Alphabet:
		return ErrKeyAlphabet
	case keytext.Checksum:
		return ErrKeyChecksum
	default:
		return ErrMalformed
	}
}

// OfToken is why a token could not be parsed or opened. A key that cannot be used is no
// rejection of the token.
func OfToken(err error) error {
	switch {
	case errors.Is(err, paseto.ErrSize):
		return ErrTokenLength
	case errors.Is(err, paseto.ErrProtocol):
		return ErrTokenProtocol
	case errors.Is(err, paseto.ErrSeal):
		return ErrTokenSeal
	case errors.Is(err, paseto.ErrFormat):
		return ErrTokenFormat
	}
	return fmt.Errorf("fob: verify: %w", err)
}
