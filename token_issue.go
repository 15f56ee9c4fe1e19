package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/tokenring"
)

// tokensReady is the first check of every call about tokens.
func (m *Manager) tokensReady() error {
	switch {
	case m.life.Closed():
		return ErrClosed
	case m.tokens == nil:
		return fmt.Errorf("%w: Config.Tokens is not set", ErrInvalid)
	}
	return nil
}

// IssueToken makes an access token. It writes nothing to the store, unless the token is
// refreshable. A wrong spec is ErrInvalid, a subject that is disabled, or whose account is,
// ErrDisabled.
func (m *Manager) IssueToken(ctx context.Context, spec TokenSpec) (Issued, error) {
	if err := m.tokensReady(); err != nil {
		return Issued{}, err
	}
	now := m.now()
	t, err := m.newToken(spec, now)
	if err != nil {
		return Issued{}, err
	}
	h, err := m.marks.ReadHolders(ctx, t.subjectRef, t.accountRef)
	if err != nil {
		return Issued{}, errs.OfStore("fob: issue token", err)
	}
	t.epoch, t.accountEpoch = h.Subject.Epoch, h.Account.Epoch
	if err := h.Refused(t.epoch, t.accountEpoch); err != nil {
		return Issued{}, fmt.Errorf("fob: issue token: %w", err)
	}
	issued, err := m.issueToken(ctx, t, t.expiresAt-t.issuedAt, nil, &spec, now)
	event := Event{Type: EventIssued, Subject: t.subject, Token: issued.Token}
	if err == nil {
		event.ID, event.Other = issued.Token.id, issued.Token.family
	}
	m.observeOutcome(ctx, event, err)
	return issued, err
}

// ExchangeKey verifies an API key and issues a token that allows no more than the key
// does, and for no longer: scopes and grants that the key lacks are ErrScope, and a TTL
// that outlasts the key is cut. spec.Subject is zero or that of the key.
//
// Later, each verification of the token goes by the key as it is then. If the key is
// revoked or disabled, the token ends at once. The token loses the rights that the key
// loses by [Manager.UpdateKey], and has them again when the key gets them back, as far as
// its claims go. Scopes, Grants and the times of the Token that Verify returns show the
// result.
func (m *Manager) ExchangeKey(ctx context.Context, presented string, spec TokenSpec) (Issued, error) {
	if err := m.tokensReady(); err != nil {
		return Issued{}, err
	}
	cred, err := m.Verify(ctx, presented)
	if err != nil {
		return Issued{}, err
	}
	k, ok := cred.(*Key)
	if !ok {
		return Issued{}, ErrMalformed // a token cannot be exchanged
	}
	if spec.Subject != (Subject{}) && spec.Subject != k.Subject() {
		return Issued{}, fmt.Errorf("%w: the subject of the token is that of the key", ErrInvalid)
	}
	spec.Subject = k.Subject()
	now := m.now()
	t, err := m.newToken(spec, now)
	if err != nil {
		return Issued{}, err
	}
	if !k.covers(&t.allowed) {
		return Issued{}, fmt.Errorf("%w: the key does not grant all of that", ErrScope)
	}
	t.parent, t.epoch, t.accountEpoch = ID(k.state.ID), k.state.Epoch, k.state.AccountEpoch
	ttl := t.expiresAt - t.issuedAt // what was asked for, even if the key ends sooner
	if end := k.state.EndsAt(); end != 0 {
		t.expiresAt = min(t.expiresAt, end/1000*1000)
	}
	if t.expiresAt <= t.notBefore {
		return Issued{}, fmt.Errorf("%w: the key ends before the token would begin", ErrInvalid)
	}
	issued, err := m.issueToken(ctx, t, ttl, k, &spec, now)
	event := Event{Type: EventExchanged, ID: k.ID(), Subject: t.subject, Token: issued.Token}
	if err == nil {
		event.Other = issued.Token.id
	}
	m.observeOutcome(ctx, event, err)
	return issued, err
}

