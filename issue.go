package fob

import (
	"context"
	"fmt"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/idempotency"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/record"
)

// IssueKey makes a key and returns its secret, which is shown this once, and
// the key. The key is durable when IssueKey returns (as durable as the store
// is). A wrong spec is ErrInvalid.
//
// If it fails with ErrIndeterminate, a key whose secret nobody has may exist; it
// can be found by List and harms nothing. Issue again.
func (m *Manager) IssueKey(ctx context.Context, spec KeySpec) (Secret, *Key, error) {
	if m.life.Closed() {
		return Secret{}, nil, ErrClosed
	}
	now := m.now()
	k, err := m.newKey(spec, now)
	if err != nil {
		return Secret{}, nil, err
	}
	if k.Epoch, err = m.marks.ReadEpoch(ctx, k.SubjectRef); err != nil {
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
		return Secret{}, nil, fmt.Errorf("fob: issue key: %w", err)
	}
	return newSecret(text), m.issuedKey(k, now), nil
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
	block := keytext.Block(text)
	m.digest(k, block[:])
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
		Subject:       spec.Subject,
		Name:          spec.Name,
		SubjectKind:   uint8(max(spec.SubjectKind, SubjectApplication)),
		Scopes:        spec.Scopes.String(),
		Tags:          spec.Tags,
		NotBefore:     clock.Millis(spec.NotBefore),
		ExpiresAt:     clock.Millis(spec.ExpiresAt),
		TTL:           spec.TTL,
		DefaultPrefix: spec.Prefix == "",
	}
	text, created, err := issuer.Issue(ctx, spec.IdempotencyKey, request, k, now.UnixMilli())
	switch {
	case err != nil:
		return Secret{}, nil, err
	case created:
		found = m.issuedKey(k, now)
	}
	return newSecret(text), found, nil
}

// issuedKey reports that a key was issued, and returns it.
func (m *Manager) issuedKey(k *keystate.State, now time.Time) *Key {
	m.observe(Event{Type: EventIssued, ID: ID(k.ID), Subject: k.Subject()})
	return keyOf(k, clock.Millis(now))
}
