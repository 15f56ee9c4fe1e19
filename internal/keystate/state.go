// Package keystate is an API key as the store has it: its state, the record that it is
// written as, the rule by which it is accepted or refused, and how it is changed.
package keystate

import (
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
)

// Status is what a key is. The zero Status is invalid.
type Status uint8

// The statuses. Of these Active, Disabled and Revoked are stored; the others follow from
// the time.
const (
	Active   Status = 1 + iota // accepted
	Pending                    // NotBefore has not come
	Disabled                   // refused until it is enabled
	Expired                    // ExpiresAt has come, or it was rotated out
	Revoked                    // refused for good
)

// State is a key as the store has it. It holds no secret. Times are Unix milliseconds, and
// zero is "not set"; a zero ID names nothing.
type State struct {
	ID      record.ID
	Version uint64 // of the record; zero before it is written
	// Owner is the subject with its kind, as stores list by it: a digit, and the name.
	Owner      string
	SubjectRef record.ID // the record of the subject, whose epoch ends keys of an older one
	Epoch      uint64

	Prefix string // of its text; "" for an imported key
	Name   string
	Scopes string // separated by one space
	Tags   []string

	IssuedAt, NotBefore, ExpiresAt, RetireAt, RevokedAt int64

	Status   Status
	Imported bool // its text was made by another system, and its digest is over all of it
	Retired  bool // rotated out, for good: no clock that is late or steps back revives it
	Reason   string

	Successor, Predecessor record.ID
	Rotating               uint64 // the running or crashed attempt to rotate; zero for none
	Quiet                  int64  // milliseconds of quiet after which it retires early

	Digest       digest.Digest
	Pepper       string    // ID of the pepper that Digest is under; "" for none
	ImportedHash string    // the hash of the other system, in place of Digest, until the key is first used
	Alias        record.ID // of an imported key, by which it is found
	Lifetime     int64     // milliseconds asked for at issue, which a rotation repeats
	// KeptUntil is when the record may be forgotten at the earliest, because another record
	// still leads to it; zero is at any time.
	KeptUntil int64
}

// Owner is a subject with its kind, as State.Owner has it.
func Owner(kind uint8, subject string) string { return string([]byte{'0' + kind}) + subject }

// SubjectRecord is the ID of the record of a subject.
func SubjectRecord(owner string) record.ID { return record.Named(record.Subject, owner) }

// Subject is the name of the subject.
func (s *State) Subject() string { return s.Owner[min(1, len(s.Owner)):] }

// SubjectKind is the kind of the subject.
func (s *State) SubjectKind() uint8 {
	if s.Owner == "" {
		return 0
	}
	return s.Owner[0] - '0'
}

// SetDigest makes a digest, and the ID of the pepper that it is under, what the key is
// recognised by from now on.
func (s *State) SetDigest(made digest.Digest, pepperID string) {
	s.ImportedHash = ""
	s.Digest, s.Pepper = made, pepperID
}

// EndsAt is the first instant at which the key is no longer accepted, whatever its status:
// its expiry or, of a rotated key, the end of its overlap; zero for never.
func (s *State) EndsAt() int64 {
	if s.RetireAt != 0 && (s.ExpiresAt == 0 || s.RetireAt < s.ExpiresAt) {
		return s.RetireAt
	}
	return s.ExpiresAt
}

// At is what the key is at an instant. That its subject was revoked does not stand in its
// record.
func (s *State) At(ms int64) Status {
	end := s.EndsAt()
	switch {
	case s.Status != Active:
		return s.Status
	case s.Retired:
		return Expired
	case s.NotBefore != 0 && ms < s.NotBefore:
		return Pending
	case end != 0 && ms >= end:
		return Expired
	}
	return Active
}

// Refusal is the reason why the key is not accepted at an instant, or nil. Which error a
// state gives is decided here alone.
func (s *State) Refusal(ms int64) error {
	switch s.At(ms) {
	case Active:
		return nil
	case Pending:
		return errs.ErrNotYetValid
	case Disabled:
		return errs.ErrDisabled
	case Expired:
		if s.Retired || s.RetireAt != 0 && s.EndsAt() == s.RetireAt {
			return errs.ErrRetired
		}
		return errs.ErrExpired
	default: // Revoked, and what nobody knows
		return errs.ErrRevoked
	}
}

// Span is when the key is accepted, if nothing else changes: from <= now < to, in Unix
// milliseconds, where to may be forever. refused is why it is not at any time; then both
// are equal.
func (s *State) Span(forever int64) (from, to int64, refused error) {
	if s.Status != Active || s.Retired {
		return 0, 0, s.Refusal(0)
	}
	from, to = s.NotBefore, forever
	if end := s.EndsAt(); end != 0 {
		to = end
	}
	return from, to, nil
}
