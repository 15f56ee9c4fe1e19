package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// beginFamily issues a token with a refresh secret. ttl is what was asked for, in
// milliseconds, whatever is left of the key k, which is nil for a token of none.
func (m *Manager) beginFamily(ctx context.Context, t *Token, ttl int64, k *Key, now time.Time) (Issued, error) {
	t.family = ID(keytext.NewID(now))
	issued, err := m.sealToken(ctx, t, now)
	if err != nil {
		return Issued{}, err
	}
	// What begins later is used later, too.
	starts := max(clock.Millis(now), t.notBefore)
	f := &family{
		id: t.family, spec: issued.Token, begun: clock.Millis(now), ttl: ttl, tagKey: newTagKey(),
		ends: starts + m.cfg.Tokens.RefreshTTL.Milliseconds(), idleUntil: starts + m.cfg.Tokens.RefreshIdle.Milliseconds(),
	}
	secret, _ := f.drawSecret()
	f.current = refreshDigest(secret)
	rec, err := m.encodeFamily(f)
	if err != nil {
		return Issued{}, err
	}
	if _, err := m.records.Create(ctx, rec); err != nil {
		return Issued{}, fmt.Errorf("fob: issue token: %w", err)
	}
	return f.issued(issued, secret, k), nil
}

// issued completes what is handed out while the family's key is as k is.
func (f *family) issued(i Issued, secret string, k *Key) Issued {
	i.Refresh, i.RefreshExpiresAt = newSecret(secret), clock.Instant(min(f.endsWith(k), f.idleUntil))
	if k != nil {
		i.Token = i.Token.under(k)
	}
	return i
}

// endsWith is when the family ends while its key is as k is.
func (f *family) endsWith(k *Key) int64 {
	if k == nil || k.endsAt() == 0 {
		return f.ends
	}
	return min(f.ends, k.endsAt())
}

// Refresh exchanges a refresh secret for a new access token and the next refresh
// secret (RFC 6749 §6, with rotation as RFC 9700 §4.14.2 asks for it). A secret is
// good for one use. Presented again within TokenConfig.RefreshGrace of its use it gets
// the newest pair of its family, for a client that lost its answer or has several tabs
// with one session; presented later, however much later and whatever came after it, it
// is taken for stolen: the family is revoked, with every access token of it, and the
// answer is ErrReplayed. That goes on although the caller leaves.
//
// Errors are in the two classes of Verify. A family that is over is ErrExpired,
// one that was revoked ErrRevoked; so is one whose key or subject was. What its key lost
// the refreshed token cannot have (see Manager.ExchangeKey), and it does not begin
// before the first was to begin. A refresh counts as a use of the key.
func (m *Manager) Refresh(ctx context.Context, presented string) (Issued, error) {
	if err := m.tokensReady(); err != nil {
		return Issued{}, err
	}
	prefix, problem := keytext.Split(presented)
	if problem == keytext.OK && prefix != refreshPrefix {
		problem = keytext.Prefix
	}
	if problem == keytext.OK {
		problem = keytext.Check(presented)
	}
	if problem != keytext.OK {
		return Issued{}, malformed(problem)
	}
	block := keytext.Block(presented)
	id, digest := ID(block[1:1+keytext.IDLen]), refreshDigest(presented)
	began := m.now() // when it was presented counts, however late the store answers
	var issued Issued
	err := retry.Do(ctx, func(bool) (err error) {
		issued, err = m.refresh(ctx, id, presented, digest, began)
		return retry.Raced(err)
	})
	if err != nil {
		return Issued{}, err
	}
	return issued, nil
}

