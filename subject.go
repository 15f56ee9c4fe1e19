package fob

import (
	"fmt"
	"log/slog"

	"github.com/fobkit/fob/internal/limits"
	"github.com/fobkit/fob/internal/record"
)

// Account is the account of the API consumer, a customer or an organisation, to which
// subjects belong; "" is none. It is up to 256 bytes of UTF-8 without control characters,
// and is compared byte for byte: nothing is folded or normalised, so two names that look
// alike are two accounts. An account need not be made; it has a record of its own only once
// something is said about it. It is a [Target]: what is done to it is done to every
// credential of its subjects.
type Account string

// String returns the account's name.
func (a Account) String() string { return string(a) }

func (a Account) check(least int) error {
	return limits.CheckText("account", string(a), least, maxAccount)
}

// Subject is who a credential is for: an application or a user, perhaps of an account.
// Make one with [App] or [User]. Two subjects are the same if they are equal (==). Two of
// the same name in two accounts, or of two kinds, have nothing in common: no credential of
// the one is ever taken for one of the other. A Subject is a [Target]. The zero Subject is
// invalid everywhere but in a [Query], where it means any.
type Subject struct {
	Account Account     `json:"account,omitempty"`
	Kind    SubjectKind `json:"kind"`
	Name    string      `json:"name"` // 1 to 256 bytes, as an Account
}

// App returns the application with a name, of no account.
func App(name string) Subject { return Subject{Kind: SubjectApplication, Name: name} }

// User returns the user with a name, of no account.
func User(name string) Subject { return Subject{Kind: SubjectUser, Name: name} }

// In returns the same subject of an account.
func (s Subject) In(account Account) Subject {
	s.Account = account
	return s
}

// String returns the subject for people, such as "application ci of acme". For the zero
// Subject it returns "".
func (s Subject) String() string {
	switch {
	case s == Subject{}:
		return ""
	case s.Account == "":
		return s.Kind.String() + " " + s.Name
	}
	return s.Kind.String() + " " + s.Name + " of " + s.Account.String()
}

// LogValue returns the parts of the subject as a group.
func (s Subject) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("kind", s.Kind.String()), slog.String("name", s.Name)}
	if s.Account != "" {
		attrs = append(attrs, slog.String("account", string(s.Account)))
	}
	return slog.GroupValue(attrs...)
}

// SubjectKind is what a subject is. The zero SubjectKind is invalid.
type SubjectKind uint8

// The kinds of subject; they never share a namespace (RFC 9700 §4.15).
const (
	SubjectApplication SubjectKind = 1 + iota
	SubjectUser
)

// String returns "application", "user" or "invalid".
func (k SubjectKind) String() string {
	switch k {
	case SubjectApplication:
		return "application"
	case SubjectUser:
		return "user"
	}
	return "invalid"
}

// MarshalText returns what String returns.
func (k SubjectKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads "application" or "user", or fails with ErrInvalid.
func (k *SubjectKind) UnmarshalText(text []byte) error {
	for _, known := range []SubjectKind{SubjectApplication, SubjectUser} {
		if string(text) == known.String() {
			*k = known
			return nil
		}
	}
	return fmt.Errorf("%w: kind of subject of %d bytes", ErrInvalid, len(text))
}

// The limits of a subject's texts, in bytes.
const (
	maxAccount = 256
	maxSubject = 256
)

// check refuses what is no subject.
func (s Subject) check() error {
	if s.Kind != SubjectApplication && s.Kind != SubjectUser {
		return fmt.Errorf("%w: subject of kind %d: use App or User", ErrInvalid, s.Kind)
	}
	if err := s.Account.check(0); err != nil {
		return err
	}
	return limits.CheckText("subject", s.Name, 1, maxSubject)
}

// owner is the text by which stores list what belongs to the subject.
func (s Subject) owner() string { return record.Owner(uint8(s.Kind), string(s.Account), s.Name) }

// subjectOf is the reverse of owner.
func subjectOf(owner string) Subject {
	kind, account, name, _ := record.ParseOwner(owner)
	return Subject{Account(account), SubjectKind(kind), name}
}
