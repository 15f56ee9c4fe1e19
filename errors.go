package fob

import "github.com/fobkit/fob/internal/errs"

// Reason returns a short word for an error of this package, for metrics and logs: "revoked",
// "checksum", "unavailable". docs/errors.md lists the words; their meaning does not change,
// and there may be more of them later. nil has the word "". An error that this package does
// not know is "unavailable", because it comes from a store. The word is for the service, not
// for the client, who learns no more than that a credential was rejected.
func Reason(err error) string { return errs.Reason(err) }

// RejectedID returns which credential a rejection was about, if that is known: it was issued
// and is not accepted now, because it was revoked, is disabled, has expired or the like. For
// [Manager.Refresh] it is the session. It is not known of a text that is no credential or of
// which only the ID is right; [Identify] tells what such a text claims to be.
func RejectedID(err error) (id ID, known bool) {
	found, known := errs.RejectedID(err)
	return ID(found), known
}

// ErrRejected is wrapped by every reason to refuse a credential: what was presented is
// known to be bad. Answer 401, and tell the client nothing more. An error of Verify that
// is not ErrRejected means that the credential could not be checked: answer 503.
var ErrRejected = errs.ErrRejected

// The reasons for a rejection on which callers may branch; each wraps ErrRejected, and
// [Reason] tells them finer. They are for the service's own use, not for the client.
var (
	// ErrMalformed: the text is no credential of this system. No store was read.
	ErrMalformed = errs.ErrMalformed
	// ErrUnknown: well formed, but no such credential was issued. Text with a
	// known ID and a wrong secret is unknown too.
	ErrUnknown = errs.ErrUnknown
	// ErrExpired: its ExpiresAt has come.
	ErrExpired = errs.ErrExpired
	// ErrRevoked: it, or all of its subject, was revoked.
	ErrRevoked = errs.ErrRevoked
	// ErrDisabled: it is disabled and may be enabled again.
	ErrDisabled = errs.ErrDisabled
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
	// ErrSecret: a secret of Config is not the one that was used: a record was made under a
	// pepper that Config does not hold or has changed, or the token keys in the store were
	// sealed under another TokenConfig.SealKey.
	ErrSecret = errs.ErrSecret
	// ErrClosed: the Manager was closed.
	ErrClosed = errs.ErrClosed
)
