package fob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	"github.com/fobkit/fob/internal/rights"
)

// Key is a static API key as it was when it was read: who it identifies, what it grants,
// its state. It holds no secret. It implements [Credential], is immutable and safe for
// concurrent use. The zero Key is not a key; Keys come from a Manager.
type Key struct {
	state keystate.State
	allowed
	usage *Usage        // see Query.WithUsage
	asOf  *atomic.Int64 // Unix milliseconds; moves while the key is in the cache
}

// decodedKey is a key and what it points to, in one allocation.
type decodedKey struct {
	key    Key
	asOf   atomic.Int64
	scopes [4]Scope // enough for most keys
}

// decodeKey reads the record of a key, or fails with ErrCorrupt.
func (m *Manager) decodeKey(rec *backend.Record) (*Key, error) {
	made := new(decodedKey)
	k := &made.key
	if err := keystate.Decode(rec, &k.state); err != nil {
		return nil, err
	}
	made.finish(m.cfg.Roles)
	return k, nil
}

// keyOf is the key in a state, as of an instant in Unix milliseconds.
func (m *Manager) keyOf(s *keystate.State, asOf int64) *Key {
	made := new(decodedKey)
	made.key.state = *s
	made.finish(m.cfg.Roles)
	made.asOf.Store(asOf)
	return &made.key
}

