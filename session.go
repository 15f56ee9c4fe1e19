package fob

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/rights"
)

// Session is what [Manager.Refresh] continues: a chain of access tokens that began with one
// token and its refresh secret. It holds no secret. Its ID is a [Target]: to revoke it is
// what "log out" means, to disable it stops it until it is enabled.
type Session struct {
	ID      ID      `json:"id"`
	Subject Subject `json:"subject"`
	// Parent is the key with which the session began; zero for none.
	Parent ID `json:"parent,omitzero"`
	// Label is TokenSpec.Label.
	Label string `json:"label,omitempty"`
	// BegunAt and RefreshedAt are when it began, and when it was last refreshed (zero: never).
	BegunAt     time.Time `json:"begun_at"`
	RefreshedAt time.Time `json:"refreshed_at,omitzero"`
	// EndsAt is when it ends unless it is refreshed before: the earliest of its end, of the
	// end of its refresh secret, and of the end of its key.
	EndsAt time.Time `json:"ends_at"`
	// Status is as of the call that returned the session, with all that was said about its
	// subject, its account, its key and the issuer's tokens.
	Status Status `json:"status"`
}

// String returns "session" and the ID, which are safe to log.
func (s Session) String() string { return "session " + s.ID.String() }

// Sessions returns sessions, a page at a time, by Subject, Account or Parent of the query, or
// all of them. Of its other fields Status, Order (not LastUsedFirst), Cursor and Limit count;
// the rest is ErrInvalid. Sessions that ended are listed until their records are purged. Its
// errors are those of [Manager.List]. It reads the sessions of a page in one call of the
// store, and in two more what was said about them.
//
// "Log out everywhere else" is to revoke all active sessions of a subject but the caller's
// own ([Token.Session]), and to list them once more until there is no other one.
func (m *Manager) Sessions(ctx context.Context, q Query) (Page[Session], error) {
	if err := m.tokensReady(); err != nil {
		return Page[Session]{}, err
	}
	page, err := m.sessions(ctx, q)
	if err != nil {
		return Page[Session]{}, fmt.Errorf("fob: sessions: %w", err)
	}
	return page, nil
}

func (m *Manager) sessions(ctx context.Context, q Query) (out Page[Session], err error) {
	if q.Tag != "" || q.Role != "" || q.ExpiringWithin != 0 || !q.UnusedSince.IsZero() || q.WithUsage || q.Order == LastUsedFirst {
		return out, fmt.Errorf("%w: a query for keys", ErrInvalid)
	}
	w, err := m.walkKeys(q)
	if err != nil {
		return out, err
	}
	w.stored.Kind, out.Items = record.Family, []Session{}
	limit := cmp.Or(q.Limit, backend.DefaultLimit)
	for looked := 0; len(out.Items) < limit && looked < listBudget && !w.over; {
		recs, err := w.read(ctx, limit-len(out.Items))
		if err != nil {
			return Page[Session]{}, err
		}
		kept, err := m.sessionsOf(ctx, q, w.now, recs)
		if err != nil {
			return Page[Session]{}, err
		}
		out.Items = append(out.Items, kept...)
		looked += max(len(recs), backend.DefaultLimit)
	}
	out.Next = Cursor(w.stored.After)
	return out, nil
}

// sessionsOf decodes sessions, reads what was said about them, and keeps those that match.
func (m *Manager) sessionsOf(ctx context.Context, q Query, now time.Time, recs []backend.Record) (kept []Session, err error) {
	families, asked := make([]*tokenFamily, 0, len(recs)), []record.ID{m.issuerMark()}
	var parents []record.ID
	for i := range recs {
		f, err := m.decodeFamily(&recs[i])
		if err != nil {
			return nil, err
		}
		if families = append(families, f); !f.spec.parent.IsZero() {
			parents = append(parents, record.ID(f.spec.parent))
		}
		asked = append(asked, f.marks()...)
	}
	found, err := m.marks.ReadAll(ctx, asked...)
	if err != nil {
		return nil, errs.OfStore("read", err)
	}
	slices.SortFunc(parents, func(a, b record.ID) int { return slices.Compare(a[:], b[:]) })
	states, err := m.keystore.ReadMany(ctx, slices.Compact(parents)...)
	if err != nil {
		return nil, err
	}
	keys := make(map[ID]*keystate.State, len(states))
	for _, k := range states {
		keys[ID(k.ID)] = k
	}
	ms := clock.Millis(now)
	for i, f := range families {
		said := f.said(found[0], found[1+3*i:])
		s := f.session(said, keys[f.spec.parent], ms)
		switch {
		case q.Status != 0 && s.Status != q.Status,
			q.Subject != Subject{} && s.Subject != q.Subject,
			q.Account != "" && s.Subject.Account != q.Account,
			!q.Parent.IsZero() && s.Parent != q.Parent:
			continue
		}
		kept = append(kept, s)
	}
	return kept, nil
}

// said is what was said about a session: by its issuer's mark, its own, and those of its
// subject and account.
type said struct {
	issuer, own marks.Mark
	holders     marks.Holders
}

// marks are the records of what was said about the session, but for the issuer's mark.
func (f *tokenFamily) marks() []record.ID {
	return []record.ID{markOf("family", ID(f.ID)), f.spec.subjectRef, f.spec.accountRef}
}

