package fob

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
)

// Key is a static API key as it was when it was read: who it identifies, what
// it grants, its state. It holds no secret. It implements Credential, is
// immutable and safe for concurrent use. The zero Key is not a key; Keys come
// from a Manager.
type Key struct {
	state  keystate.State
	scopes Scopes // those of state

	asOf *atomic.Int64 // Unix milliseconds; moves while the key is in the cache
}

// decodedKey is a key and what it points to, in one piece of memory.
type decodedKey struct {
	key    Key
	asOf   atomic.Int64
	scopes [4]Scope // room for as many as most keys have
}

// decodeKey reads the record of a key, or fails with ErrCorrupt.
func decodeKey(rec *backend.Record) (*Key, error) {
	made := new(decodedKey)
	k := &made.key
	k.asOf = &made.asOf
	if err := keystate.Decode(rec, &k.state); err != nil {
		return nil, err
	}
	k.scopes = splitScopes(made.scopes[:0], k.state.Scopes)
	return k, nil
}

// keyOf is the key in a state, as of an instant in Unix milliseconds.
func keyOf(s *keystate.State, asOf int64) *Key {
	return &Key{state: *s, scopes: splitScopes(nil, s.Scopes), asOf: newAsOf(asOf)}
}

// splitScopes is the reverse of Scopes.String, for text that was checked. It uses the
// room of scopes if that is enough.
func splitScopes(scopes Scopes, text string) Scopes {
	if text == "" {
		return nil
	}
	if n := strings.Count(text, " ") + 1; n > cap(scopes) {
		scopes = make(Scopes, 0, n)
	}
	for {
		i := strings.IndexByte(text, ' ')
		if i < 0 {
			scopes = append(scopes, Scope(text))
			return slices.Clip(scopes) // not into anybody else's room
		}
		scopes = append(scopes, Scope(text[:i]))
		text = text[i+1:]
	}
}

var _ Credential = (*Key)(nil)

// owner is a subject with its kind, as stores list by it.
func owner(kind SubjectKind, subject string) string { return keystate.Owner(uint8(kind), subject) }

func subjectRecord(kind SubjectKind, subject string) record.ID {
	return keystate.SubjectRecord(owner(kind, subject))
}

func (k *Key) sealed() {}

// ID implements Credential.
func (k *Key) ID() ID { return ID(k.state.ID) }

// Kind returns KindKey.
func (k *Key) Kind() Kind { return KindKey }

// Subject implements Credential.
func (k *Key) Subject() string { return k.state.Subject() }

// SubjectKind implements Credential.
func (k *Key) SubjectKind() SubjectKind { return SubjectKind(k.state.SubjectKind()) }

// Scopes implements Credential.
func (k *Key) Scopes() Scopes { return slices.Clone(k.scopes) }

// Allows implements Credential. It allocates nothing.
func (k *Key) Allows(scope Scope) bool { return k.scopes.Allow(scope) }

// AllowsOn implements Credential: a key's scopes cover every resource of a type.
// It allocates nothing.
func (k *Key) AllowsOn(action string, r Resource) bool {
	return allowsOn(k.scopes, nil, action, r)
}

// IssuedAt implements Credential.
func (k *Key) IssuedAt() time.Time { return clock.Instant(k.state.IssuedAt) }

// NotBefore is the first instant at which the key is accepted; zero means at once.
func (k *Key) NotBefore() time.Time { return clock.Instant(k.state.NotBefore) }

// ExpiresAt implements Credential: the earlier of the expiry given at issue and,
// for a rotated key, the end of its overlap.
func (k *Key) ExpiresAt() time.Time { return clock.Instant(k.state.EndsAt()) }

// Version changes with every change of the key; see KeyUpdate.IfVersion.
func (k *Key) Version() uint64 { return k.state.Version }

// Name is the label given at issue, for people.
func (k *Key) Name() string { return k.state.Name }

// Tags returns a copy of the key's tags.
func (k *Key) Tags() []string { return slices.Clone(k.state.Tags) }

// Prefix is the readable start of the key's text, "" for an imported key.
func (k *Key) Prefix() string { return k.state.Prefix }

// Imported reports whether the key's text was made by another system.
func (k *Key) Imported() bool { return k.state.Imported }

// RevokedAt is when it was revoked; zero if it is not, or if only its subject was.
func (k *Key) RevokedAt() time.Time { return clock.Instant(k.state.RevokedAt) }

