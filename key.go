package fob

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/limits"
	"github.com/fobkit/fob/internal/record"
)

// Key is a static API key as it was when it was read: who it identifies, what it grants,
// its state. It holds no secret. It implements [Credential], is immutable and safe for
// concurrent use. The zero Key is not a key; Keys come from a Manager.
type Key struct {
	state  keystate.State
	scopes Scopes // those of state

	asOf *atomic.Int64 // Unix milliseconds; moves while the key is in the cache
}

// decodedKey is a key and what it points to, in one allocation.
type decodedKey struct {
	key    Key
	asOf   atomic.Int64
	scopes [4]Scope // enough for most keys
}

// decodeKey reads the record of a key, or fails with ErrCorrupt.
func decodeKey(rec *backend.Record) (*Key, error) {
	made := new(decodedKey)
	k := &made.key
	k.asOf = &made.asOf
	if err := keystate.Decode(rec, &k.state); err != nil {
		return nil, err
	}
	if k.state.Scopes != "" {
		k.scopes = splitScopes(made.scopes[:0], k.state.Scopes)
	}
	return k, nil
}

// keyOf is the key in a state, as of an instant in Unix milliseconds.
func keyOf(s *keystate.State, asOf int64) *Key {
	made := new(decodedKey)
	k := &made.key
	k.state, k.scopes, k.asOf = *s, splitScopes(made.scopes[:0], s.Scopes), &made.asOf
	k.asOf.Store(asOf)
	return k
}

// splitScopes is the reverse of Scopes.String, for text that was checked. It fills the
// capacity of scopes if that is enough.
func splitScopes(scopes Scopes, text string) Scopes {
	if text == "" {
		return slices.Clip(scopes)
	}
	if n := strings.Count(text, " ") + 1; n > cap(scopes) {
		scopes = make(Scopes, 0, n)
	}
	for {
		i := strings.IndexByte(text, ' ')
		if i < 0 {
			scopes = append(scopes, Scope(text))
			return slices.Clip(scopes) // an append must not write into the array of scopes
		}
		scopes = append(scopes, Scope(text[:i]))
		text = text[i+1:]
	}
}

var _ Credential = (*Key)(nil)

// owner is the text of a subject and its kind by which stores list keys.
func owner(kind SubjectKind, subject string) string { return keystate.Owner(uint8(kind), subject) }

func subjectRecord(kind SubjectKind, subject string) record.ID {
	return keystate.SubjectRecord(owner(kind, subject))
}

