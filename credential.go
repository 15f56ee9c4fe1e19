package fob

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fobkit/fob/internal/claims"
	"github.com/fobkit/fob/internal/family"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/paseto"
)

// Credential is a verified or listed credential, whatever its kind. What is specific to
// keys is on [*Key], what is specific to tokens on [*Token]. A Credential is immutable
// and safe for concurrent use: it tells what was true when it was read.
//
// The interface is sealed: only this package implements it. To accept credentials of
// another system, implement a [Verifier] that wraps one of this package.
type Credential interface {
	// ID is the public handle: safe to log, and the argument of [Manager.Revoke].
	ID() ID
	// Kind tells keys from tokens.
	Kind() Kind
	// Subject is who the credential was issued for.
	Subject() Subject
	// Scopes returns a copy of the granted scopes, with those of its roles.
	Scopes() Scopes
	// Grants returns a copy of what is granted on single resources.
	Grants() Grants
	// Allows reports whether scope is granted.
	Allows(scope Scope) bool
	// AllowsOn reports whether action is granted on one resource: by a Grant, or
	// by a scope that covers all resources of its type ("orders:read" for the
	// action "read" on any Resource of type "orders", or ScopeAll).
	AllowsOn(action string, r Resource) bool
	// IssuedAt is when it was issued (UTC, milliseconds).
	IssuedAt() time.Time
	// ExpiresAt is the first instant at which it is no longer accepted; zero
	// means that it does not expire.
	ExpiresAt() time.Time
	// StatusAt is its status at an instant, as far as was known when it was read.
	StatusAt(at time.Time) Status
	// AsOf is an instant (UTC, milliseconds). This Credential includes every change that
	// was made to it before that instant. From Verify it is at most Config.MaxStaleness
	// ago, or Config.StaleIfError more while the store cannot be read. It may move forward
	// while the Credential is held, because the cache has found it unchanged. For a token
	// that was just issued, or was checked by public keys alone, it is the time of issue.
	AsOf() time.Time

	sealed()
}

// newAsOf makes the variable that AsOf reads, with an instant in Unix milliseconds.
func newAsOf(ms int64) *atomic.Int64 {
	at := new(atomic.Int64)
	at.Store(ms)
	return at
}

// ID is the public handle of a credential: 16 base62 characters that sort by
// time of issue and hold nothing secret. The zero ID names nothing.
type ID [keytext.IDLen]byte

// ParseID reads the text form of an ID, or fails with ErrInvalid.
func ParseID(text string) (ID, error) {
	id, ok := keytext.ParseID(text)
	if !ok {
		return ID{}, fmt.Errorf("%w: not an ID of %d base62 characters", ErrInvalid, keytext.IDLen)
	}
	return ID(id), nil
}

// Identify reads from a text that was presented which credential it claims to be, for
// support and for logs. It verifies, reads and counts nothing, so anybody can make a text
// that claims an ID. The ID of a key is in its text, and that of a token with a signature in
// its claims. For a refresh secret the ID is that of its session, and the kind KindToken. ok
// is false for an encrypted token (V4Local, V2Local) and for an imported key, which show no
// ID, and for any other text. [Manager.Revoke] takes the ID, so a text that was found where
// it must not be can be revoked.
func Identify(presented string) (id ID, kind Kind, ok bool) {
	prefix, problem := keytext.Split(presented)
	if problem == keytext.OK && keytext.CheckPrefix(prefix) == nil && keytext.Check(presented) == keytext.OK {
		block := keytext.Block(presented)
		if kind = KindKey; prefix == family.SecretPrefix {
			kind = KindToken
		}
		return ID(block[1 : 1+keytext.IDLen]), kind, true
	}
	text, err := paseto.Parse(presented)
	if err != nil {
		return ID{}, 0, false
	}
	said, err := claims.Decode(text.InsecurePayload())
	if err != nil {
		return ID{}, 0, false
	}
	if id, err = ParseID(said.ID); err != nil {
		return ID{}, 0, false
	}
	return id, KindToken, true
}

// String returns the 16 characters, or "" for the zero ID.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return string(id[:])
}

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText returns what String returns.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote, or fails with ErrInvalid.
func (id *ID) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*id = ID{}
		return nil
	}
	if len(text) != keytext.IDLen {
		text = nil // refused all the same, without a copy of a long text
	}
	*id, err = ParseID(string(text))
	return err
}

// Kind is the kind of a credential. The zero Kind is invalid.
type Kind uint8

// The kinds of credential.
const (
	KindKey   Kind = 1 + iota // a static API key
	KindToken                 // a PASETO access token
)

// String returns "key", "token" or "invalid".
func (k Kind) String() string {
	switch k {
	case KindKey:
		return "key"
	case KindToken:
		return "token"
	}
	return "invalid"
}

// MarshalText returns what String returns.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Status is the state of a credential. The zero Status is invalid, so nothing is active
// by omission.
type Status uint8

// The states of a credential.
const (
	// StatusActive: accepted.
	StatusActive Status = 1 + iota
	// StatusPending: its NotBefore has not come (computed).
	StatusPending
	// StatusDisabled: refused until Enable.
	StatusDisabled
	// StatusExpired: its ExpiresAt has come, or it was rotated out (computed).
	StatusExpired
	// StatusRevoked: refused for good.
	StatusRevoked
)

// String returns the state in lower case, or "invalid".
func (s Status) String() string {
	switch s {
	case StatusActive:
		return "active"
	case StatusPending:
		return "pending"
	case StatusDisabled:
		return "disabled"
	case StatusExpired:
		return "expired"
	case StatusRevoked:
		return "revoked"
	}
	return "invalid"
}

// MarshalText returns what String returns.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

type contextKey struct{}

// NewContext returns a context that carries a verified credential, as the
// middleware does for the handlers behind it.
func NewContext(ctx context.Context, cred Credential) context.Context {
	return context.WithValue(ctx, contextKey{}, cred)
}

// FromContext returns the credential that NewContext put in ctx, and whether there is
// one.
func FromContext(ctx context.Context) (Credential, bool) {
	cred, ok := ctx.Value(contextKey{}).(Credential)
	return cred, ok && cred != nil
}
