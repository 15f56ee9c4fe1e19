package fob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/family"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
)

// tokenFamily is a family of tokens, which each Refresh continues.
type tokenFamily struct {
	*family.Family
	spec  *Token  // what each access token is to be; its times are those of the first
	stamp uint64  // the issuer's epoch as familyKey has read it
	shown Session // as familyKey has found it
}

func familyRecord(id ID) record.ID { return family.RecordID(backend.ID(id)) }

func (m *Manager) decodeFamily(rec *backend.Record) (*tokenFamily, error) {
	f, err := family.Decode(rec)
	if err != nil {
		return nil, err
	}
	spec, err := decodeToken([]byte(f.Claims), "", m.cfg.Roles)
	if err != nil || spec.family != ID(f.ID) {
		return nil, record.Corrupt(rec, "claims")
	}
	return &tokenFamily{Family: f, spec: spec}, nil
}

// beginFamily issues a token with a refresh secret. ttl is the lifetime that was asked
// for, in milliseconds, even if the key k ends sooner. k is nil for a token that came
// from no key.
func (m *Manager) beginFamily(ctx context.Context, t *Token, ttl int64, k *Key, label string, now time.Time) (Issued, error) {
	t.family = ID(keytext.NewID(now))
	issued, err := m.sealToken(ctx, t, now)
	if err != nil {
		return Issued{}, err
	}
	// A token that begins later is used later, too.
	starts := max(clock.Millis(now), t.notBefore)
	claims, err := issued.Token.payload()
	if err != nil {
		return Issued{}, err
	}
	f := &tokenFamily{Family: &family.Family{
		ID: backend.ID(t.family), Owner: t.subject.owner(), Label: strings.Clone(label), Parent: backend.ID(t.parent), Claims: string(claims), Begun: clock.Millis(now), TTL: ttl,
		Ends: starts + m.cfg.Tokens.RefreshTTL.Milliseconds(), IdleUntil: starts + m.cfg.Tokens.RefreshIdle.Milliseconds(),
	}, spec: issued.Token}
	secret := f.Begin()
	if _, err := m.records.Create(ctx, f.Record(m.keystore.Retained(f.Ends))); err != nil {
		return Issued{}, fmt.Errorf("fob: issue token: %w", err)
	}
	return f.issued(issued, secret, k), nil
}

// issued adds a refresh secret to a new token, and limits the token by the key k.
func (f *tokenFamily) issued(i Issued, secret string, k *Key) Issued {
	i.Refresh, i.RefreshExpiresAt = newSecret(secret), clock.Instant(min(f.endsWith(k), f.IdleUntil))
	if k != nil {
		i.Token = i.Token.under(k)
	}
	return i
}

// event is an event of the family in which a token was issued.
func (f *tokenFamily) event(what EventType, t *Token) Event {
	return Event{Type: what, ID: ID(f.ID), Other: t.id, Subject: t.subject, Token: t}
}

// endsWith is when the family ends, which may be by the end of its key k.
func (f *tokenFamily) endsWith(k *Key) int64 {
	if k == nil || k.state.EndsAt() == 0 {
		return f.Ends
	}
	return min(f.Ends, k.state.EndsAt())
}

// Refresh exchanges a refresh secret for a new access token and the next refresh secret
// (RFC 6749 §6, with rotation as RFC 9700 §4.14.2 asks for it). A secret can be used
// once. If it is presented again within TokenConfig.RefreshGrace of its use, it gets the
// newest pair of its family, for a client that lost its answer or has several tabs with
// one session. If it is presented later, however much later and however many secrets came
// after it, it is taken for stolen: the family is revoked, with all its access tokens,
// even if ctx ends meanwhile, and the error is ErrRevoked ([Reason] says "replayed").
//
// Errors are in the two classes of [Manager.Verify]. A family that is over is ErrExpired.
// One that was revoked is ErrRevoked, also if its key or subject was. The new token has
// no right that its key has lost (see [Manager.ExchangeKey]), and does not begin before
// the first token of the family. A refresh counts as a use of the key.
func (m *Manager) Refresh(ctx context.Context, presented string) (Issued, error) {
	if err := m.tokensReady(); err != nil {
		return Issued{}, err
	}
	prefix, problem := keytext.Split(presented)
	if problem == keytext.OK && prefix != family.SecretPrefix {
		problem = keytext.Prefix
	}
	if problem == keytext.OK {
		problem = keytext.Check(presented)
	}
	if problem != keytext.OK {
		return Issued{}, errs.OfText(problem)
	}
	block := keytext.Block(presented)
	id := ID(block[1 : 1+keytext.IDLen])
	began := m.now() // the time of the call counts, however late the store answers
	var issued Issued
	err := retry.Do(ctx, func(bool) (err error) {
		issued, err = m.refresh(ctx, id, presented, began)
		return retry.Raced(err)
	})
	switch {
	case errors.Is(err, ErrUnknown):
		return Issued{}, err
	case err != nil:
		return Issued{}, errs.About(backend.ID(id), err)
	}
	return issued, nil
}