// RevokeReason is the reason given to Revoke.
func (k *Key) RevokeReason() RevokeReason { return RevokeReason(k.state.Reason) }

// Successor is the key that replaces this one; zero if it was not rotated.
func (k *Key) Successor() ID {
	if k.state.RetireAt == 0 {
		return ID{} // a rotation that did not finish has no successor yet
	}
	return ID(k.state.Successor)
}

// Predecessor is the key that this one replaces; zero if it replaces none.
func (k *Key) Predecessor() ID { return ID(k.state.Predecessor) }

// AsOf implements Credential.
func (k *Key) AsOf() time.Time { return clock.Instant(k.asOf.Load()) }

// StatusAt implements Credential. A key whose subject was revoked is seen as
// revoked by Verify, Get and List.
func (k *Key) StatusAt(at time.Time) Status { return Status(k.state.At(clock.Clamp(at))) }

// String returns "key" and the ID, which are safe to log.
func (k Key) String() string { return "key " + ID(k.state.ID).String() }

// Format writes what String returns, for every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// size is the memory that the key takes, in bytes.
func (k *Key) size() int {
	n := int(unsafe.Sizeof(decodedKey{})) + len(k.state.Owner) + len(k.state.Prefix) + len(k.state.Name) + len(k.state.Reason) + len(k.state.Pepper) + len(k.state.ImportedHash)
	for _, s := range k.scopes {
		n += 16 + len(s)
	}
	for _, t := range k.state.Tags {
		n += 16 + len(t)
	}
	return n
}

// checkTime refuses a time that is set and lies outside the years 1970 to 9999, which
// are all that a record, RFC 3339 and package time agree about.
func checkTime(what string, t time.Time) error {
	if year := t.UTC().Year(); !t.IsZero() && (year < 1970 || year > 9999) {
		return fmt.Errorf("%w: %s in the year %d, want 1970 to 9999", ErrInvalid, what, year)
	}
	return nil
}

// KeySpec says what key to issue. Subject is required; every other field has a
// documented zero value.
type KeySpec struct {
	// Subject is who the key is for: 1 to 256 bytes of UTF-8 without control
	// characters, compared byte for byte.
	Subject string
	// SubjectKind is what the subject is; zero means SubjectApplication.
	SubjectKind SubjectKind
	// Name is a label for people, up to 128 bytes.
	Name string
	// Scopes are the granted scopes, at most 64. None grants nothing: the key
	// identifies its subject and no more. ScopeAll grants everything.
	Scopes Scopes
	// Tags are labels to list by, at most 16 of up to 64 bytes.
	Tags []string
	// NotBefore is the first instant at which the key is accepted; zero: at once.
	NotBefore time.Time
	// ExpiresAt is the first instant at which it no longer is; zero: it does not
	// expire. TTL is the same as a duration from now; set at most one.
	ExpiresAt time.Time
	TTL       time.Duration
	// Prefix is the prefix of the key's text, one of Config.Prefixes; "" means
	// Config.Prefix.
	Prefix string
	// IdempotencyKey, if set, makes IssueKey repeatable: the same key and spec
	// within Config.IdempotencyWindow return the same secret. It must be
	// unpredictable, 16 to 256 bytes (a random UUID, say): it seals the secret
	// that the store keeps meanwhile. A repeat brings nothing back: it returns the
	// key as it is by then, revoked or expired, and the key's record is kept for a
	// day longer than the window, whatever Config.Retention says.
	IdempotencyKey string
}

// The limits of a spec's texts, in bytes.
const (
	maxSubject = 256
	maxName    = 128
	maxTags    = 16
	maxTag     = 64
	maxReason  = 256
)

