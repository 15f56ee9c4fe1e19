package errs

import (
	"context"
	"errors"

	"github.com/fobkit/fob/backend"
)

// The words for errors that are not made here.
const (
	wordCanceled    = "canceled"
	wordTimeout     = "timeout"
	wordUnsupported = "unsupported"
	wordClosed      = "closed"
	wordUnavailable = "unavailable" // for every error that is not known, because it is a store's
)

// Reason returns the word for an error, and "" for nil. Of several that err wraps it is
// that of the outermost, which is the one that says most: an unknown outcome, and not what
// was found when it was looked up; a rotated key, and not that it has expired.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	if s, ok := errors.AsType[*sentinel](err); ok {
		return s.word
	}
	switch {
	case errors.Is(err, context.Canceled):
		return wordCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return wordTimeout
	case errors.Is(err, errors.ErrUnsupported):
		return wordUnsupported
	case errors.Is(err, backend.ErrClosed):
		return wordClosed
	}
	return wordUnavailable
}

// about is a rejection of a credential that is known. Its text is that of the rejection.
type about struct {
	id  backend.ID
	err error
}

func (a *about) Error() string { return a.err.Error() }
func (a *about) Unwrap() error { return a.err }

// About returns a rejection with the ID of the credential that it is about. nil, and an
// error that is no rejection, it returns as it is. It must be called only for a credential
// that was found, or whose seal was checked: what a text alone claims is no ID of anything.
// It allocates, so a flood of texts that nobody has issued must not lead here.
func About(id backend.ID, err error) error {
	if !errors.Is(err, ErrRejected) {
		return err
	}
	return &about{id, err}
}

// RejectedID returns the ID that About has added.
func RejectedID(err error) (id backend.ID, ok bool) {
	a, ok := errors.AsType[*about](err)
	if !ok {
		return id, false
	}
	return a.id, true
}