// issueToken seals a token that has no ID yet. ttl and k are as for beginFamily.
func (m *Manager) issueToken(ctx context.Context, t *Token, ttl int64, k *Key, spec *TokenSpec, now time.Time) (Issued, error) {
	if spec.Refreshable {
		return m.beginFamily(ctx, t, ttl, k, spec.Label, now)
	}
	return m.sealToken(ctx, t, now)
}

// sealToken gives a token its ID and seals it with the active key. The Token that it
// returns was read from the sealed claims, so that it shares no memory with the spec.
func (m *Manager) sealToken(ctx context.Context, t *Token, now time.Time) (Issued, error) {
	issuer, _, err := m.marks.Read(ctx, m.issuerMark())
	if err != nil {
		return Issued{}, errs.OfStore("fob: issue token", err)
	}
	t.issuerEpoch = issuer.Epoch
	if err := m.fleet.AnnounceTTL(ctx, clock.MillisOf(t.expiresAt-t.issuedAt)); err != nil {
		return Issued{}, fmt.Errorf("fob: issue token: %w", err)
	}
	r, err := m.currentRing(ctx)
	if err != nil {
		return Issued{}, err
	}
	key := r.Active(clock.Millis(now))
	if key == nil { // no rejection: the caller has presented nothing bad
		return Issued{}, fmt.Errorf("fob: issue token: %w", errs.Unclassified(errs.ErrTokenKey))
	}
	t.id = ID(keytext.NewID(now))
	payload, err := t.payload()
	if err != nil {
		return Issued{}, err
	}
	text, err := key.Sealer.Seal(string(payload), tokenring.Footer(key.ID), "")
	if err != nil {
		return Issued{}, fmt.Errorf("fob: issue token: %w", err)
	}
	sealed, err := decodeToken(payload, key.ID, m.cfg.Roles)
	if err != nil || !sealed.grantsAs(t) {
		return Issued{}, fmt.Errorf("%w: claims that are not read as they were meant", ErrInvalid)
	}
	return Issued{Access: newSecret(text), Token: sealed}, nil
}

// reopen reads an access token that was stored for a repeated refresh.
func (m *Manager) reopen(ctx context.Context, text string) (*Token, error) {
	parsed, err := paseto.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: sealed answer", ErrCorrupt)
	}
	id := tokenring.KeyID(parsed.Footer())
	key, err := m.tokens.Find(ctx, id, m.clock.Now())
	if err != nil {
		return nil, err
	}
	if key == nil {
		// No rejection, because the refresh secret is good.
		return nil, fmt.Errorf("fob: refresh: %w", errs.Unclassified(errs.ErrTokenKey))
	}
	payload, err := key.Opener.Open(parsed, "")
	if errors.Is(err, paseto.ErrUnavailable) {
		return nil, fmt.Errorf("fob: refresh: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: sealed answer", ErrCorrupt)
	}
	return decodeToken(payload, id, m.cfg.Roles)
}

// revokeToken is Revoke for the ID of a session or of a token.
func (m *Manager) revokeToken(ctx context.Context, id ID, reason RevokeReason) (already bool, of Subject, err error) {
	already, of, err = m.endFamily(ctx, id, reason)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return already, of, err
	}
	now, longest := m.now(), m.fleet.LongestTTL(ctx)
	if !m.mayBeToken(id, longest, now) {
		return false, Subject{}, ErrNotFound
	}
	already, err = m.marks.End(ctx, markOf("token", id), m.markEnd(longest, now), string(reason))
	return already, Subject{}, err
}

// markEnd is when everything that a mark made now revokes has expired by every clock, if
// no token lives longer than longest.
func (m *Manager) markEnd(longest time.Duration, now time.Time) int64 {
	return m.marksOver(clock.Millis(now.Add(longest)))
}

// marksOver is when tokens that expire at an instant have expired by every clock.
func (m *Manager) marksOver(expired int64) int64 {
	return expired + (2*m.cfg.Tokens.late() + clock.PurgeMargin).Milliseconds()
}