func (m *Manager) refresh(ctx context.Context, id ID, presented string, began time.Time) (Issued, error) {
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
	case f.IsCurrent(presented):
		return m.advance(ctx, f, presented, now)
	case !f.IssuedOnce(presented):
		return Issued{}, ErrUnknown
	case f.Ended:
		return Issued{}, m.familyEnded(ctx, f)
	}
	if at := f.LinkOf(presented, clock.Millis(began)); at >= 0 {
		return m.answerAgain(ctx, f, presented, at, now)
	}
	// The caller does not hold the next secret, or has lost it.
	const replayed RevokeReason = "refresh secret replayed"
	err = m.life.Protect(ctx, func(ctx context.Context) error {
		_, _, err := m.endFamily(ctx, id, replayed)
		return err
	})
	m.noteRecent(recentChange{id: id, status: keystate.Revoked, reason: replayed, token: true}, err)
	m.observeOutcome(ctx, Event{Type: EventReplayed, ID: id, Target: id, Subject: subjectOf(f.Owner), Reason: replayed}, err)
	if err != nil {
		return Issued{}, fmt.Errorf("fob: refresh: %w", err)
	}
	return Issued{}, errs.ErrReplayed
}

// familyKey returns the key of a family as it is now, nil if the family came from no key,
// or the reason why the family cannot be refreshed.
func (m *Manager) familyKey(ctx context.Context, f *tokenFamily, now time.Time) (*Key, error) {
	ms := clock.Millis(now)
	switch {
	case f.Ended:
		return nil, m.familyEnded(ctx, f)
	case ms >= f.Ends || ms >= f.IdleUntil:
		return nil, ErrExpired
	}
	// Ask the store, not the marks in memory: a refresh is rare and has a long effect. The
	// record of the family says that it was revoked; its mark is not asked for.
	found, err := m.marks.ReadAll(ctx, append([]record.ID{m.issuerMark()}, f.marks()...)...)
	if err != nil {
		return nil, errs.OfCheck(err)
	}
	f.stamp = found[0].Epoch
	var key *keystate.State
	if !f.spec.parent.IsZero() {
		if key, err = m.keystore.Read(ctx, record.ID(f.spec.parent)); err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
	}
	about := f.said(found[0], found[1:])
	if err := f.refusal(about, key, ms); err != nil {
		return nil, err
	}
	f.shown = f.session(about, key, ms)
	if key == nil {
		return nil, nil // the family came from no key
	}
	return m.keyOf(key, ms), nil
}

// familyEnded is the error for a family that was revoked, perhaps by another process. It
// reads the mark that revokes the family's access tokens, so that from now on none of them
// is accepted here either. If there is none, the call that has ended the family did not
// finish, and familyEnded does what is left.
func (m *Manager) familyEnded(ctx context.Context, f *tokenFamily) error {
	mark, _, err := m.marks.Read(ctx, markOf("family", ID(f.ID)))
	if err == nil && mark == (marks.Mark{}) && f.EndedAt != 0 {
		id, reason, already := ID(f.ID), RevokeReason(f.Reason), false
		err = m.life.Protect(ctx, func(ctx context.Context) (err error) {
			already, _, err = m.endFamily(ctx, id, reason)
			return err
		})
		if !already { // else another call has finished it, and reported it
			m.observeOutcome(ctx, Event{Type: EventRevoked, ID: id, Target: id, Subject: subjectOf(f.Owner), Reason: reason}, err)
		}
	}
	if err != nil {
		return errs.OfCheck(err)
	}
	return ErrRevoked
}

