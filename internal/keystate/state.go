// Package keystate holds the state of an API key as the store has it: the record that it is
// written as (codec.go), the rule by which the key is accepted or refused at an instant,
// and how a key is changed by compare-and-set (store.go). It knows neither the text nor the
// secret of a key, and nothing of the cache beyond the function that drops its entries.
package keystate

import (
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/rights"
)

// Status says whether a key is accepted, and why not. The zero Status is invalid.
type Status uint8

// The statuses. Active, Disabled and Revoked are stored; the others follow from the time.
const (
	Active   Status = 1 + iota // accepted
	Pending                    // NotBefore has not come
	Disabled                   // refused until it is enabled
	Expired                    // ExpiresAt has come, or it was rotated out
	Revoked                    // refused for good
)

// State is a key as the store has it. It holds no secret. Times are Unix milliseconds, and
// zero means "not set". A zero ID means that there is no such record.
type State struct {
	ID      record.ID
	Version uint64 // of the record; zero before it is written
	// Owner is the subject with its kind, by which stores list records: a digit, then the
	// name.
	Owner string
	// SubjectRef and AccountRef are the records of the subject and of its account, if it has
	// one. Their epochs revoke keys that have a lower Epoch, or AccountEpoch.
	SubjectRef, AccountRef record.ID
	Epoch, AccountEpoch    uint64
	Parent                 record.ID // the key that the caller presented who had this one issued; zero for none

	Prefix string // of the text of the key; "" for an imported key
	Name   string
	Scopes string // separated by one space
	Roles  []string
	Grants []rights.Grant
	Meta   map[string]string
	Tags   []string

	IssuedAt, NotBefore, ExpiresAt, RetireAt, RevokedAt int64

	Status   Status
	Imported bool // another system made the text of the key, and Digest is over the whole text
	Retired  bool // rotated out for good: even a clock that is late or steps back does not make the key valid again
	Reason   string

	Successor, Predecessor record.ID
	Rotating               uint64 // the running or crashed attempt to rotate; zero for none
	Quiet                  int64  // milliseconds without use after which a rotated key retires early; zero for never

	Digest       digest.Digest
	Pepper       string    // ID of the pepper that Digest is under; "" for none
	ImportedHash string    // the hash of the other system, in place of Digest, until the key is first used
	Alias        record.ID // the record by which an imported key is found
	Lifetime     int64     // milliseconds that were asked for at issue; a successor gets as many
	// KeptUntil is until when the record must be kept, because another record still leads
	// to it; zero means that no other record does.
	KeptUntil int64
}

// SetOwner sets the subject of a new key, and the records of the subject and its account.
func (s *State) SetOwner(kind uint8, account, name string) {
	s.Owner = record.Owner(kind, account, name)
	s.SubjectRef, s.AccountRef = record.SubjectID(s.Owner), record.AccountID(account)
}

// Subject is the subject of the key: its kind, its account ("" for none) and its name.
func (s *State) Subject() (kind uint8, account, name string) {
	kind, account, name, _ = record.ParseOwner(s.Owner)
	return kind, account, name
}

// Labels are the labels by which the key is listed.
func (s *State) Labels() []string {
	_, account, _ := s.Subject()
	labels := make([]string, 0, 2+2*len(s.Tags)+len(s.Roles))
	if account != "" {
		labels = append(labels, record.AccountLabel(account))
		for _, tag := range s.Tags {
			labels = append(labels, record.TagLabel(account, tag))
		}
	}
	for _, tag := range s.Tags {
		labels = append(labels, record.TagLabel("", tag))
	}
	for _, role := range s.Roles {
		labels = append(labels, record.RoleLabel(role))
	}
	return record.Labels(labels...)
}

// SetDigest sets the digest by which the key is recognised from now on, and the ID of the
// pepper that the digest is under.
func (s *State) SetDigest(made digest.Digest, pepperID string) {
	s.ImportedHash = ""
	s.Digest, s.Pepper = made, pepperID
}

// EndsAt returns the first instant at which the key is no longer accepted, whatever its
// status: its expiry or, for a rotated key, the end of its overlap, whichever comes first;
// zero for never.
func (s *State) EndsAt() int64 {
	if s.RetireAt != 0 && (s.ExpiresAt == 0 || s.RetireAt < s.ExpiresAt) {
		return s.RetireAt
	}
	return s.ExpiresAt
}

// At returns the status of the key at an instant. It does not tell that the subject of the
// key was revoked, because that is not in the record of the key.
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

// Refusal returns the reason why the key is not accepted at an instant, or nil. It is the
// only place that decides which error a status gives.
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
	default: // Revoked, and any status that is unknown here
		return errs.ErrRevoked
	}
}

// Span returns when the key is accepted, if nothing else changes: from <= now < to, in Unix
// milliseconds, where to may be forever. If the key is never accepted, refused is the
// reason, and from and to are zero.
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

// SpanUnder is Span for a key that is refused because of its subject or its account for a
// reason: errs.ErrRevoked, errs.ErrDisabled, or nil for none. A key that was revoked itself is
// revoked, whatever the reason.
func (s *State) SpanUnder(reason error, forever int64) (from, to int64, refused error) {
	if from, to, refused = s.Span(forever); reason == nil || refused == errs.ErrRevoked {
		return from, to, refused
	}
	return 0, 0, reason
}
