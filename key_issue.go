package fob

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/idempotency"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/limits"
	"github.com/fobkit/fob/internal/record"
)

// KeySpec says what key to issue. Only Subject is required.
type KeySpec struct {
	// Subject is who the key is for.
	Subject Subject
	// Name is a label for people, up to 128 bytes.
	Name string
	// Scopes are the granted scopes, at most 64, and Grants what is granted on single
	// resources. None grants nothing: the key identifies its subject and no more. ScopeAll
	// grants everything.
	Scopes Scopes
	Grants Grants
	// Roles are names in Config.Roles, at most 16. The key has the scopes that a role has
	// when the key is verified.
	Roles []string
	// Meta is the application's own data: up to 32 entries and 4 KiB of UTF-8. It comes back
	// from [Manager.Verify] ([Key.Meta]), and is sent to no client by this package.
	Meta map[string]string
	// Tags are labels to list by, at most 16 of up to 64 bytes.
	Tags []string
	// NotBefore is the first instant at which the key is accepted; zero: at once.
	NotBefore time.Time
	// ExpiresAt is the first instant at which the key is no longer accepted; zero: it does
	// not expire. TTL is the same as a duration from now; set at most one.
	ExpiresAt time.Time
	TTL       time.Duration
	// Within, if set, is the caller's own credential: what it does not itself allow now is
	// refused with ErrScope, as is a key that would end later than it, and, if it is of an
	// account, a subject of another one. A key of which no end is asked for ends with it. The
	// key remembers which key the caller had ([Key.Parent]). It is no bound for later: that
	// the caller's credential ends does not end the key.
	Within Credential
	// Outlast lets the key end later than Within, by the explicit choice of the application:
	// for a user who has logged in with a token of some minutes, and makes a key that stays.
	Outlast bool
	// Prefix is one of Config.Prefixes; "" means Config.Prefix.
	Prefix string
	// IdempotencyKey, if set, makes IssueKey repeatable: the same key and spec within
	// Config.IdempotencyWindow return the same secret. It must be unpredictable, 16 to 256
	// bytes (a random UUID, say), because it encrypts the secret that the store keeps
	// meanwhile. A repeat returns the key in its present state, which may be revoked or
	// expired, and does not change that. The record of the key is kept until a day after
	// the window, whatever Config.Retention says.
	IdempotencyKey string
}

// The limits of a spec's texts, in bytes.
const (
	maxName   = 128
	maxReason = 256
)

// IssueKey makes a key and returns its secret, which is shown this once, and
// the key. The key is durable when IssueKey returns (as durable as the store
// is). A wrong spec is ErrInvalid. A key of a subject or an account that is disabled can be
// issued; it is refused until that is enabled.
//
// If it fails with ErrIndeterminate, a key may exist whose secret nobody has.
// [Manager.List] can find it, and it harms nothing. Issue again.
func (m *Manager) IssueKey(ctx context.Context, spec KeySpec) (Secret, *Key, error) {
	if m.life.Closed() {
		return Secret{}, nil, ErrClosed
	}
	now := m.now()
	k, err := m.newKey(spec, now)
	if err != nil {
		return Secret{}, nil, err
	}
	if k.Epoch, k.AccountEpoch, err = m.stamp(ctx, k.SubjectRef, k.AccountRef); err != nil {
		return Secret{}, nil, errs.OfStore("fob: issue key", err)
	}
	if err := m.peppers.Vouch(ctx); err != nil {
		return Secret{}, nil, fmt.Errorf("fob: issue key: %w", err)
	}
	if spec.IdempotencyKey != "" {
		return m.issueOnce(ctx, spec, k, now)
	}
	text := m.drawSecret(k, now)
	if err := m.keystore.Add(ctx, k); err != nil {
		m.issuedKey(ctx, k, now, err)
		return Secret{}, nil, fmt.Errorf("fob: issue key: %w", err)
	}
	return newSecret(text), m.issuedKey(ctx, k, now, nil), nil
}

// newKey checks a spec and makes the key it describes, without ID and digest.
func (m *Manager) newKey(spec KeySpec, now time.Time) (*keystate.State, error) {
	if err := spec.Subject.check(); err != nil {
		return nil, err
	}
	prefix := spec.Prefix
	if prefix == "" {
		prefix = m.cfg.Prefix
	}
	if !m.issues(prefix) {
		return nil, fmt.Errorf("%w: a prefix of %d bytes that is not in Config.Prefixes", ErrInvalid, len(spec.Prefix))
	}
	f, err := m.checkFields(spec.Name, spec.Scopes, spec.Roles, spec.Grants, spec.Meta, spec.Tags)
	if err != nil {
		return nil, err
	}
	if !spec.ExpiresAt.IsZero() && spec.TTL != 0 {
		return nil, fmt.Errorf("%w: both ExpiresAt and TTL", ErrInvalid)
	}
	if err := errors.Join(limits.CheckTime("NotBefore", spec.NotBefore), limits.CheckTime("ExpiresAt", spec.ExpiresAt)); err != nil {
		return nil, err
	}
	expires := spec.ExpiresAt
	if spec.TTL != 0 {
		expires = now.Add(spec.TTL)
	}
	k := &keystate.State{
		Prefix:    strings.Clone(prefix),
		Name:      strings.Clone(spec.Name),
		Scopes:    f.scopes.String(),
		Roles:     f.roles,
		Grants:    f.grants,
		Meta:      f.meta,
		Tags:      f.tags,
		IssuedAt:  clock.Millis(now),
		NotBefore: clock.Millis(spec.NotBefore),
		ExpiresAt: clock.Millis(expires),
		Status:    keystate.Active,
	}
	k.SetOwner(uint8(spec.Subject.Kind), string(spec.Subject.Account), spec.Subject.Name)
	if err := m.checkWithin(&spec, k, now); err != nil {
		return nil, err
	}
	if k.ExpiresAt != 0 {
		if k.ExpiresAt <= k.IssuedAt || k.ExpiresAt <= k.NotBefore {
			return nil, fmt.Errorf("%w: the key would never be valid", ErrInvalid)
		}
		k.Lifetime = k.ExpiresAt - k.IssuedAt
	}
	return k, nil
}