func (m *Manager) refresh(ctx context.Context, id ID, presented string, digest Digest, began time.Time) (Issued, error) {
	rec, err := m.store.Get(ctx, familyRecord(id))
	if err != nil {
		return Issued{}, errs.OfCheck(err)
	}
	f, err := m.decodeFamily(&rec)
	if err != nil {
		return Issued{}, fmt.Errorf("fob: refresh: %w", err)
	}
	now := m.now()
	switch {
	case f.current.Equal(digest):
		return m.advance(ctx, f, presented, now)
	case !f.issuedOnce(presented):
		return Issued{}, ErrUnknown
	case f.ended:
		return Issued{}, m.familyEnded(ctx, id)
	}
	if at := f.linkOf(digest, clock.Millis(began)); at >= 0 {
		return m.answerAgain(ctx, f, presented, at, now)
	}
	// Whoever presents this is not the one who has the next secret, or lost it.
	const replayed RevokeReason = "refresh secret replayed"
	err = m.life.Protect(ctx, func(ctx context.Context) error {
		_, err := m.endFamily(ctx, id, replayed)
		return err
	})
	m.noteRevoked(recentRevocation{rev: Revocation{ID: id, Reason: replayed}, token: true}, err)
	if err != nil {
		return Issued{}, fmt.Errorf("fob: refresh: %w", err)
	}
	return Issued{}, ErrReplayed
}

// familyKey returns the key of a family as it is now, nil if it came from none, or the
// reason why the family cannot be refreshed.
func (m *Manager) familyKey(ctx context.Context, f *family, now time.Time) (*Key, error) {
	ms := clock.Millis(now)
	switch {
	case f.ended:
		return nil, m.familyEnded(ctx, f.id)
	case ms >= f.ends || ms >= f.idleUntil:
		return nil, ErrExpired
	}
	// From the store, whatever the marks say: a refresh is rare and reaches far.
	for _, ref := range []record.ID{markOf("family", f.id), m.issuerMark()} {
		found, err := m.readMark(ctx, ref)
		if err != nil {
			return nil, errs.OfCheck(err)
		}
		f.stamp = found.Epoch // the issuer's comes last
		if found.EndsToken(f.spec.issuerEpoch, f.begun) {
			return nil, ErrRevoked
		}
	}
	epoch, _, err := m.readEpoch(ctx, f.spec.subjectRef)
	if err != nil {
		return nil, errs.OfCheck(err)
	}
	if f.spec.epoch < epoch {
		return nil, ErrRevoked
	}
	if f.spec.parent.IsZero() {
		return nil, nil // it has none
	}
	k, err := m.readKey(ctx, f.spec.parent)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrUnknown
	}
	if err != nil {
		return nil, err
	}
	if epoch, _, err = m.readEpoch(ctx, k.subjectRef); err != nil {
		return nil, errs.OfCheck(err)
	}
	if k.epoch < epoch {
		return nil, ErrRevoked
	}
	return k, k.refusal(ms)
}

// familyEnded says that a family was revoked, perhaps elsewhere: the mark that ends its
// access tokens is read, so that after this none of them is good here either.
func (m *Manager) familyEnded(ctx context.Context, id ID) error {
	if _, err := m.readMark(ctx, markOf("family", id)); err != nil {
		return errs.OfCheck(err)
	}
	return ErrRevoked
}

