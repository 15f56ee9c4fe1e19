package fob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/marks"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/tokenring"
	"github.com/fobkit/fob/internal/usagelog"
)

// accessTokens is the form of tokens. The cache finds an answer by the digest of the
// whole text, so a hit need not parse the token: its text was accepted before, byte for
// byte.
type accessTokens struct{ m *Manager }

// isToken reports whether text begins like a PASETO.
func isToken(text string) bool {
	return len(text) > 3 && text[0] == 'v' && text[1] >= '1' && text[1] <= '9' && text[2] == '.'
}

// recogniseToken recognises a text that begins like a PASETO.
func (m *Manager) recogniseToken(presented string, text *recognised) error {
	if len(presented) > paseto.MaxToken {
		return errs.ErrTokenLength
	}
	text.form, text.number, text.memory = accessTokens{m}, formToken, m.accessTokens
	text.hashed = bytesOf(presented)
	return nil
}

// bytesOf returns the memory of a text, which must only be read.
func bytesOf(text string) []byte { return unsafe.Slice(unsafe.StringData(text), len(text)) }

// Absent implements engine.Loader.
func (accessTokens) Absent(q *lookup, found *engine.Absence[body]) error {
	return ofSameText(q, found)
}

// ofSameText returns why a text was refused, or nil if found is of another text: the
// cache key is only half of the digest.
func ofSameText(q *lookup, found *engine.Absence[body]) error {
	if found.Form == q.Form && found.Seen.Equal(&q.Seen) {
		return found.Err
	}
	return nil
}

// Load implements engine.Loader: it opens the token, or takes the cached one, and checks
// whether it was revoked.
func (f accessTokens) Load(ctx context.Context, q *lookup) (*answer, error) {
	m := f.m
	if q.Old != nil {
		return m.rememberToken(ctx, q, q.Old.Body.claims.again())
	}
	text, err := paseto.Parse(q.Presented)
	if err != nil {
		return nil, errs.OfToken(err)
	}
	id := tokenring.KeyID(text.Footer())
	if id == "" {
		return nil, errs.ErrTokenKey
	}
	key, err := m.tokens.Find(ctx, id, q.Now)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, errs.ErrTokenKey
	}
	t, err := openWith(key, text, m.cfg.Tokens, m.cfg.Roles)
	if errors.Is(err, ErrRejected) {
		// The text will never be a token of this key. That is worth a cache entry, because
		// the check may have cost a signature verification.
		return nil, m.engine.Refuse(q, engine.Absence[body]{Err: err})
	}
	if err != nil {
		return nil, err
	}
	return m.rememberToken(ctx, q, t)
}

// openWith opens a token and checks what does not change with time.
func openWith(key *tokenring.Key, text paseto.Token, cfg *TokenConfig, roles Roles) (*Token, error) {
	payload, err := key.Opener.Open(text, "")
	if err != nil {
		return nil, errs.OfToken(err)
	}
	t, err := decodeToken(payload, key.ID, roles)
	if err != nil {
		return nil, err
	}
	if err := cfg.accepts(t); err != nil {
		return nil, errs.About(backend.ID(t.id), err)
	}
	return t, nil
}

// tokenBody is the answer of a token that came from no key.
func tokenBody(t *Token, cfg *TokenConfig) body {
	return body{
		token: t, claims: t,
		from: max(t.notBefore, t.issuedAt) - cfg.early().Milliseconds(), to: t.expiresAt + cfg.late().Milliseconds(),
	}
}

// accepts checks the claims against c, as far as that does not change with time.
func (c *TokenConfig) accepts(t *Token) error {
	switch {
	case t.issuer != c.Issuer:
		return errs.ErrWrongIssuer
	case !slices.Contains(c.Audiences, t.audience):
		return errs.ErrWrongAudience
	case t.expiresAt-t.issuedAt > c.MaxTTL.Milliseconds() || t.expiresAt <= t.notBefore:
		return errs.ErrTokenLifetime
	}
	return nil
}

// rememberToken checks whether a sound token was revoked, and caches its answer.
func (m *Manager) rememberToken(ctx context.Context, q *lookup, t *Token) (*answer, error) {
	b := tokenBody(t, m.cfg.Tokens)
	if q.Now.MS >= b.to {
		return nil, errs.About(backend.ID(t.id), ErrExpired) // for good: not worth a cache entry
	}
	var err error
	var asOf int64
	refs := t.marks(make([]record.ID, 0, cache.MaxRefs), m.issuerMark())
	if b.refused, asOf, err = m.ended(ctx, q, t, refs); err != nil {
		return nil, errs.OfCheck(err)
	}
	if !t.parent.IsZero() && !errors.Is(b.refused, ErrRevoked) { // that it is revoked says more than that it is disabled
		parent, parentAsOf, err := m.parentState(ctx, &q.Reading, t.parent)
		if err != nil {
			return nil, errs.About(backend.ID(t.id), err)
		}
		refs = append(refs, record.ID(t.parent), parent.key.state.SubjectRef, parent.key.state.AccountRef)
		asOf = min(asOf, max(parentAsOf, q.Now.Synced))
		b.hangFrom(parent)
	}
	if b.refused != nil {
		b.from, b.to = 0, 0 // accepted at no time
	}
	return m.engine.Remember(q, answer{Told: b.token.asOf, Body: b}, asOf, cacheRefs(refs)...), nil
}