// checkWithin holds a new key against the caller's credential, if there is one.
func (m *Manager) checkWithin(spec *KeySpec, k *keystate.State, now time.Time) error {
	caller := spec.Within
	if caller == nil {
		if spec.Outlast {
			return fmt.Errorf("%w: Outlast without Within", ErrInvalid)
		}
		return nil
	}
	if guard.Missing(caller) {
		return fmt.Errorf("%w: Within is a nil credential", ErrInvalid)
	}
	if status := caller.StatusAt(now); status != StatusActive {
		return fmt.Errorf("%w: the caller's credential is %s", ErrScope, status)
	}
	if account := caller.Subject().Account; account != "" && account != spec.Subject.Account {
		return fmt.Errorf("%w: the caller is of another account", ErrScope)
	}
	asked := m.keyOf(k, 0).allowed
	if !within(&asked, caller.Allows, caller.AllowsOn) {
		return fmt.Errorf("%w: the caller's credential does not grant all of that", ErrScope)
	}
	if end := caller.ExpiresAt(); !end.IsZero() && !spec.Outlast {
		switch ends := clock.Millis(end); {
		case k.ExpiresAt == 0:
			k.ExpiresAt = ends
		case k.ExpiresAt > ends:
			return fmt.Errorf("%w: the key would end later than the caller's credential", ErrScope)
		}
	}
	switch c := caller.(type) {
	case *Key:
		k.Parent = c.state.ID
	case *Token:
		k.Parent = record.ID(c.parent)
	}
	return nil
}

// issues reports whether keys of this prefix are issued here.
func (m *Manager) issues(prefix string) bool {
	return prefix == m.cfg.Prefix || slices.Contains(m.cfg.Prefixes, prefix)
}

// drawSecret gives k an ID, draws its secret and stores the digest in k.
func (m *Manager) drawSecret(k *keystate.State, now time.Time) string {
	k.ID = keytext.NewID(now)
	text := keytext.Format(k.Prefix, k.ID, keytext.NewSecret())
	m.digestText(k, text)
	return text
}

// digestText stores the digest of a key's own text in k.
func (m *Manager) digestText(k *keystate.State, text string) {
	m.digest(k, nativeSecret(text))
}

// issueOnce is IssueKey with an idempotency key.
func (m *Manager) issueOnce(ctx context.Context, spec KeySpec, k *keystate.State, now time.Time) (Secret, *Key, error) {
	var found *Key
	issuer := idempotency.Issuer{
		Keys:            m.keystore,
		Peppers:         m.peppers,
		Window:          m.cfg.IdempotencyWindow,
		RetiredPrefixes: m.cfg.RetiredPrefixes,
		Draw:            func(k *keystate.State) string { return m.drawSecret(k, now) },
		Digest:          m.digestText,
		Find: func(ctx context.Context, id record.ID) (err error) {
			found, err = m.currentKey(ctx, ID(id))
			return err
		},
	}
	request := idempotency.Request{
		Subject:       spec.Subject.Name,
		Name:          spec.Name,
		SubjectKind:   uint8(spec.Subject.Kind),
		Scopes:        spec.Scopes.String(),
		More:          k.Beyond(),
		Tags:          spec.Tags,
		NotBefore:     clock.Millis(spec.NotBefore),
		ExpiresAt:     clock.Millis(spec.ExpiresAt),
		TTL:           spec.TTL,
		DefaultPrefix: spec.Prefix == "",
	}
	text, created, err := issuer.Issue(ctx, spec.IdempotencyKey, request, k, now.UnixMilli())
	switch {
	case err != nil:
		m.issuedKey(ctx, k, now, err)
		return Secret{}, nil, err
	case created:
		found = m.issuedKey(ctx, k, now, nil)
	}
	return newSecret(text), found, nil
}

// issuedKey reports that a key was issued, or may have been, and returns it.
func (m *Manager) issuedKey(ctx context.Context, k *keystate.State, now time.Time, err error) *Key {
	key := m.keyOf(k, clock.Millis(now))
	m.observeOutcome(ctx, Event{Type: EventIssued, ID: key.ID(), Subject: key.Subject(), After: key}, err)
	return key
}

// The printed forms of a KeySpec leave out its IdempotencyKey, which decrypts the secret
// that the store keeps.

// Format writes s with the IdempotencyKey redacted, for every verb.
func (s KeySpec) Format(f fmt.State, verb rune) {
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), s.shown())
}

// String returns s with the IdempotencyKey redacted.
func (s KeySpec) String() string { return fmt.Sprintf("%+v", s.shown()) }

// MarshalText returns what String returns, for XML and other encodings that use text.
func (s KeySpec) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// MarshalYAML returns s with the IdempotencyKey redacted.
func (s KeySpec) MarshalYAML() (any, error) { return s.shown(), nil }

// MarshalBinary fails, because it would write the IdempotencyKey.
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
