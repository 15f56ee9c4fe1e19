package fob

import "github.com/fobkit/fob/internal/errs"

// ErrRejected is wrapped by every reason to refuse a credential: what was presented is
// known to be bad. Answer 401, and tell the client nothing more. An error of Verify that
// is not ErrRejected means that the credential could not be checked: answer 503.
var ErrRejected = errs.ErrRejected

// The reasons for a rejection; each wraps ErrRejected. They are for logs,
// metrics and the issuer's own pages, not for the client.
var (
	// ErrMalformed: the text is no credential of this system. No store was read.
	ErrMalformed = errs.ErrMalformed
	// ErrUnknown: well formed, but no such credential was issued. Text with a
	// known ID and a wrong secret is unknown too.
	ErrUnknown = errs.ErrUnknown
	// ErrExpired: its ExpiresAt has come.
	ErrExpired = errs.ErrExpired
	// ErrRetired: it was rotated and its overlap is over; its successor is valid.
	// It wraps ErrExpired.
	ErrRetired = errs.ErrRetired
	// ErrNotYetValid: its NotBefore has not come.
	ErrNotYetValid = errs.ErrNotYetValid
	// ErrRevoked: it, or all of its subject, was revoked.
	ErrRevoked = errs.ErrRevoked
	// ErrDisabled: it is disabled and may be enabled again.
	ErrDisabled = errs.ErrDisabled
	// ErrWrongEnvironment: the key is of an environment named in
	// Config.OtherPrefixes: a test key in production, say.
	ErrWrongEnvironment = errs.ErrWrongEnvironment
)

// What is wrong with the text of a key; each wraps ErrMalformed. These errors are found
// without reading the store.
var (
	// ErrKeyLength: too short or too long, or no separator where one must be.
	ErrKeyLength = errs.ErrKeyLength
	// ErrKeyPrefix: the prefix is none of this Manager's.
	ErrKeyPrefix = errs.ErrKeyPrefix
	// ErrKeyVersion: a version of the key text that this package does not know.
	ErrKeyVersion = errs.ErrKeyVersion
	// ErrKeyAlphabet: a character that is not base62.
	ErrKeyAlphabet = errs.ErrKeyAlphabet
	// ErrKeyChecksum: mistyped or cut.
	ErrKeyChecksum = errs.ErrKeyChecksum
)

// What is wrong with a token. The first three are found before the token is decrypted or
// its signature is checked; they wrap ErrMalformed, as ErrClaims does.
var (
	// ErrTokenFormat: the text is no PASETO, or is not spelled as a PASETO must be.
	ErrTokenFormat = errs.ErrTokenFormat
	// ErrTokenLength: the text is longer than any token may be; it was not looked at.
	ErrTokenLength = errs.ErrTokenLength
	// ErrTokenProtocol: the version or purpose of the token is not that of its key, or is
	// not supported by this package.
	ErrTokenProtocol = errs.ErrTokenProtocol
	// ErrTokenKey: the token was sealed with a key that is not, or no longer, in the ring;
	// or its footer is not spelled as [Token] says. It wraps ErrUnknown.
	ErrTokenKey = errs.ErrTokenKey
	// ErrTokenSeal: the token was not sealed with the key that it names, or was changed
	// since. It wraps ErrUnknown.
	ErrTokenSeal = errs.ErrTokenSeal
	// ErrClaims: the token was sealed with one of our keys, but its claims cannot be read:
	// one is missing, of the wrong type, or there twice.
	ErrClaims = errs.ErrClaims
	// ErrTokenLifetime: the token claims a longer life than TokenConfig.MaxTTL.
	ErrTokenLifetime = errs.ErrTokenLifetime
	// ErrWrongIssuer and ErrWrongAudience: the token is from another issuer, or for
	// another audience.
	ErrWrongIssuer   = errs.ErrWrongIssuer
	ErrWrongAudience = errs.ErrWrongAudience
	// ErrReplayed: a refresh secret was used a second time; its family is revoked
	// now. It wraps ErrRevoked.
	ErrReplayed = errs.ErrReplayed
)

// ErrScope says that a credential is good but lacks a scope: answer 403. It
// does not wrap ErrRejected.
var ErrScope = errs.ErrScope

// Errors of the Manager that are not about a presented credential.
var (
	// ErrNotFound: no credential with this ID.
	ErrNotFound = errs.ErrNotFound
	// ErrConflict: the credential changed meanwhile; nothing was changed by this call.
	// Read again and decide. ErrAlready and ErrContended are two cases of it.
	ErrConflict = errs.ErrConflict
	// ErrAlready: what was asked for has been done before, by this caller or another
	// one; nothing was changed by this call. It wraps ErrConflict.
	ErrAlready = errs.ErrAlready
	// ErrContended: other calls kept changing the same thing until the deadline of this
	// one, or for 10 s if it has none. This call changed nothing, and can be repeated. It
	// wraps ErrConflict.
	ErrContended = errs.ErrContended
	// ErrInvalid: an argument or a setting is wrong; nothing was changed.
	ErrInvalid = errs.ErrInvalid
	// ErrIdempotency: the idempotency key was used for a different request.
	ErrIdempotency = errs.ErrIdempotency
	// ErrIndeterminate: the change may or may not have been made, or was made in part,
	// as far as the store could say. Call again: all changes here can be repeated.
	ErrIndeterminate = errs.ErrIndeterminate
	// ErrBusy: too many slow hashes of imported keys are being computed, or one for the
	// same key.
	ErrBusy = errs.ErrBusy
	// ErrCorrupt: a record of the store cannot be read. It is never reported as
	// ErrUnknown.
	ErrCorrupt = errs.ErrCorrupt
	// ErrPepper: a record was made under a pepper that Config does not hold.
	ErrPepper = errs.ErrPepper
	// ErrSealKey: the token keys in the store were sealed under another
	// TokenConfig.SealKey, or changed.
	ErrSealKey = errs.ErrSealKey
	// ErrSkew: the clocks of this process and of another one, or of the store, differ by
	// more than the 12 hours for which the guarantees are made. Until that is mended
	// nothing is purged.
	ErrSkew = errs.ErrSkew
	// ErrClosed: the Manager was closed.
	ErrClosed = errs.ErrClosed
)
