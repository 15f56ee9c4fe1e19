package fob

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fobkit/fob/internal/guard"
)

// Verifier checks what was presented and returns whose it is. It can neither
// issue nor revoke: hand it to middleware. *Manager implements it.
//
// An error that is ErrRejected means that the credential is bad; any other
// means that it could not be checked. A Verifier is safe for concurrent use
// and keeps nothing of presented: servers reuse that memory.
type Verifier interface {
	Verify(ctx context.Context, presented string) (Credential, error)
}

// errNoVerifier is what a nil verifier says: it is no rejection.
var errNoVerifier = fmt.Errorf("%w: no verifier", ErrInvalid)

// VerifierFunc is a function as a Verifier.
type VerifierFunc func(ctx context.Context, presented string) (Credential, error)

// Verify calls f. If that is nil, nothing can be checked.
func (f VerifierFunc) Verify(ctx context.Context, presented string) (Credential, error) {
	if f == nil {
		return nil, errNoVerifier
	}
	return f(ctx, presented)
}

// Chain tries verifiers in order. The first acceptance wins. A verifier that
// could not check ends the chain with its error, as does a rejection for a
// reason other than ErrMalformed or ErrUnknown: a revoked credential is not
// offered to the next system. Chain of nothing rejects everything; one of which a
// verifier is nil checks nothing.
func Chain(verifiers ...Verifier) Verifier {
	verifiers = append([]Verifier(nil), verifiers...)
	if slices.ContainsFunc(verifiers, func(v Verifier) bool { return guard.Missing(v) }) {
		return VerifierFunc(nil)
	}
	return VerifierFunc(func(ctx context.Context, presented string) (Credential, error) {
		last := ErrUnknown
		for _, v := range verifiers {
			cred, err := v.Verify(ctx, presented)
			if err == nil {
				return cred, nil
			}
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnknown) {
				return nil, err
			}
			last = err
		}
		return nil, last
	})
}
