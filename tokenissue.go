package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/paseto"
)

// tokensReady is the start of every call about tokens.
func (m *Manager) tokensReady() error {
	switch {
	case m.closed.Load():
		return ErrClosed
	case m.tokens == nil:
		return fmt.Errorf("%w: Config.Tokens is not set", ErrInvalid)
	}
	return nil
}

// IssueToken makes an access token. It writes nothing to the store, unless the
// token is refreshable. A wrong spec is ErrInvalid.
func (m *Manager) IssueToken(ctx context.Context, spec TokenSpec) (Issued, error) {
	if err := m.tokensReady(); err != nil {
		return Issued{}, err
	}
	now := m.now()
	t, err := m.newToken(spec, now)
	if err != nil {
		return Issued{}, err
	}
	if t.epoch, _, err = m.readEpoch(ctx, t.subjectRef); err != nil {
		return Issued{}, storeError("fob: issue token", err)
	}
	return m.issueToken(ctx, t, spec.Refreshable, now)
}

// ExchangeKey verifies an API key and issues a token that allows no more than the
// key does, and for no longer: scopes and grants that the key lacks are ErrScope,
// and a TTL that outlasts the key is cut. Revoking or disabling the key ends the
// token at once. spec.Subject is "" or that of the key.
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
		return Issued{}, ErrMalformed // a token is no key to be exchanged
	}
	if spec.Subject != "" && spec.Subject != k.subject || spec.SubjectKind != 0 && spec.SubjectKind != k.subjectKind {
		return Issued{}, fmt.Errorf("%w: the subject of the token is that of the key", ErrInvalid)
	}
	spec.Subject, spec.SubjectKind = k.subject, k.subjectKind
	now := m.now()
	t, err := m.newToken(spec, now)
	if err != nil {
		return Issued{}, err
	}
	if !t.scopes.within(k.scopes) || !t.grants.within(k.scopes, nil) {
		return Issued{}, fmt.Errorf("%w: the key does not grant all of that", ErrScope)
	}
	t.parent, t.epoch = k.id, k.epoch
	if end := k.endsAt(); end != 0 {
		t.expiresAt = min(t.expiresAt, end/1000*1000)
	}
	if t.expiresAt <= t.notBefore {
		return Issued{}, fmt.Errorf("%w: the key ends before the token would begin", ErrInvalid)
	}
	return m.issueToken(ctx, t, spec.Refreshable, now)
}

// issueToken seals a token that is complete but for its ID.
func (m *Manager) issueToken(ctx context.Context, t *Token, refreshable bool, now time.Time) (Issued, error) {
	if refreshable {
		return m.beginFamily(ctx, t, now)
	}
	return m.sealToken(ctx, t, now)
}

// sealToken gives a token its ID and seals it with the active key. What it
// returns was read from the sealed claims, so that nobody else holds a part of it.
func (m *Manager) sealToken(ctx context.Context, t *Token, now time.Time) (Issued, error) {
	cut, err := m.readMark(ctx, m.issuerMark())
	if err != nil {
		return Issued{}, storeError("fob: issue token", err)
	}
	if t.issuedAt < cut.before {
		// Tokens carry whole seconds: this one would count as issued before.
		return Issued{}, fmt.Errorf("%w: tokens were revoked in this second; issue again in the next", ErrConflict)
	}
	r, err := m.currentRing(ctx)
	if err != nil {
		return Issued{}, err
	}
	key := r.active(millis(now))
	if key == nil { // nothing that the caller has presented is bad
		return Issued{}, fmt.Errorf("fob: issue token: %w", unclassified(ErrTokenKey))
	}
	t.id = ID(keytext.NewID(now))
	payload, err := t.payload()
	if err != nil {
		return Issued{}, err
	}
	text, err := key.sealer.Seal(string(payload), footerOf(key.id), "")
	if err != nil {
		return Issued{}, fmt.Errorf("fob: issue token: %w", err)
	}
	sealed, err := decodeToken(payload, key.id)
	if err != nil || !sealed.grantsAs(t) {
		return Issued{}, fmt.Errorf("%w: claims that are not read as they were meant", ErrInvalid)
	}
	return Issued{Access: newSecret(text), Token: sealed}, nil
}