// finish sets what follows from the state of the key.
func (d *decodedKey) finish(roles Roles) {
	k := &d.key
	k.asOf = &d.asOf
	k.scopes = roles.resolve(splitScopes(d.scopes[:0], k.state.Scopes), k.state.Roles)
	k.grants = k.state.Grants
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

func (k *Key) sealed() {}

// ID implements Credential.
func (k *Key) ID() ID { return ID(k.state.ID) }

// Kind returns KindKey.
func (k *Key) Kind() Kind { return KindKey }

// Subject implements Credential.
func (k *Key) Subject() Subject { return subjectOf(k.state.Owner) }

// Scopes implements Credential.
func (k *Key) Scopes() Scopes { return slices.Clone(k.scopes) }

// Grants implements Credential.
func (k *Key) Grants() Grants { return grantsOf(k.grants) }

// Roles returns a copy of the names of the key's roles. What they stand for now is in
// Scopes.
func (k *Key) Roles() []string { return slices.Clone(k.state.Roles) }

// Meta returns a copy of the application's own data (see [KeySpec]). It is for the service,
// not for the client.
func (k *Key) Meta() map[string]string { return maps.Clone(k.state.Meta) }

// Allows implements Credential. It allocates nothing.
func (k *Key) Allows(scope Scope) bool { return k.scopes.Allow(scope) }

// AllowsOn implements Credential. It allocates nothing.
func (k *Key) AllowsOn(action string, r Resource) bool { return k.allowsOn(action, r) }

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

// Parent is the key that the caller had within whom this one was issued (see
// [KeySpec.Within]): that key itself, or the key from which the caller's token came. It is
// zero if there was none.
func (k *Key) Parent() ID { return ID(k.state.Parent) }

// Usage returns how the key was used, if it was listed with [Query.WithUsage].
func (k *Key) Usage() (usage Usage, known bool) {
	if k.usage == nil {
		return Usage{}, false
	}
	return *k.usage, true
}

// Predecessor is the key that this one replaces; zero if it replaces none.
func (k *Key) Predecessor() ID { return ID(k.state.Predecessor) }

// AsOf implements Credential.
func (k *Key) AsOf() time.Time { return clock.Instant(k.asOf.Load()) }

// StatusAt implements Credential. A key whose subject or account was revoked or disabled
// has that status in Verify, Get and List.
func (k *Key) StatusAt(at time.Time) Status { return Status(k.state.At(clock.Clamp(at))) }

// String returns "key" and the ID, which are safe to log.
func (k Key) String() string { return "key " + ID(k.state.ID).String() }

// Format writes what String returns, for every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// size is the memory that the key takes, in bytes.
func (k *Key) size() int {
	n := int(unsafe.Sizeof(decodedKey{})) + len(k.state.Owner) + len(k.state.Prefix) + len(k.state.Name) + len(k.state.Reason) + len(k.state.Pepper) + len(k.state.ImportedHash)
	for _, list := range [...][]string{k.state.Tags, k.state.Roles} {
		for _, t := range list {
			n += 16 + len(t)
		}
	}
	for name, value := range k.state.Meta {
		n += 48 + len(name) + len(value)
	}
	return n + k.allowed.size()
}

// Get returns a key by its ID, read from the store, or ErrNotFound.
func (m *Manager) Get(ctx context.Context, id ID) (*Key, error) {
	if m.life.Closed() {
		return nil, ErrClosed
	}
	k, err := m.currentKey(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("fob: get: %w", err)
	}
	return k, nil
}

// currentKey reads a key from the store, in the status that its subject and account give it.
func (m *Manager) currentKey(ctx context.Context, id ID) (k *Key, err error) {
	// As in a verification, none of the records may change here between two reads: what was
	// on at two times need not have been on at one.
	for range maxMixed {
		ticket := m.keys.Begin()
		r := m.engine.Reading(true, m.engine.Now())
		rec, err := m.store.Get(ctx, backend.ID(id))
		if err != nil {
			return nil, errs.OfStore("read", err)
		}
		if k, err = m.withHolders(ctx, r, &rec); err != nil || !m.keys.Changed(ticket, keyRefs(&k.state)...) {
			return k, err
		}
	}
	return k, nil
}

// maxMixed bounds how often a key is read again because it changed meanwhile.
const maxMixed = 16

// withHolders decodes a key that was read in r, and gives it the status that follows from
// its subject and account. It ends r.
func (m *Manager) withHolders(ctx context.Context, r engine.Reading, rec *backend.Record) (*Key, error) {
	defer r.End()
	k, err := m.decodeKey(rec)
	if err != nil {
		return nil, err
	}
	refused, asOf, err := m.holdersRefuse(ctx, &r, &k.state)
	if err != nil {
		return nil, errs.OfStore("read subject", err)
	}
	switch {
	case errors.Is(refused, ErrRevoked):
		k.state.Status = keystate.Revoked
	case errors.Is(refused, ErrDisabled) && k.state.Status == keystate.Active:
		k.state.Status = keystate.Disabled
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
	Roles     *[]string
	Grants    *Grants
	Meta      *map[string]string // replaces all entries
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
	asOf := clock.Millis(m.now())
	before, k, changed, err := m.updateKey(ctx, id, u)
	event := Event{Type: EventUpdated, ID: id}
	if k != nil {
		after := m.keyOf(k, asOf)
		event.Subject, event.After = after.Subject(), after
	}
	if before != nil {
		event.Before = m.keyOf(before, asOf)
	}
	if changed || err != nil {
		m.observeOutcome(ctx, event, err)
	}
	if err != nil {
		return nil, fmt.Errorf("fob: update key: %w", err)
	}
	return event.After, nil
}

// keyFields are the checked fields of a KeySpec or a KeyUpdate.
type keyFields struct {
	scopes Scopes
	roles  []string
	grants []rights.Grant
	meta   map[string]string
	tags   []string
}

// checkFields checks and copies what specs and updates have in common.
func (m *Manager) checkFields(name string, scopes Scopes, roles []string, grants Grants, meta map[string]string, tags []string) (f keyFields, err error) {
	var errs [6]error
	errs[0] = limits.CheckText("name", name, 0, maxName)
	f.scopes, errs[1] = scopes.normal()
	f.roles, errs[2] = m.cfg.Roles.named(roles)
	f.grants, errs[3] = grants.normal()
	f.meta, errs[4] = limits.Meta(meta)
	f.tags, errs[5] = limits.Tags(tags)
	return f, cmp.Or(errs[:]...)
}

// given is what a pointer of an update points to; the zero value for nil.
func given[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func (m *Manager) updateKey(ctx context.Context, id ID, u KeyUpdate) (before, updated *keystate.State, changed bool, err error) {
	f, err := m.checkFields(given(u.Name), given(u.Scopes), given(u.Roles), given(u.Grants), given(u.Meta), given(u.Tags))
	if err != nil {
		return nil, nil, false, err
	}
	for what, at := range map[string]*time.Time{"NotBefore": u.NotBefore, "ExpiresAt": u.ExpiresAt} {
		if at != nil {
			if err := limits.CheckTime(what, *at); err != nil {
				return nil, nil, false, err
			}
		}
	}
	now := clock.Millis(m.now())
	updated, err = m.keystore.Edit(ctx, record.ID(id), func(k *keystate.State, unsure bool) (bool, error) {
		if err := m.notRevoked(ctx, k); err != nil {
			return false, err
		}
		was := *k
		if before == nil || !unsure {
			before = &was
		}
		if u.Name != nil {
			k.Name = strings.Clone(*u.Name)
		}
		if u.Scopes != nil {
			k.Scopes = f.scopes.String()
		}
		if u.Roles != nil {
			k.Roles = f.roles
		}
		if u.Grants != nil {
			k.Grants = f.grants
		}
		if u.Meta != nil {
			k.Meta = f.meta
		}
		if u.Tags != nil {
			k.Tags = f.tags
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
		differs := !k.Same(&was)
		changed = differs || unsure // a change found after an unknown outcome is ours
		// After an unknown outcome this very call may have raised the version: then nothing
		// is left to change, and there is no conflict.
		if u.IfVersion != 0 && k.Version != u.IfVersion && (differs || !unsure) {
			return false, fmt.Errorf("%w: at version %d", ErrConflict, k.Version)
		}
		return differs, nil
	})
	return before, updated, changed, err
}