func checkSubject(subject string, kind SubjectKind) error {
	if !kind.valid() {
		return fmt.Errorf("%w: subject kind %d", ErrInvalid, kind)
	}
	return limits.CheckText("subject", subject, 1, maxSubject)
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

// AllowsOn implements Credential, by the scopes of the key. It allocates nothing.
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

// Get returns a credential by its ID, read from the store, or ErrNotFound.
func (m *Manager) Get(ctx context.Context, id ID) (Credential, error) {
	if m.life.Closed() {
		return nil, ErrClosed
	}
	k, err := m.currentKey(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("fob: get: %w", err)
	}
	return k, nil
}

// currentKey reads a key from the store, and marks it as revoked if its subject was.
func (m *Manager) currentKey(ctx context.Context, id ID) (*Key, error) {
	r := m.engine.Reading(true, m.engine.Now())
	rec, err := m.store.Get(ctx, backend.ID(id))
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	return m.withSubject(ctx, r, &rec)
}

// withSubject decodes a key that was read in r, and marks it as revoked if its subject
// is. It ends r.
func (m *Manager) withSubject(ctx context.Context, r engine.Reading, rec *backend.Record) (*Key, error) {
	defer r.End()
	k, err := decodeKey(rec)
	if err != nil {
		return nil, err
	}
	state, asOf, err := m.subjectState(ctx, &r, k.state.SubjectRef)
	if err != nil {
		return nil, errs.OfStore("read subject", err)
	}
	if k.state.Epoch < state.epoch {
		k.state.Status = keystate.Revoked
	}
	k.asOf.Store(r.Now.Wall(min(r.Now.Mono, asOf)))
	return k, nil
}

// KeyUpdate says what to change of a key; nil fields stay as they are.
type KeyUpdate struct {
	// IfVersion is the version (Key.Version) that the key must still have, else the update
	// is ErrConflict. Zero means any version: if another change is made at the same time,
	// the fields set here win, and the other fields keep that change.
	IfVersion uint64

	Name      *string
	Scopes    *Scopes
	Tags      *[]string
	NotBefore *time.Time // the zero time removes it
	// ExpiresAt is the new expiry; the zero time removes it. The time from now to it is
	// the lifetime that a rotation gives the successor.
	ExpiresAt *time.Time
}

// UpdateKey changes a key by compare-and-set and returns the changed key. When it has
// returned, no [Manager.Verify] that starts later sees the old scopes or times, neither
// of the key nor of a token that the key was exchanged for. The error is ErrNotFound for
// an unknown ID, ErrRevoked if the key or its subject was revoked, and ErrInvalid for a
// wrong value.
func (m *Manager) UpdateKey(ctx context.Context, id ID, u KeyUpdate) (*Key, error) {
	event, asOf := Event{Type: EventUpdated, ID: id}, clock.Millis(m.now())
	k, changed, err := m.updateKey(ctx, id, u)
	if k != nil {
		event.Subject = k.Subject()
	}
	if changed || err != nil {
		m.observeOutcome(event, err)
	}
	if err != nil {
		return nil, fmt.Errorf("fob: update key: %w", err)
	}
	return keyOf(k, asOf), nil
}

func (m *Manager) updateKey(ctx context.Context, id ID, u KeyUpdate) (updated *keystate.State, changed bool, err error) {
	var scopes Scopes
	var tags []string
	if u.Scopes != nil {
		if scopes, err = u.Scopes.normal(); err != nil {
			return nil, false, err
		}
	}
	if u.Tags != nil {
		if tags, err = limits.Tags(*u.Tags); err != nil {
			return nil, false, err
		}
	}
	if u.Name != nil {
		if err := limits.CheckText("name", *u.Name, 0, maxName); err != nil {
			return nil, false, err
		}
	}
	for what, at := range map[string]*time.Time{"NotBefore": u.NotBefore, "ExpiresAt": u.ExpiresAt} {
		if at != nil {
			if err := limits.CheckTime(what, *at); err != nil {
				return nil, false, err
			}
		}
	}
	now := clock.Millis(m.now())
	updated, err = m.keystore.Edit(ctx, record.ID(id), func(k *keystate.State, unsure bool) (bool, error) {
		if err := m.notRevoked(ctx, k); err != nil {
			return false, err
		}
		before := *k
		if u.Name != nil {
			k.Name = strings.Clone(*u.Name)
		}
		if u.Scopes != nil {
			k.Scopes = scopes.String()
		}
		if u.Tags != nil {
			k.Tags = tags
		}
		if u.NotBefore != nil {
			k.NotBefore = clock.Millis(*u.NotBefore)
		}
		if u.ExpiresAt != nil && k.ExpiresAt != clock.Millis(*u.ExpiresAt) {
			k.ExpiresAt = clock.Millis(*u.ExpiresAt)
			k.Lifetime = 0
			if k.ExpiresAt != 0 {
				k.Lifetime = max(k.ExpiresAt-now, 1)
			}
		}
		if k.ExpiresAt != 0 && k.ExpiresAt <= k.NotBefore {
			return false, fmt.Errorf("%w: the key would never be valid", ErrInvalid)
		}
		differs := !k.Same(&before)
		changed = differs || unsure // a change found after an unknown outcome is ours
		// After an unknown outcome this very call may have raised the version: then nothing
		// is left to change, and there is no conflict.
		if u.IfVersion != 0 && k.Version != u.IfVersion && (differs || !unsure) {
			return false, fmt.Errorf("%w: at version %d", ErrConflict, k.Version)
		}
		return differs, nil
	})
	return updated, changed, err
}