// reopen reads a token of our own.
func (m *Manager) reopen(ctx context.Context, text string) (*Token, error) {
	parsed, err := paseto.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: sealed answer", ErrCorrupt)
	}
	id := kid(parsed.Footer())
	key, err := m.findKey(ctx, id, m.clock.now())
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, ErrTokenKey
	}
	payload, err := key.opener.Open(parsed, "")
	if errors.Is(err, paseto.ErrUnavailable) {
		return nil, fmt.Errorf("fob: refresh: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: sealed answer", ErrCorrupt)
	}
	return decodeToken(payload, id)
}

// RevokeTokens ends every token that this issuer issued before an instant, in one
// write: all so far, if it is zero or in the future. Tokens carry whole seconds,
// so one issued in the second of the instant is ended too, and none is issued
// until that second is over (ErrConflict). What was begun before cannot be refreshed
// any more. Keys go on, and can be exchanged for new tokens. When it has returned
// nil, the same holds as for Revoke.
func (m *Manager) RevokeTokens(ctx context.Context, issuedBefore time.Time, reason RevokeReason) (Receipt, error) {
	if err := m.tokensReady(); err != nil {
		return Receipt{}, err
	}
	now := m.now()
	if issuedBefore.IsZero() || issuedBefore.After(now) {
		issuedBefore = now.Add(1) // this very instant included
	}
	before := millis(issuedBefore.Add(time.Second - 1).Truncate(time.Second))
	reason = reason.clean()
	already, err := m.putMark(ctx, m.issuerMark(), before, 0, reason)
	m.observeOutcome(Event{Type: EventTokensRevoked, Reason: reason}, err)
	m.noteRevoked(recentRevocation{before: before, rev: Revocation{Reason: reason}}, err)
	if err != nil {
		return Receipt{}, fmt.Errorf("fob: revoke tokens: %w", err)
	}
	return m.receipt(ctx, already), nil
}

// putMark writes a mark that ends what was issued before an instant, unless one
// stands there that ends as much.
func (m *Manager) putMark(ctx context.Context, ref recordID, before, purgeAt int64, reason RevokeReason) (already bool, err error) {
	unsure := false
	for range writeTries {
		rec := backend.Record{ID: ref, Kind: recordMark, Created: millis(m.now()), PurgeAt: purgeAt}
		cond := backend.IfAbsent()
		found, err := m.store.Get(ctx, ref)
		switch {
		case errors.Is(err, backend.ErrNotFound):
		case err != nil:
			return false, settle(unsure, storeError("read", err))
		default:
			old, err := decodeMark(&found)
			if err != nil {
				return false, settle(unsure, err)
			}
			if old.before >= before {
				m.marks.raise(ref, old)
				m.forget(ref)
				return true, nil
			}
			rec.Created, cond = found.Created, backend.IfVersion(found.Version)
		}
		w := newBody()
		w.text(fieldReason, string(reason))
		w.number(fieldBefore, uint64(before))
		w.seal(&rec)
		_, err = m.replace(ctx, rec, cond)
		if err == nil {
			m.marks.raise(ref, mark{before: before, reason: reason})
			m.forget(ref)
			return false, nil
		}
		unsure = unsure || errors.Is(err, ErrIndeterminate)
		if !errors.Is(err, ErrConflict) || ctx.Err() != nil {
			return false, settle(unsure, err)
		}
	}
	return false, settle(unsure, ErrConflict)
}

// revokeToken is Revoke for an ID that is no key's: of a family, or of a token. A
// token leaves no record, so an ID young enough to be a token's is taken for one.
func (m *Manager) revokeToken(ctx context.Context, id ID, reason RevokeReason) (already bool, err error) {
	now := m.now()
	family, err := m.endFamily(ctx, id, reason)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return family, err
	}
	drawn := keytext.IDTime(id)
	if now.Sub(drawn) > m.cfg.Tokens.MaxTTL+m.cfg.Tokens.Leeway+time.Second || drawn.Sub(now) > time.Minute {
		return false, ErrNotFound
	}
	return m.putMark(ctx, markOf("token", id), forever, m.markEnd(now), reason)
}

// markEnd is when everything that a mark of now ends has expired.
func (m *Manager) markEnd(now time.Time) int64 {
	return millis(now.Add(m.cfg.Tokens.MaxTTL + 2*m.cfg.Tokens.Leeway + time.Minute))
}
