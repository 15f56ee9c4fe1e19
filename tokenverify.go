package fob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/tokenring"
	"github.com/fobkit/fob/internal/usagelog"
)

// parentState is what a token has to know of the key it came from.
type parentState struct {
	use     usagelog.Cell // of the key, by its tokens; first, see answer
	key     *Key
	asOf    int64
	revoked bool // by its subject
}

// isToken reports whether text begins like a PASETO.
func isToken(text string) bool {
	return len(text) > 3 && text[0] == 'v' && text[1] >= '1' && text[1] <= '9' && text[2] == '.'
}

// verifyToken is Verify for a PASETO. A token in the cache costs one hash of its
// text and one lookup; a hit needs no look at its form, since it is byte for byte
// a text that was accepted.
func (m *Manager) verifyToken(ctx context.Context, presented string, how demand) (Credential, error) {
	if len(presented) > paseto.MaxToken {
		return nil, ErrTokenLength
	}
	now := m.moment()
	seen, at := seenText(unsafe.Slice(unsafe.StringData(presented), len(presented))) // only read
	e, ok := m.answers.tokens.Get(at, now.Mono)
	ok = ok && e.seen.Equal(seen)
	if ok && how == cached && m.believed(atomic.LoadInt64(&e.asOf), now) {
		e.confirm(now)
		return m.answer(e, now.MS, true)
	}
	q := query{how: how, now: now, form: tokenForm, presented: presented, seen: seen, at: at}
	if ok {
		q.old = e
	}
	return m.findOut(ctx, &q)
}

// loadToken opens a token, or takes the one that memory has, and finds out whether
// it was ended.
func (m *Manager) loadToken(ctx context.Context, q *query) (*answer, error) {
	ticket := m.answers.tokens.Begin()
	if q.old != nil {
		return m.settleToken(ctx, q, ticket, q.old.claims.again())
	}
	text, err := paseto.Parse(q.presented)
	if err != nil {
		return nil, tokenProblem(err)
	}
	id := tokenring.KeyID(text.Footer())
	if id == "" {
		return nil, ErrTokenKey
	}
	key, err := m.tokens.Find(ctx, id, q.now)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, ErrTokenKey
	}
	absent := m.answers.absent.Begin()
	t, err := openWith(key, text, m.cfg.Tokens)
	if errors.Is(err, ErrRejected) {
		// It will never be a token of this key: worth remembering, since to find that out
		// may have cost a signature.
		return m.refuse(q, absent, absence{seen: q.seen, err: err})
	}
	if err != nil {
		return nil, err
	}
	return m.settleToken(ctx, q, ticket, t)
}

// accepts looks at what does not change with time.
func (c *TokenConfig) accepts(t *Token) error {
	switch {
	case t.issuer != c.Issuer:
		return ErrWrongIssuer
	case !slices.Contains(c.Audiences, t.audience):
		return ErrWrongAudience
	case t.expiresAt-t.issuedAt > c.MaxTTL.Milliseconds() || t.expiresAt <= t.notBefore:
		return ErrTokenLifetime
	}
	return nil
}

func tokenProblem(err error) error {
	switch {
	case errors.Is(err, paseto.ErrSize):
		return ErrTokenLength
	case errors.Is(err, paseto.ErrProtocol):
		return ErrTokenProtocol
	case errors.Is(err, paseto.ErrSeal):
		return ErrTokenSeal
	case errors.Is(err, paseto.ErrFormat):
		return ErrTokenFormat
	}
	return fmt.Errorf("fob: verify: %w", err) // a key of ours that cannot be used
}