// said is made of the issuer's mark, and the marks whose records f.marks has named.
func (f *tokenFamily) said(issuer marks.Mark, of []marks.Mark) *said {
	return &said{issuer, of[0], marks.Holders{Subject: of[1], Account: of[2]}}
}

// refusal is why a session cannot be refreshed at an instant, or nil. key is that with which
// it began, as it is now; nil if there is none, or none any more.
func (f *tokenFamily) refusal(s *said, key *keystate.State, ms int64) error {
	refused := s.holders.Refused(f.spec.epoch, f.spec.accountEpoch)
	switch {
	case f.Ended || s.issuer.EndsToken(f.spec.issuerEpoch, f.Begun) || errors.Is(refused, ErrRevoked):
		return ErrRevoked
	case ms >= f.Ends || ms >= f.IdleUntil:
		return ErrExpired
	case refused != nil || s.own.Disabled() || s.issuer.DisablesToken(f.Begun):
		return ErrDisabled
	case f.spec.parent.IsZero():
		return nil
	case key == nil:
		return ErrUnknown
	}
	// The subject of a key is that of its sessions, but the key may be older than its last
	// revocation.
	return cmp.Or(s.holders.Refused(key.Epoch, key.AccountEpoch), key.Refusal(ms))
}

// session is what users see of a family.
func (f *tokenFamily) session(s *said, key *keystate.State, ms int64) Session {
	end := min(f.Ends, f.IdleUntil)
	if key != nil && key.EndsAt() != 0 {
		end = min(end, key.EndsAt())
	}
	out := Session{
		ID: ID(f.ID), Subject: f.spec.subject, Parent: f.spec.parent, Label: f.Label,
		BegunAt: clock.Instant(f.Begun), RefreshedAt: clock.Instant(f.RefreshedAt), EndsAt: clock.Instant(end),
		Status: StatusActive,
	}
	switch err := f.refusal(s, key, ms); {
	case err == nil:
	case errors.Is(err, ErrDisabled):
		out.Status = StatusDisabled
	case errors.Is(err, ErrExpired):
		out.Status = StatusExpired
	case errors.Is(err, errs.ErrNotYetValid):
		out.Status = StatusPending
	default:
		out.Status = StatusRevoked
	}
	return out
}

// Renewal is a refresh that is about to be made: the session, and what its next access token
// is to allow. [TokenConfig.OnRefresh] may take away from it.
type Renewal struct {
	Session Session
	// Scopes, Grants and Roles are what the first token of the session was issued with.
	Scopes Scopes
	Grants Grants
	Roles  []string
	// TTL is the lifetime of the access token, if nothing ends sooner: at least a second,
	// and more than it was changes nothing.
	TTL time.Duration
}

// renew asks the application what the next access token of a session is to allow, and leaves
// to t only what both that and the session allow. It returns the lifetime of the token in
// milliseconds.
func (m *Manager) renew(ctx context.Context, f *tokenFamily, t *Token) (ttl int64, err error) {
	r := &Renewal{
		Session: f.shown, Scopes: slices.Clone(t.own), Grants: grantsOf(t.grants), Roles: slices.Clone(t.roles),
		TTL: min(clock.MillisOf(f.TTL), m.cfg.Tokens.MaxTTL),
	}
	err = guard.Run("", func() error { return m.cfg.Tokens.OnRefresh(ctx, r) })
	if errors.Is(err, ErrRevoked) {
		return 0, m.endByApplication(ctx, f)
	}
	if err == nil {
		err = t.narrow(r, m.cfg.Roles)
	}
	if err != nil {
		return 0, fmt.Errorf("fob: refresh: OnRefresh: %w", errs.Unclassified(err))
	}
	return min(f.TTL, r.TTL.Truncate(time.Second).Milliseconds()), nil
}

// narrow leaves to t only what r allows, too. What a role of t grants stays with the role
// while t has it, so that the token follows when the role changes.
func (t *Token) narrow(r *Renewal, known Roles) error {
	scopes, err1 := r.Scopes.normal()
	grants, err2 := r.Grants.normal()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if r.TTL < time.Second {
		return fmt.Errorf("%w: TTL %v, want 1s at least", ErrInvalid, r.TTL)
	}
	var kept, dropped []string
	for _, role := range t.roles {
		if slices.Contains(r.Roles, role) {
			kept = append(kept, role)
		} else {
			dropped = append(dropped, role)
		}
	}
	had, left := allowed{known.resolve(t.own, dropped), t.grants}, allowed{scopes, grants}
	if !had.covers(&left) {
		by := allowed{known.resolve(scopes, kept), grants}
		left = allowed{rights.MeetScopes(had.scopes, scopes), t.allowed.and(&by).grants}
	}
	t.own, t.roles = left.scopes[:min(len(left.scopes), maxScopes)], kept
	t.allowed = allowed{known.resolve(t.own, kept), left.grants[:min(len(left.grants), maxGrants)]}
	return nil
}

// endByApplication ends a session of which the application has said that it is over.
func (m *Manager) endByApplication(ctx context.Context, f *tokenFamily) error {
	err := m.life.Protect(ctx, func(ctx context.Context) error {
		_, err := m.Revoke(ctx, ID(f.ID), "ended at refresh")
		return err
	})
	if err != nil {
		return fmt.Errorf("fob: refresh: %w", err)
	}
	return ErrRevoked
}
