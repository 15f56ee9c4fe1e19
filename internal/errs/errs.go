// Package errs holds the errors of package fob, which the packages under internal return
// too, and decides what an error of a store, of a context or of a text means for a caller
// (classify.go). It does not know which call failed, nor what the records hold.
//
// The meaning of each error is documented where users find it: in errors.go of the root.
package errs

// A sentinel is an error that others are compared with. Each is made once, as a package
// variable, so that refusing a credential allocates nothing.
type sentinel struct {
	text, word string // word is what Reason says of it
	wider      error  // the reason of which it is a case; nil if of none
}

func (s *sentinel) Error() string { return s.text }
func (s *sentinel) Unwrap() error { return s.wider }

// New makes an error that Reason has a word for. It is for the sentinels of this module.
func New(word, text string) error { return &sentinel{text: text, word: word} }

// reject makes a case of a wider error, with a text of its own.
func reject(word, text string, wider error) error { return &sentinel{"fob: " + text, word, wider} }

func fail(word, text string) error { return New(word, "fob: "+text) }

func failAs(word, text string, wider error) error {
	return &sentinel{wider.Error() + ": " + text, word, wider}
}

// The reasons to refuse a credential. Each wraps a wider one, and the widest is ErrRejected.
var (
	ErrRejected         = fail("rejected", "credential rejected")
	ErrMalformed        = reject("malformed", "malformed credential", ErrRejected)
	ErrUnknown          = reject("unknown", "unknown credential", ErrRejected)
	ErrExpired          = reject("expired", "credential expired", ErrRejected)
	ErrRetired          = reject("retired", "credential rotated out", ErrExpired)
	ErrNotYetValid      = reject("not_yet_valid", "credential not yet valid", ErrRejected)
	ErrRevoked          = reject("revoked", "credential revoked", ErrRejected)
	ErrDisabled         = reject("disabled", "credential disabled", ErrRejected)
	ErrWrongEnvironment = reject("environment", "credential of another environment", ErrRejected)
	ErrKeyLength        = reject("length", "malformed key: length", ErrMalformed)
	ErrKeyPrefix        = reject("prefix", "malformed key: prefix", ErrMalformed)
	ErrKeyVersion       = reject("version", "malformed key: version", ErrMalformed)
	ErrKeyAlphabet      = reject("alphabet", "malformed key: alphabet", ErrMalformed)
	ErrKeyChecksum      = reject("checksum", "malformed key: checksum", ErrMalformed)
	ErrTokenFormat      = reject("token_format", "malformed token", ErrMalformed)
	ErrTokenLength      = reject("token_length", "malformed token: length", ErrMalformed)
	ErrTokenProtocol    = reject("token_protocol", "malformed token: version or purpose", ErrMalformed)
	ErrTokenKey         = reject("token_key", "unknown token key", ErrUnknown)
	ErrTokenSeal        = reject("token_seal", "token not sealed with its key", ErrUnknown)
	ErrClaims           = reject("claims", "token claims", ErrMalformed)
	ErrTokenLifetime    = reject("lifetime", "token claims too long a life", ErrRejected)
	ErrWrongIssuer      = reject("issuer", "token of another issuer", ErrRejected)
	ErrWrongAudience    = reject("audience", "token for another audience", ErrRejected)
	ErrReplayed         = reject("replayed", "refresh secret replayed", ErrRevoked)
)

// Everything else that goes wrong.
var (
	ErrScope         = fail("scope", "insufficient scope")
	ErrNotFound      = fail("not_found", "no such credential")
	ErrConflict      = fail("conflict", "changed meanwhile")
	ErrAlready       = failAs("already", "done already", ErrConflict)
	ErrContended     = failAs("contended", "others were in the way", ErrConflict)
	ErrInvalid       = fail("invalid", "invalid argument")
	ErrIdempotency   = fail("idempotency", "idempotency key used for another request")
	ErrIndeterminate = fail("indeterminate", "outcome unknown")
	ErrBusy          = fail("busy", "too many slow checks under way")
	ErrCorrupt       = fail("corrupt", "corrupt record")
	ErrSecret        = fail("secret", "a secret that is not the one in use")
	ErrPepper        = reject("pepper", "pepper not configured", ErrSecret)
	ErrSealKey       = reject("seal_key", "token keys not sealed with this key", ErrSecret)
	ErrSkew          = fail("skew", "clocks differ by too much")
	ErrClosed        = fail("closed", "manager closed")
	// ErrPanicked is wrapped by the error that a panic was turned into.
	ErrPanicked = New("panicked", "panicked")
)