// settleToken looks at what may have ended a token that is sound, and remembers
// the answer.
func (m *Manager) settleToken(ctx context.Context, q *query, ticket cache.Ticket, t *Token) (*answer, error) {
	e := newTokenAnswer(q.seen, t, m.cfg.Tokens)
	if q.now.MS >= e.to {
		return nil, ErrExpired // for good: not worth a place
	}
	var err error
	if e.refused, e.asOf, err = m.ended(ctx, q, t); err != nil {
		return nil, errs.OfCheck(err)
	}
	refs := t.refs(m.issuerMark())
	if !t.parent.IsZero() && e.refused == nil {
		parent, err := m.parentState(ctx, q, t.parent)
		if err != nil {
			return nil, err
		}
		refs = append(refs, parent.key.subjectRef)
		e.asOf = min(e.asOf, max(parent.asOf, q.now.Synced))
		e.hangFrom(parent)
	}
	if e.refused != nil {
		e.from, e.to = 0, 0 // at no time
	}
	e.tell(q.now.Wall(e.asOf))
	stored, ok := m.answers.tokens.Put(q.at, e, ticket, clock.Forever, cacheRefs(refs)...)
	q.pins.kept = q.pins.kept || ok
	return stored, nil
}

func cacheRefs(ids []backend.ID) []cache.Ref {
	refs := make([]cache.Ref, 0, cache.MaxRefs)
	for _, id := range ids {
		if !slices.Contains(refs, cache.Ref(id)) { // a key's subject is that of its tokens, as a rule
			refs = append(refs, cache.Ref(id))
		}
	}
	return refs
}

// ended reports why a token was ended, or nil, and as of when: by the marks that
// follow the feed, or by the store where those are not complete.
func (m *Manager) ended(ctx context.Context, q *query, t *Token) (refused error, asOf int64, err error) {
	look := func(id record.ID) (marks.Mark, error) {
		m.newest.pin(&q.pins, id)
		return m.readMark(ctx, id)
	}
	asOf = q.now.Mono
	if q.how == cached && m.live(q.now) {
		asOf = q.now.Synced
		look = func(id record.ID) (marks.Mark, error) {
			found := m.marks.Get(id)
			return found, found.Bad
		}
	}
	ids := []record.ID{t.subjectRef, m.issuerMark(), markOf("token", t.id)}
	if !t.family.IsZero() {
		ids = append(ids, markOf("family", t.family))
	}
	for _, id := range ids {
		found, err := look(id)
		if err != nil {
			return nil, 0, err
		}
		if id == t.subjectRef && t.epoch < found.Epoch || id != t.subjectRef && found.EndsToken(t.issuerEpoch, t.issuedAt) {
			return ErrRevoked, asOf, nil
		}
	}
	return nil, asOf, nil
}

// issuerMark is the record that ends what the issuer has issued so far, or before an
// instant.
func (m *Manager) issuerMark() record.ID {
	return record.Named(record.Mark, "issuer", m.cfg.Tokens.Issuer)
}

// parentState returns the state of a key that tokens came from: from memory as
// long as the feed would have told of a change.
func (m *Manager) parentState(ctx context.Context, q *query, id ID) (*parentState, error) {
	if q.how == cached {
		if p, ok := m.answers.parents.Get(cache.Key(id), q.now.Mono); ok && m.believed(p.asOf, q.now) {
			return p, nil
		}
	}
	ticket := m.answers.parents.Begin()
	m.newest.pin(&q.pins, backend.ID(id))
	rec, err := m.store.Get(ctx, backend.ID(id))
	if err != nil {
		return nil, errs.OfCheck(err)
	}
	k, err := decodeKey(&rec)
	if err != nil {
		return nil, fmt.Errorf("fob: verify: %w", err)
	}
	s, err := m.subjectState(ctx, q, k.subjectRef)
	if err != nil {
		return nil, errs.OfCheck(err)
	}
	p := parentState{use: usagelog.Cell{ID: backend.ID(k.id)}, key: k, asOf: min(q.now.Mono, s.asOf), revoked: k.epoch < s.epoch}
	stored, ok := m.answers.parents.Put(cache.Key(id), p, ticket, clock.Forever, cache.Ref(id), cache.Ref(k.subjectRef))
	q.pins.kept = q.pins.kept || ok
	return stored, nil
}