// hangFrom limits the answer by the key that its token came from. If the key is refused
// at all times, so is the token, until the key changes. A time limit of the key narrows
// the bounds of the answer.
func (b *body) hangFrom(p *parentState) {
	b.parent = p
	from, to, refused := p.key.state.SpanUnder(p.refused, clock.Forever)
	if b.refused == nil || errors.Is(refused, ErrRevoked) {
		b.refused = refused
	}
	if refused == nil {
		b.token = b.claims.under(p.key)
		b.from, b.to = max(b.from, from), min(b.to, to)
	}
}

// The rights of a token that a key was exchanged for are worked out from the key as it is
// at each verification. They are not kept in the token, and are cached only until the key
// changes. The claims of a token stay what was asked for, so if the key loses a right and
// gets it back, its tokens lose it and get it back too.

// under returns t without the rights that k does not have, and without the time in which
// k is not valid. It is t itself if k allows all of it. Whether k is refused at all times
// is left to the caller.
func (t *Token) under(k *Key) *Token {
	from, to := max(t.notBefore, k.state.NotBefore), t.expiresAt
	if end := k.state.EndsAt(); end != 0 {
		to = min(to, end)
	}
	within := k.covers(&t.allowed)
	if within && from == t.notBefore && to == t.expiresAt {
		return t
	}
	limited := t.again()
	limited.notBefore, limited.expiresAt = from, to
	if !within {
		limited.bound = &k.allowed
	}
	return limited
}

// resealedUnder returns t with claims that hold no more than k allows, or t itself if they
// do not.
func (t *Token) resealedUnder(k *Key) *Token {
	if k.covers(&t.allowed) {
		return t
	}
	limited := t.again()
	limited.allowed, limited.roles = t.and(&k.allowed), nil
	limited.own, limited.grants = limited.scopes[:min(len(limited.scopes), maxScopes)], limited.grants[:min(len(limited.grants), maxGrants)]
	return limited
}

func cacheRefs(ids []backend.ID) []cache.Ref {
	refs := make([]cache.Ref, 0, cache.MaxRefs)
	for _, id := range ids {
		if id != (backend.ID{}) && !slices.Contains(refs, cache.Ref(id)) { // a key's subject is that of its tokens, as a rule
			refs = append(refs, cache.Ref(id))
		}
	}
	return refs
}

// ended returns why a token is refused by the marks ids, or nil, and as of when.
func (m *Manager) ended(ctx context.Context, q *lookup, t *Token, ids []record.ID) (refused error, asOf int64, err error) {
	live := !q.Fresh && m.engine.Live(q.Now)
	refused, err = m.marks.Refused(ctx, live, q.Reads, t.refusedBy, ids...)
	if live {
		return refused, q.Now.Synced, err
	}
	return refused, q.Now.Mono, err
}

// refusedBy returns why the mark whose record has an ID refuses the token, or nil.
func (t *Token) refusedBy(id record.ID, found *marks.Mark) error {
	switch {
	case id == t.subjectRef:
		return (&marks.Holders{Subject: *found}).Refused(t.epoch, 0)
	case id == t.accountRef:
		return (&marks.Holders{Account: *found}).Refused(0, t.accountEpoch)
	case found.EndsToken(t.issuerEpoch, t.issuedAt):
		return ErrRevoked
	case found.DisablesToken(t.issuedAt):
		return ErrDisabled
	}
	return nil
}

// issuerMark is the record that revokes the issuer's tokens so far, or before an instant.
func (m *Manager) issuerMark() record.ID {
	return record.Named(record.Mark, "issuer", m.cfg.Tokens.Issuer)
}

// parentState is what a token has to know of the key it came from.
type parentState struct {
	use     usagelog.Cell // of the key, by its tokens; first, for its alignment
	key     *Key
	refused error // by its subject or its account
}

// parentState returns the state of a key that tokens came from, and the monotonic instant
// as of which it holds: from the cache as long as the feed would have reported a change.
func (m *Manager) parentState(ctx context.Context, r *engine.Reading, id ID) (p *parentState, asOf int64, err error) {
	if p, asOf, ok := m.parents.Get(r, cache.Key(id)); ok {
		return p, asOf, nil
	}
	ticket := m.parents.Begin()
	r.Reads(backend.ID(id))
	rec, err := m.store.Get(ctx, backend.ID(id))
	if err != nil {
		return nil, 0, errs.OfCheck(err)
	}
	k, err := m.decodeKey(&rec)
	if err != nil {
		return nil, 0, fmt.Errorf("fob: verify: %w", err)
	}
	refused, asOf, err := m.holdersRefuse(ctx, r, &k.state)
	if err != nil {
		return nil, 0, errs.OfCheck(err)
	}
	asOf = min(r.Now.Mono, asOf)
	made := parentState{use: usagelog.Cell{ID: k.state.ID}, key: k, refused: refused}
	return m.parents.Put(r, cache.Key(id), made, asOf, ticket, keyRefs(&k.state)...), asOf, nil
}