// advance exchanges the current secret of a family for the next pair.
func (m *Manager) advance(ctx context.Context, f *tokenFamily, presented string, now time.Time) (Issued, error) {
	k, err := m.familyKey(ctx, f, now)
	if err != nil {
		return Issued{}, err
	}
	t, ttl := *f.spec, f.TTL
	if m.cfg.Tokens.OnRefresh != nil {
		if ttl, err = m.renew(ctx, f, &t); err != nil {
			return Issued{}, err
		}
		// That may have taken long. What was said meanwhile holds.
		now = m.now()
		if k, err = m.familyKey(ctx, f, now); err != nil {
			return Issued{}, err
		}
	}
	t.issuedAt = now.Truncate(time.Second).UnixMilli()
	t.notBefore = max(t.issuedAt, f.spec.notBefore)
	t.expiresAt = min(t.notBefore+ttl, t.issuedAt+m.cfg.Tokens.MaxTTL.Truncate(time.Second).Milliseconds(), f.endsWith(k)/1000*1000)
	if t.expiresAt <= t.notBefore {
		return Issued{}, ErrExpired
	}
	issued, err := m.sealRefreshed(ctx, &t, k, now)
	if err != nil {
		return Issued{}, err
	}
	if issued.Token.issuerEpoch != f.stamp {
		// All tokens were revoked meanwhile, so the checks of familyKey no longer hold.
		return Issued{}, fmt.Errorf("fob: refresh: %w", ErrConflict)
	}
	f.RefreshedAt = clock.Millis(now)
	f.IdleUntil = max(clock.Millis(now), t.notBefore) + m.cfg.Tokens.RefreshIdle.Milliseconds()
	until := clock.Millis(now.Add(m.cfg.Tokens.RefreshGrace))
	next, err := f.Use(presented, issued.Access.Reveal(), clock.Millis(now), until)
	if err != nil {
		return Issued{}, err
	}
	issued = f.issued(issued, next, k)
	_, err = m.records.Replace(ctx, f.Record(m.keystore.Retained(f.Ends)), backend.IfVersion(f.Version))
	m.observeOutcome(ctx, f.event(EventRefreshed, issued.Token), err)
	if err != nil {
		return Issued{}, fmt.Errorf("fob: refresh: %w", err)
	}
	m.refreshed(k, now)
	return issued, nil
}

// sealRefreshed seals the next token of a family. Its claims are those of the first,
// because every Manager limits them by the key at each verification. But a token of a
// public protocol is also checked by processes that cannot read the key, so it holds no
// more than the key allows now.
func (m *Manager) sealRefreshed(ctx context.Context, t *Token, k *Key, now time.Time) (Issued, error) {
	if k != nil {
		r, err := m.currentRing(ctx)
		if err != nil {
			return Issued{}, err
		}
		if key := r.Active(clock.Millis(now)); key != nil && !key.Protocol.Local() {
			t = t.resealedUnder(k)
		}
	}
	return m.sealToken(ctx, t, now)
}

// refreshed counts a refresh as a use of the family's key, if it has one.
func (m *Manager) refreshed(k *Key, now time.Time) {
	if k != nil {
		m.usage.Count(k.state.ID, clock.Millis(now))
	}
}

// answerAgain answers a secret that was used lately with the newest pair. at is the place
// of the secret's link in the family.
func (m *Manager) answerAgain(ctx context.Context, f *tokenFamily, presented string, at int, now time.Time) (Issued, error) {
	k, err := m.familyKey(ctx, f, now)
	if err != nil {
		return Issued{}, err
	}
	secret, access, err := f.Newest(presented, at)
	if err != nil {
		return Issued{}, err
	}
	t, err := m.reopen(ctx, access)
	if err != nil {
		return Issued{}, err
	}
	m.refreshed(k, now)
	again := f.issued(Issued{Access: newSecret(access), Token: t}, secret, k)
	m.observe(ctx, f.event(EventRefreshed, again.Token))
	return again, nil
}

// endFamily revokes a family: first its record, so that it gives out no further access
// token, and then by a mark those that it gave out. Once the first is done, the caller
// cannot keep it from the second by hanging up.
//
// It had been revoked already only if both were done before. Otherwise the call that has
// ended the record did not finish, and has reported nothing.
func (m *Manager) endFamily(ctx context.Context, id ID, reason RevokeReason) (already bool, of Subject, err error) {
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
		of = subjectOf(f.Owner)
		now := clock.Millis(m.now())
		if !f.Ended {
			f.End(now, string(reason))
			if _, err = m.records.Replace(backend.Urgent(ctx), f.Record(m.keystore.Retained(f.Ends)), backend.IfVersion(f.Version)); err != nil {
				return retry.Raced(err)
			}
			already = false
		}
		end := m.marksOver(max(cmp.Or(f.EndedAt, now), f.spec.notBefore) + f.TTL) // of the last token that it gave out
		if end <= now {
			return nil // and so has the mark, if there was one
		}
		return m.life.Finish(ctx, func(ctx context.Context) error {
			marked, err := m.marks.End(ctx, markOf("family", id), end, string(reason))
			already = already && marked
			return err
		})
	})
	return already && err == nil, of, errs.Settle(!already, err)
}