// advance uses the current secret of a family.
func (m *Manager) advance(ctx context.Context, f *family, presented string, now time.Time) (Issued, error) {
	k, err := m.familyKey(ctx, f, now)
	if err != nil {
		return Issued{}, err
	}
	t := *f.spec
	t.issuedAt = now.Truncate(time.Second).UnixMilli()
	t.notBefore = max(t.issuedAt, f.spec.notBefore)
	t.expiresAt = min(t.notBefore+f.ttl, t.issuedAt+m.cfg.Tokens.MaxTTL.Truncate(time.Second).Milliseconds(), f.endsWith(k)/1000*1000)
	if t.expiresAt <= t.notBefore {
		return Issued{}, ErrExpired
	}
	issued, err := m.sealRefreshed(ctx, &t, k, now)
	if err != nil {
		return Issued{}, err
	}
	if issued.Token.issuerEpoch != f.stamp {
		// RevokeTokens came between: what was looked at is no longer so.
		return Issued{}, fmt.Errorf("fob: refresh: %w", ErrConflict)
	}
	next, random := f.drawSecret()
	f.idleUntil = max(clock.Millis(now), t.notBefore) + m.cfg.Tokens.RefreshIdle.Milliseconds()
	until := clock.Millis(now.Add(m.cfg.Tokens.RefreshGrace))
	if err := f.use(presented, next, random, issued.Access.Reveal(), clock.Millis(now), until); err != nil {
		return Issued{}, err
	}
	updated, err := m.encodeFamily(f)
	if err != nil {
		return Issued{}, err
	}
	if _, err := m.records.Replace(ctx, updated, backend.IfVersion(f.version)); err != nil {
		return Issued{}, fmt.Errorf("fob: refresh: %w", err)
	}
	m.refreshed(k, now)
	return f.issued(issued, next, k), nil
}

// sealRefreshed seals the next token of a family. Its claims are those of the first,
// which every Manager measures by the key as it is then. Where others can check the
// token who cannot look at the key, it holds no more than the key allows now.
func (m *Manager) sealRefreshed(ctx context.Context, t *Token, k *Key, now time.Time) (Issued, error) {
	if k != nil {
		r, err := m.currentRing(ctx)
		if err != nil {
			return Issued{}, err
		}
		if key := r.Active(clock.Millis(now)); key != nil && !key.Protocol.Local() {
			t = t.limitedTo(k.scopes)
		}
	}
	return m.sealToken(ctx, t, now)
}

// refreshed counts a refresh as a use of the family's key, if it has one.
func (m *Manager) refreshed(k *Key, now time.Time) {
	if k != nil {
		m.usage.Count(backend.ID(k.id), clock.Millis(now))
	}
}

// answerAgain answers a secret that was used lately, and whose link is at a place, with
// the newest pair.
func (m *Manager) answerAgain(ctx context.Context, f *family, presented string, at int, now time.Time) (Issued, error) {
	k, err := m.familyKey(ctx, f, now)
	if err != nil {
		return Issued{}, err
	}
	secret, access, err := f.newest(presented, at)
	if err != nil {
		return Issued{}, err
	}
	t, err := m.reopen(ctx, access)
	if err != nil {
		return Issued{}, err
	}
	m.refreshed(k, now)
	return f.issued(Issued{Access: newSecret(access), Token: t}, secret, k), nil
}

// endFamily revokes a family: first the mark that ends its access tokens, then the
// chain itself. After a crash between the two the family is dead all the same,
// because Refresh looks at the mark as well.
//
// It had been revoked already only if both were there before: else the call that
// wrote the first did not come through, and has reported nothing.
func (m *Manager) endFamily(ctx context.Context, id ID, reason RevokeReason) (already bool, err error) {
	already = true
	err = retry.Do(ctx, func(bool) error {
		rec, err := m.store.Get(ctx, familyRecord(id))
		if err != nil {
			return errs.OfStore("read", err)
		}
		f, err := m.decodeFamily(&rec)
		if err != nil {
			return err
		}
		now := m.now()
		// The mark lasts as long as the chain could: it alone may stand after a crash.
		end := max(m.markEnd(m.fleet.LongestTTL(ctx), now), f.ends+clock.PurgeMargin.Milliseconds())
		marked, err := m.putMark(ctx, markOf("family", id), end, reason)
		if err != nil {
			return err
		}
		if already = already && marked; f.ended {
			return nil
		}
		f.ended, f.reason, f.answer, f.links = true, reason, "", nil
		updated, err := m.encodeFamily(f)
		if err != nil {
			return err
		}
		if _, err = m.records.Replace(backend.Urgent(ctx), updated, backend.IfVersion(f.version)); err != nil {
			return retry.Raced(err)
		}
		already = false
		return nil
	})
	return already && err == nil, err
}
