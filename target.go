package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/keytext"
	"github.com/fobkit/fob/internal/limits"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
)

// Target is what [Manager.Revoke], [Manager.Disable] and [Manager.Enable] act on: the [ID]
// of a key, a session or a token, a [Subject], an [Account], or what [AllTokens] returns.
// There are no other ones. Its printed form says what it is.
type Target interface {
	fmt.Stringer
	target()
}

func (ID) target()        {}
func (Subject) target()   {}
func (Account) target()   {}
func (allTokens) target() {}

// AllTokens is every token that the issuer of the Manager issued before an instant. If the
// instant is zero or in the future, that is every token so far. [Manager.Revoke] asks no
// clock then: tokens carry a number, the issuer's epoch, which it raises. Otherwise, and for
// [Manager.Disable], the claim iat decides, which carries whole seconds of the issuer's
// clock, so tokens that were issued in the second of the instant are meant too. While tokens
// are disabled, Disable with an earlier instant changes nothing; [Manager.Enable] enables all
// of them, whatever the instant. Sessions that began before cannot be refreshed any more.
// Keys go on, and can be exchanged for new tokens at once.
func AllTokens(before time.Time) Target { return allTokens{before} }

type allTokens struct{ before time.Time }

func (a allTokens) String() string {
	if a.before.IsZero() {
		return "all tokens"
	}
	return "all tokens before " + a.before.UTC().Format(time.RFC3339Nano)
}

// place is where the mark of a target is, and what a revocation and a disabling are there.
type place struct {
	marks.Place
	subject Subject // if the target is one, or belongs to one
	token   bool    // a token or a session
	issuer  bool
	before  int64 // of the issuer's tokens: those that were issued before are revoked, or all if zero
	held    int64 // likewise: those that are disabled
}

// placeOf is the place of a target that is no ID, or ErrInvalid.
func (m *Manager) placeOf(target Target) (at place, err error) {
	if m.life.Closed() {
		return place{}, ErrClosed
	}
	switch t := target.(type) {
	case Subject:
		if err := t.check(); err != nil {
			return place{}, err
		}
		at.subject = t
		at.Owner = t.owner()
		at.Place.ID = record.SubjectID(at.Owner)
	case Account:
		if err := t.check(1); err != nil {
			return place{}, err
		}
		at.Place.ID, at.Owner = record.AccountID(string(t)), string(t)
	case allTokens:
		if m.tokens == nil {
			return place{}, fmt.Errorf("%w: Config.Tokens is not set", ErrInvalid)
		}
		if err := limits.CheckTime("before", t.before); err != nil {
			return place{}, err
		}
		now := m.now()
		at.Place.ID, at.issuer, at.held = m.issuerMark(), true, clock.Millis(now)+1
		if !t.before.IsZero() && !t.before.After(now) {
			at.before = clock.Millis(t.before.Add(time.Millisecond - 1))
			at.held = at.before
		}
	default:
		return place{}, fmt.Errorf("%w: no target", ErrInvalid)
	}
	return at, nil
}

// targetOf is the target whose mark is at a place: nil for a session or a token, of which the
// place does not tell the ID.
func targetOf(at marks.Place) Target {
	switch backend.Kind(at.ID[0]) {
	case record.Subject:
		return subjectOf(at.Owner)
	case record.Account:
		return Account(at.Owner)
	}
	return nil
}

// revoked is the mark of a target that has the mark old, after it was revoked.
func (p *place) revoked(old marks.Mark, now int64, reason string) marks.Mark {
	next := old.Raised(now, reason)
	if p.issuer {
		if p.before != 0 {
			next.Before = max(old.Before, p.before)
		} else {
			next.Ends = next.Epoch
		}
	}
	return next
}

// placeOfToken is the place of the mark of a session or a token, or ErrNotFound. A token has
// no record, so any ID that is recent enough to be a token's is taken for one.
func (m *Manager) placeOfToken(ctx context.Context, id ID) (place, error) {
	rec, err := m.store.Get(ctx, familyRecord(id))
	switch {
	case err == nil:
		f, err := m.decodeFamily(&rec)
		if err != nil {
			return place{}, err
		}
		if f.Ended {
			return place{}, m.familyEnded(ctx, f)
		}
		return place{Place: marks.Place{ID: markOf("family", id), PurgeAt: m.marksOver(f.Ends)}, subject: subjectOf(f.Owner), token: true}, nil
	case !errors.Is(err, backend.ErrNotFound):
		return place{}, err
	}
	now := m.now()
	longest := m.fleet.LongestTTL(ctx)
	if !m.mayBeToken(id, longest, now) {
		return place{}, ErrNotFound
	}
	return place{Place: marks.Place{ID: markOf("token", id), PurgeAt: m.markEnd(longest, now)}, token: true}, nil
}

// mayBeToken reports whether an ID was drawn lately enough for a token that has not
// expired, if no token lives longer than longest.
func (m *Manager) mayBeToken(id ID, longest time.Duration, now time.Time) bool {
	drawn := keytext.IDTime(id)
	return now.Sub(drawn) <= longest+m.cfg.Tokens.late()+time.Second+clock.MaxSkew && drawn.Sub(now) <= clock.MaxSkew
}

// knowsNothingOf reports whether the store has neither a key nor a session of a subject or
// an account. If that cannot be found out, it is false.
func (m *Manager) knowsNothingOf(ctx context.Context, target Target) bool {
	lister, ok := backend.As[backend.Lister](m.store)
	if !ok {
		return false
	}
	for _, kind := range []backend.Kind{record.Key, record.Family} {
		q := backend.Query{Kind: kind, Limit: 1}
		switch t := target.(type) {
		case Subject:
			q.Owner = t.owner()
		case Account:
			q.Label = record.AccountLabel(string(t))
		default:
			return false
		}
		if page, err := lister.List(ctx, q); err != nil || len(page.Records) > 0 {
			return false
		}
	}
	return true
}