// newKey checks a spec and makes the key it describes, without ID and digest.
func (m *Manager) newKey(spec KeySpec, now time.Time) (*keystate.State, error) {
	kind := spec.SubjectKind
	if kind == 0 {
		kind = SubjectApplication
	}
	if err := checkSubject(spec.Subject, kind); err != nil {
		return nil, err
	}
	prefix := spec.Prefix
	if prefix == "" {
		prefix = m.cfg.Prefix
	}
	if !m.issues(prefix) {
		return nil, fmt.Errorf("%w: a prefix of %d bytes that is not in Config.Prefixes", ErrInvalid, len(spec.Prefix))
	}
	scopes, err := spec.Scopes.normal()
	if err != nil {
		return nil, err
	}
	tags, err := normalTags(spec.Tags)
	if err != nil {
		return nil, err
	}
	if err := checkText("name", spec.Name, 0, maxName); err != nil {
		return nil, err
	}
	if !spec.ExpiresAt.IsZero() && spec.TTL != 0 {
		return nil, fmt.Errorf("%w: both ExpiresAt and TTL", ErrInvalid)
	}
	if err := errors.Join(checkTime("NotBefore", spec.NotBefore), checkTime("ExpiresAt", spec.ExpiresAt)); err != nil {
		return nil, err
	}
	expires := spec.ExpiresAt
	if spec.TTL != 0 {
		expires = now.Add(spec.TTL)
	}
	k := &keystate.State{
		Owner:     owner(kind, spec.Subject),
		Prefix:    strings.Clone(prefix),
		Name:      strings.Clone(spec.Name),
		Scopes:    scopes.String(),
		Tags:      tags,
		IssuedAt:  clock.Millis(now),
		NotBefore: clock.Millis(spec.NotBefore),
		ExpiresAt: clock.Millis(expires),
		Status:    keystate.Active,
	}
	k.SubjectRef = keystate.SubjectRecord(k.Owner)
	if k.ExpiresAt != 0 {
		if k.ExpiresAt <= k.IssuedAt || k.ExpiresAt <= k.NotBefore {
			return nil, fmt.Errorf("%w: the key would never be valid", ErrInvalid)
		}
		k.Lifetime = k.ExpiresAt - k.IssuedAt
	}
	return k, nil
}

// issues reports whether keys of this prefix are issued here.
func (m *Manager) issues(prefix string) bool {
	return prefix == m.cfg.Prefix || slices.Contains(m.cfg.Prefixes, prefix)
}

func checkSubject(subject string, kind SubjectKind) error {
	if !kind.valid() {
		return fmt.Errorf("%w: subject kind %d", ErrInvalid, kind)
	}
	return checkText("subject", subject, 1, maxSubject)
}

// checkText never quotes what it refuses: a secret put into the wrong field
// must not come back in an error.
func checkText(what, text string, least, most int) error {
	if len(text) < least || len(text) > most {
		return fmt.Errorf("%w: %s of %d bytes, want %d to %d", ErrInvalid, what, len(text), least, most)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("%w: %s with control characters or broken UTF-8", ErrInvalid, what)
	}
	return nil
}

func normalTags(tags []string) ([]string, error) {
	if len(tags) > maxTags {
		return nil, fmt.Errorf("%w: %d tags, at most %d", ErrInvalid, len(tags), maxTags)
	}
	out := make([]string, 0, len(tags))
	for _, tag := range tags {
		if err := checkText("tag", tag, 1, maxTag); err != nil {
			return nil, err
		}
		if !slices.Contains(out, tag) {
			out = append(out, strings.Clone(tag))
		}
	}
	return out, nil
}

// A KeySpec prints without its IdempotencyKey, which opens the answer that the store
// keeps.

// Format writes s with the IdempotencyKey redacted, for every verb.
func (s KeySpec) Format(f fmt.State, verb rune) {
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), s.shown())
}

// String returns s with the IdempotencyKey redacted.
func (s KeySpec) String() string { return fmt.Sprintf("%+v", s.shown()) }

// MarshalText returns what String returns; XML uses it, and what else asks for text.
func (s KeySpec) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML returns s with the IdempotencyKey redacted.
func (s KeySpec) MarshalYAML() (any, error) { return s.shown(), nil }

// MarshalBinary fails, for the IdempotencyKey.
func (s KeySpec) MarshalBinary() ([]byte, error) { return nil, errNoBinary }

// MarshalJSON returns s with the IdempotencyKey redacted.
func (s KeySpec) MarshalJSON() ([]byte, error) { return json.Marshal(s.shown()) }

// LogValue returns s with the IdempotencyKey redacted.
func (s KeySpec) LogValue() slog.Value { return slog.AnyValue(s.shown()) }

func (s KeySpec) shown() any {
	type keySpec KeySpec // without its methods
	if s.IdempotencyKey != "" {
		s.IdempotencyKey = redacted
	}
	return keySpec(s)
}
