package fob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/paseto"
)

// tokens is what a Manager has for tokens; nil without Config.Tokens.
type tokens struct {
	seal     *sealKeys // nil: the ring is in memory only
	ring     atomic.Pointer[ring]
	ringTurn turn         // taken while the ring is read or made
	reloaded atomic.Int64 // when an unknown key last made it be read

	cache   *cache.Cache[tokenEntry]
	parents *cache.Cache[parentState]
	marks   marks
}

func newTokens(cfg Config) (*tokens, error) {
	t := &tokens{ringTurn: newTurn()}
	var err error
	if cfg.Tokens.SealKey != nil {
		if t.seal, err = newSealKeys(cfg.Tokens.SealKey); err != nil {
			return nil, err
		}
	}
	if t.cache, err = cache.New[tokenEntry](cache.Config{Entries: cfg.CacheEntries}); err != nil {
		return nil, fmt.Errorf("fob: token cache: %w", err)
	}
	if t.parents, err = cache.New[parentState](cache.Config{Entries: cfg.CacheEntries}); err != nil {
		return nil, fmt.Errorf("fob: parent cache: %w", err)
	}
	return t, nil
}

// tokenEntry is what the cache holds of one token that was opened. It is found
// by half of the digest of its text and compared by all of it.
type tokenEntry struct {
	seen     Digest
	from, to int64 // accepted while from <= now < to, Unix milliseconds
	until    int64 // believed that long without a feed, monotonic
	token    *Token
	refused  error
}

// parentState is what a token has to know of the key it came from.
type parentState struct {
	key     *Key
	until   int64 // as in tokenEntry
	revoked bool  // by its subject
}

// isToken reports whether text begins like a PASETO.
func isToken(text string) bool {
	return len(text) > 3 && text[0] == 'v' && text[1] >= '1' && text[1] <= '9' && text[2] == '.'
}

// verifyToken is Verify for a PASETO. A token in the cache costs one hash of its
// text and one lookup; a hit needs no look at its form, since it is byte for byte
// a text that was accepted.
func (m *Manager) verifyToken(ctx context.Context, presented string) (Credential, error) {
	if len(presented) > paseto.MaxToken {
		return nil, ErrTokenLength
	}
	seen := Digest{sha256.Sum256(unsafe.Slice(unsafe.StringData(presented), len(presented)))} // only read
	now := m.clock.now()
	e, ok := m.tokens.cache.Get(cache.Key(seen.sum[:16]), now.mono)
	if ok && e.seen.Equal(seen) {
		if now.mono < e.until || m.fresh(now) {
			return e.answer(now.ms)
		}
		return m.settleToken(ctx, now, m.tokens.cache.Begin(), seen, e.token)
	}
	return m.openToken(ctx, now, presented, seen)
}

func (e *tokenEntry) answer(ms int64) (Credential, error) {
	if e.refused != nil {
		return nil, e.refused
	}
	if ms < e.from {
		return nil, ErrNotYetValid
	}
	if ms >= e.to {
		return nil, ErrExpired
	}
	return e.token, nil
}

// openToken is a miss of the cache.
func (m *Manager) openToken(ctx context.Context, now moment, presented string, seen Digest) (Credential, error) {
	text, err := paseto.Parse(presented)
	if err != nil {
		return nil, tokenProblem(err)
	}
	ticket := m.tokens.cache.Begin()
	id := kid(text.Footer())
	if id == "" {
		return nil, ErrTokenKey
	}
	key, err := m.findKey(ctx, id, now)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, ErrTokenKey
	}
	t, err := openWith(key, text, m.cfg.Tokens)
	if err != nil {
		return nil, err
	}
	return m.settleToken(ctx, now, ticket, seen, t)
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

// settleToken looks at what may have ended a token that is sound, remembers the
// answer and gives it.
func (m *Manager) settleToken(ctx context.Context, now moment, ticket cache.Ticket, seen Digest, t *Token) (Credential, error) {
	e := newTokenEntry(seen, t, m.cfg.Tokens.Leeway)
	e.until = now.mono + int64(m.cfg.MaxStaleness)
	if now.ms >= e.to {
		return nil, ErrExpired // for good: not worth a place
	}
	refused, err := m.ended(ctx, now, t)
	if err != nil {
		return nil, checkError(err)
	}
	e.refused = refused
	refs := t.refs(m.issuerMark())
	if !t.parent.IsZero() && refused == nil {
		parent, err := m.parentState(ctx, now, t.parent)
		if err != nil {
			return nil, err
		}
		refs = append(refs, parent.key.subjectRef)
		switch end := parent.key.endsAt(); {
		case parent.revoked:
			e.refused = ErrRevoked
		default:
			e.refused = parent.key.refusal(now.ms)
			if end != 0 {
				e.to = min(e.to, end)
			}
		}
	}
	m.tokens.cache.Put(cache.Key(seen.sum[:16]), e, ticket, forever, cacheRefs(refs)...)
	return e.answer(now.ms)
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

// ended reports why a token was ended, or nil: by the marks that follow the feed,
// or by the store where those are stale.
func (m *Manager) ended(ctx context.Context, now moment, t *Token) (refused, err error) {
	look := func(id recordID) (mark, error) { return m.readMark(ctx, id) }
	if m.fresh(now) {
		look = func(id recordID) (mark, error) {
			found, _ := m.tokens.marks.get(id)
			return found, nil
		}
	}
	ids := []recordID{t.subjectRef, m.issuerMark(), markOf("token", t.id)}
	if !t.family.IsZero() {
		ids = append(ids, markOf("family", t.family))
	}
	for _, id := range ids {
		found, err := look(id)
		if err != nil {
			return nil, err
		}
		if t.epoch < found.epoch && id == t.subjectRef || t.issuedAt < found.before {
			return ErrRevoked, nil
		}
	}
	return nil, nil
}

// issuerMark is the record that ends what the issuer issued before an instant.
func (m *Manager) issuerMark() recordID {
	return namedRecord(recordMark, "issuer", m.cfg.Tokens.Issuer)
}

// parentState returns the state of a key that tokens came from: from memory as
// long as the feed would have told of a change.
func (m *Manager) parentState(ctx context.Context, now moment, id ID) (*parentState, error) {
	if p, ok := m.tokens.parents.Get(cache.Key(id), now.mono); ok && (now.mono < p.until || m.fresh(now)) {
		return p, nil
	}
	ticket := m.tokens.parents.Begin()
	rec, err := m.store.Get(ctx, backend.ID(id))
	if err != nil {
		return nil, checkError(err)
	}
	k, err := decodeKey(&rec)
	if err != nil {
		return nil, fmt.Errorf("fob: verify: %w", err)
	}
	epoch, _, err := m.readEpoch(ctx, k.subjectRef)
	if err != nil {
		return nil, checkError(err)
	}
	p := parentState{key: k, until: now.mono + int64(m.cfg.MaxStaleness), revoked: k.epoch < epoch}
	stored, _ := m.tokens.parents.Put(cache.Key(id), p, ticket, forever, cache.Ref(id), cache.Ref(k.subjectRef))
	return stored, nil
}
