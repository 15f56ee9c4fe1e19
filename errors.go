package fob

import (
	"errors"
	"fmt"
)

// A rejection is a reason to refuse a credential; it wraps a wider reason, up
// to ErrRejected. Rejections are constants in all but name, so refusing costs
// no allocation.
type rejection struct {
	text  string
	wider error
}

func (r *rejection) Error() string { return r.text }
func (r *rejection) Unwrap() error { return r.wider }

func reject(text string, wider error) error { return &rejection{"fob: " + text, wider} }

// ErrRejected is the umbrella of every reason to refuse a credential: what was
// presented is known to be bad. Answer 401, tell the client nothing more. An
// error of Verify that is not ErrRejected means that the check could not be
// made: answer 503.
var ErrRejected = errors.New("fob: credential rejected")

// The reasons for a rejection; each wraps ErrRejected. They are for logs,
// metrics and the issuer's own pages, not for the client.
var (
	// ErrMalformed: the text is no credential of this system. No store was read.
	ErrMalformed = reject("malformed credential", ErrRejected)
	// ErrUnknown: well formed, but no such credential was issued. Text with a
	// known ID and a wrong secret is unknown too.
	ErrUnknown = reject("unknown credential", ErrRejected)
	// ErrExpired: its ExpiresAt has come.
	ErrExpired = reject("credential expired", ErrRejected)
	// ErrRetired: it was rotated and its overlap is over; its successor is valid.
	// It wraps ErrExpired.
	ErrRetired = reject("credential rotated out", ErrExpired)
	// ErrNotYetValid: its NotBefore has not come.
	ErrNotYetValid = reject("credential not yet valid", ErrRejected)
	// ErrRevoked: it, or all of its subject, was revoked.
	ErrRevoked = reject("credential revoked", ErrRejected)
	// ErrDisabled: it is disabled and may be enabled again.
	ErrDisabled = reject("credential disabled", ErrRejected)
	// ErrWrongEnvironment: the key is of an environment named in
	// Config.OtherPrefixes: a test key in production, say.
	ErrWrongEnvironment = reject("credential of another environment", ErrRejected)
)

// What is wrong with the text of a key; each wraps ErrMalformed. They are told
// apart without reading the store.
var (
	// ErrKeyLength: too short or too long, or no separator where one must be.
	ErrKeyLength = reject("malformed key: length", ErrMalformed)
	// ErrKeyPrefix: the prefix is none of this Manager's.
	ErrKeyPrefix = reject("malformed key: prefix", ErrMalformed)
	// ErrKeyVersion: a version of the key text that this package does not know.
	ErrKeyVersion = reject("malformed key: version", ErrMalformed)
	// ErrKeyAlphabet: a character that is not base62.
	ErrKeyAlphabet = reject("malformed key: alphabet", ErrMalformed)
	// ErrKeyChecksum: mistyped or cut.
	ErrKeyChecksum = reject("malformed key: checksum", ErrMalformed)
)

// What is wrong with a token. The first three are told apart before anything is
// opened; they wrap ErrMalformed, as ErrClaims does.
var (
	// ErrTokenFormat: no PASETO, or not spelled as one is written.
	ErrTokenFormat = reject("malformed token", ErrMalformed)
	// ErrTokenLength: too long to be looked at.
	ErrTokenLength = reject("malformed token: length", ErrMalformed)
	// ErrTokenProtocol: of a version or purpose that its key, or this package, is
	// not for.
	ErrTokenProtocol = reject("malformed token: version or purpose", ErrMalformed)
	// ErrTokenKey: sealed with a key that is not in the ring, or no longer; or its footer
	// is not spelled as Token says.
	ErrTokenKey = reject("unknown token key", ErrUnknown)
	// ErrTokenSeal: not sealed with the key that it names, or changed since.
	ErrTokenSeal = reject("token not sealed with its key", ErrUnknown)
	// ErrClaims: sealed with one of our keys, but its claims cannot be read: missing,
	// of the wrong type, twice.
	ErrClaims = reject("token claims", ErrMalformed)
	// ErrTokenLifetime: it claims a longer life than TokenConfig.MaxTTL.
	ErrTokenLifetime = reject("token claims too long a life", ErrRejected)
	// ErrWrongIssuer and ErrWrongAudience: for somebody else.
	ErrWrongIssuer   = reject("token of another issuer", ErrRejected)
	ErrWrongAudience = reject("token for another audience", ErrRejected)
	// ErrReplayed: a refresh secret was used a second time; its family is revoked
	// now. It wraps ErrRevoked.
	ErrReplayed = reject("refresh secret replayed", ErrRevoked)
)

// ErrScope says that a credential is good but lacks a scope: answer 403. It
// does not wrap ErrRejected.
var ErrScope = errors.New("fob: insufficient scope")

// Errors of the Manager that are not about a presented credential.
var (
	// ErrNotFound: no credential with this ID.
	ErrNotFound = errors.New("fob: no such credential")
	// ErrConflict: the credential changed meanwhile; nothing was changed by this call.
	// Read again and decide. ErrAlready and ErrContended are two cases of it.
	ErrConflict = errors.New("fob: changed meanwhile")
	// ErrAlready: what was asked for has been done before, by this caller or another
	// one; nothing was changed by this call. It wraps ErrConflict.
	ErrAlready = fmt.Errorf("%w: done already", ErrConflict)
	// ErrContended: others were changing the same thing until the caller's time was
	// up; nothing was changed by this call, and it can be called again. It wraps
	// ErrConflict.
	ErrContended = fmt.Errorf("%w: others were in the way", ErrConflict)
	// ErrInvalid: an argument or a setting is wrong; nothing was changed.
	ErrInvalid = errors.New("fob: invalid argument")
	// ErrIdempotency: the idempotency key was used for a different request.
	ErrIdempotency = errors.New("fob: idempotency key used for another request")
	// ErrIndeterminate: the change may or may not have been made, because the
	// store could not say. Call again: all changes here can be repeated.
	ErrIndeterminate = errors.New("fob: outcome unknown")
	// ErrBusy: too many slow hashes of imported keys are being checked at once, or
	// one of the same key.
	ErrBusy = errors.New("fob: too many slow checks under way")
	// ErrCorrupt: a record of the store cannot be read. Never reported as ErrUnknown.
	ErrCorrupt = errors.New("fob: corrupt record")
	// ErrPepper: a record was made under a pepper that Config does not hold.
	ErrPepper = errors.New("fob: pepper not configured")
	// ErrSealKey: the token keys in the store were sealed under another
	// TokenConfig.SealKey, or changed.
	ErrSealKey = errors.New("fob: token keys not sealed with this key")
	// ErrSkew: the clock of this process and another one differ by more than the 12
	// hours for which the guarantees are made. Until that is mended nothing is purged.
	ErrSkew = errors.New("fob: clocks differ by too much")
	// ErrClosed: the Manager was closed.
	ErrClosed = errors.New("fob: manager closed")
)
