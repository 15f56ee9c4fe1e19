// Package errs holds the errors of package fob, which the packages under internal return
// too, and decides what an error of a store, of a context or of a text means for a caller
// (classify.go). It does not know which call failed, nor what the records hold.
//
// The meaning of each error is documented where users find it: in errors.go of the root.
package errs

import (
	"errors"
	"fmt"
)

// A rejection is a reason to refuse a credential. It wraps a wider reason, and the widest
// one is ErrRejected. Each rejection is made once, as a package variable, so that refusing
// a credential allocates nothing.
type rejection struct {
	text  string
	wider error
}

func (r *rejection) Error() string { return r.text }
func (r *rejection) Unwrap() error { return r.wider }

func reject(text string, wider error) error { return &rejection{"fob: " + text, wider} }

// The reasons to refuse a credential.
var (
	ErrRejected         = errors.New("fob: credential rejected")
	ErrMalformed        = reject("malformed credential", ErrRejected)
	ErrUnknown          = reject("unknown credential", ErrRejected)
	ErrExpired          = reject("credential expired", ErrRejected)
	ErrRetired          = reject("credential rotated out", ErrExpired)
	ErrNotYetValid      = reject("credential not yet valid", ErrRejected)
	ErrRevoked          = reject("credential revoked", ErrRejected)
	ErrDisabled         = reject("credential disabled", ErrRejected)
	ErrWrongEnvironment = reject("credential of another environment", ErrRejected)
	ErrKeyLength        = reject("malformed key: length", ErrMalformed)
	ErrKeyPrefix        = reject("malformed key: prefix", ErrMalformed)
	ErrKeyVersion       = reject("malformed key: version", ErrMalformed)
	ErrKeyAlphabet      = reject("malformed key: alphabet", ErrMalformed)
	ErrKeyChecksum      = reject("malformed key: checksum", ErrMalformed)
	ErrTokenFormat      = reject("malformed token", ErrMalformed)
	ErrTokenLength      = reject("malformed token: length", ErrMalformed)
	ErrTokenProtocol    = reject("malformed token: version or purpose", ErrMalformed)
	ErrTokenKey         = reject("unknown token key", ErrUnknown)
	ErrTokenSeal        = reject("token not sealed with its key", ErrUnknown)
	ErrClaims           = reject("token claims", ErrMalformed)
	ErrTokenLifetime    = reject("token claims too long a life", ErrRejected)
	ErrWrongIssuer      = reject("token of another issuer", ErrRejected)
	ErrWrongAudience    = reject("token for another audience", ErrRejected)
	ErrReplayed         = reject("refresh secret replayed", ErrRevoked)
)

// Everything else that goes wrong.
var (
	ErrScope         = errors.New("fob: insufficient scope")
	ErrNotFound      = errors.New("fob: no such credential")
	ErrConflict      = errors.New("fob: changed meanwhile")
	ErrAlready       = fmt.Errorf("%w: done already", ErrConflict)
	ErrContended     = fmt.Errorf("%w: others were in the way", ErrConflict)
	ErrInvalid       = errors.New("fob: invalid argument")
	ErrIdempotency   = errors.New("fob: idempotency key used for another request")
	ErrIndeterminate = errors.New("fob: outcome unknown")
	ErrBusy          = errors.New("fob: too many slow checks under way")
	ErrCorrupt       = errors.New("fob: corrupt record")
	ErrPepper        = errors.New("fob: pepper not configured")
	ErrSealKey       = errors.New("fob: token keys not sealed with this key")
	ErrSkew          = errors.New("fob: clocks differ by too much")
	ErrClosed        = errors.New("fob: manager closed")
)
