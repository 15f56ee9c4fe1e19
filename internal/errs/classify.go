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
//	ErrIndeterminate  ErrIndeterminate        -                        the record may have been written
//	ErrCorrupt        ErrCorrupt              ErrCorrupt               the record cannot be used, until somebody mends it
//	any other         as it is                as it is                 the store could not be asked
//	decided by        OfStore                 OfCheck
//
// An error that is a rejection (ErrRejected) is the result of a verification. Every other
// error means that the credential could not be checked (Unchecked). Some of those errors
// are outages (IsOutage): the next try may succeed, so meanwhile the cache may give an old
// answer, and a feed that was lost is followed again.
//
// If nobody knows whether an earlier try of a change was applied, every later error of that
// change becomes ErrIndeterminate (Settle). If usage counts may have been added, they are
// dropped (MayBeAdded). If a party other than the store fails, such as a source of token
// keys or the application, its error is never a rejection, even if it wraps one (Unclassified).
//
// What is wrong with the text of a credential is decided by OfText and OfToken.

// IsOutage reports whether err means that the store could not be asked. It is false for an
// answer of the store that is a rejection or cannot be used, and for a failure of this
// process itself. err is not nil.
func IsOutage(err error) bool {
	for _, known := range []error{ErrRejected, ErrCorrupt, ErrPepper, ErrBusy, ErrClosed, ErrSealKey, ErrPanicked, backend.ErrClosed} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
}

// ErrReadBack is why retry.Do makes another try right after a write: the next try reads
// what was just written, because what counts is the record as it stands in the store.
var ErrReadBack = errors.New("fob: read back what was written")

// ErrTakenOver is why a call makes another try: another call does the same work at the same
// time.
var ErrTakenOver = fmt.Errorf("%w: another call has taken it over", ErrConflict)

// OfStore wraps an error of the store. doing says what was being done. A sentinel error of
// package backend becomes the one of this package that has its meaning, and the store's own
// error can still be found with errors.Is. err is not nil.
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

// OnlyCorrupt returns err if it is ErrCorrupt, which lasts until somebody mends the record,
// and else nil.
func OnlyCorrupt(err error) error {
	if errors.Is(err, ErrCorrupt) {
		return err
	}
	return nil
}

// Settle returns the error of a change that has ended with err. unsure says that an earlier
// try of the change may have been applied: then any error becomes ErrIndeterminate, because
// the outcome of the change is unknown. nil stays nil.
func Settle(unsure bool, err error) error {
	if !unsure || err == nil || errors.Is(err, ErrIndeterminate) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrIndeterminate, err)
}

// Unclassified returns err, or its text alone if err wraps a rejection, or says how a change
// of a record has ended. It is for errors of others whom a call asks, such as a source of
// keys: their failure must not make a credential look bad, nor be taken for the outcome of
// the call's own write.
func Unclassified(err error) error {
	for _, known := range []error{ErrRejected, ErrNotFound, ErrConflict, ErrIndeterminate} {
		if errors.Is(err, known) {
			return errors.New(err.Error())
		}
	}
	return err
}

// OfCheck is OfStore for an error of the store during a verification: a credential that has
// no record is unknown, and that is a rejection.
func OfCheck(err error) error {
	if errors.Is(err, backend.ErrNotFound) {
		return ErrUnknown
	}
	return OfStore("fob: verify", err)
}

// Unchecked returns err if it means that the credential could not be checked. It returns
// nil if the verification has a result: for no error, and for a rejection.
func Unchecked(err error) error {
	if errors.Is(err, ErrRejected) {
		return nil
	}
	return err
}

// MayBeAdded reports whether the usage may have been added although AddUsage returned err.
// By rule R4 of package backend the error of a context alone means that nothing was added.
// But a store whose author did not think of that rule returns the same error after it has
// sent the usage, so the error of a context counts as unsure here.
func MayBeAdded(err error) bool {
	return errors.Is(err, backend.ErrIndeterminate) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// OfText returns the rejection for a problem with the text of a key or of a refresh secret.
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

// OfToken returns the error of a token that package paseto could not parse or open. If the
// token's key cannot be used, or this process cannot compute the cryptography, the error is
// no rejection of the token.
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
