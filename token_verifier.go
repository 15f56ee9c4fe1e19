package fob

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/engine"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/tokenring"
)

// TokenKeySource returns the token keys that there are now; only those with a Public part
// are used. [*Manager] is one; httpauth has one that asks the Manager of another process.
type TokenKeySource interface {
	TokenKeys(ctx context.Context) ([]TokenKey, error)
}

// PublicTokenKeys is a fixed list of public keys, as PASERK ("k4.public.…").
type PublicTokenKeys []string

// TokenKeys implements TokenKeySource.
func (p PublicTokenKeys) TokenKeys(context.Context) ([]TokenKey, error) {
	keys := make([]TokenKey, len(p))
	for i, text := range p {
		k, err := ParsePublicTokenKey(text)
		if err != nil {
			return nil, err
		}
		keys[i] = k
	}
	return keys, nil
}

// ParsePublicTokenKey reads a public key as PASERK ("k4.public.…", "k2.public.…").
// A key under which anybody could sign is ErrInvalid, as is any other text.
func ParsePublicTokenKey(text string) (TokenKey, error) {
	for _, p := range []paseto.Protocol{paseto.V4Public, paseto.V2Public} {
		k, err := paseto.ParsePublicKey(p, text)
		if err != nil {
			continue
		}
		if k.Weak() {
			return TokenKey{}, fmt.Errorf("%w: weak public key", ErrInvalid)
		}
		return TokenKey{ID: k.ID(), Protocol: Protocol(p), Public: k.PASERK()}, nil
	}
	return TokenKey{}, fmt.Errorf("%w: no public key in PASERK form", ErrInvalid)
}

// TokenVerifierConfig is the settings of a TokenVerifier.
type TokenVerifierConfig struct {
	// Issuer is the only claim iss that is accepted. Required.
	Issuer string
	// Audiences are the values of the claim aud that are accepted. Required.
	Audiences []string
	// MaxTTL refuses tokens that claim a longer life. Default 1 hour.
	MaxTTL time.Duration
	// Leeway is by how much the clocks may differ, as in TokenConfig.
	Leeway time.Duration
	// Roles are what the roles in tokens stand for here, as in Config.
	Roles Roles
	// CacheEntries bounds the verification cache. Default 100,000.
	CacheEntries int
	// Clock tells the time. Default time.Now.
	Clock func() time.Time
}

// TokenVerifier checks signed tokens by public keys alone, in a process that has
// neither the store nor a secret. It implements Verifier.
//
// It does not learn of revocations, nor of changes of the key that a token was exchanged
// for: a token that was revoked is accepted here until it expires, one whose key has lost
// rights allows what it was sealed with, and its use does not count for the key. If that
// is too much, issue tokens with a short TTL, or ask a [Manager]. A token that was
// refreshed since holds what the key allowed at that time.
type TokenVerifier struct {
	cfg   TokenConfig
	roles Roles
	clock clock.Clock
	cache *cache.Cache[answer]
	keys  *tokenring.Fetcher
}

var (
	_ Verifier       = (*TokenVerifier)(nil)
	_ TokenKeySource = (*Manager)(nil)
	_ TokenKeySource = PublicTokenKeys(nil)
)

// NewTokenVerifier makes a verifier that gets its keys from source. It asks source when
// it first needs a key, and again when the keys are 15 s old or a token names an unknown
// key (once a second at most, also while source fails). While source fails, it goes on
// with the keys that it has, for up to an hour. It starts no goroutine: one caller at a
// time fetches keys that are 15 s old, and waits for them for 250 ms at most (up to 8 s
// after source has failed several times, and is asked once a minute only); all others go
// on with the known keys. A source that returns no public key counts as failing. A token
// that names an unknown key while source fails cannot be checked, which is no rejection.
// A config that cannot work is ErrInvalid.
func NewTokenVerifier(source TokenKeySource, cfg TokenVerifierConfig) (*TokenVerifier, error) {
	if guard.Missing(source) || cfg.Issuer == "" || len(cfg.Audiences) == 0 {
		return nil, fmt.Errorf("%w: a token verifier needs a source of keys, an issuer and an audience", ErrInvalid)
	}
	resolved, problems := TokenConfig{
		Issuer: cfg.Issuer, Audiences: cfg.Audiences, MaxTTL: cfg.MaxTTL, TTL: min(defaultTokenTTL, max(cfg.MaxTTL, time.Second)),
		Leeway: cfg.Leeway, Protocol: V4Public,
	}.resolved("")
	roles, err := cfg.Roles.resolved()
	if err := errors.Join(append(problems, err)...); err != nil {
		return nil, err
	}
	entries, err := cache.New(cache.Config[answer]{Entries: cfg.CacheEntries})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	v := &TokenVerifier{cfg: *resolved, roles: roles, cache: entries}
	v.clock.Start(cfg.Clock, clockStride)
	v.keys = tokenring.NewFetcher(func(ctx context.Context) ([]tokenring.Key, error) { return publicKeys(ctx, source) }, &v.clock, entries.Clear)
	return v, nil
}

// publicKeys asks a source for its keys, and leaves out those that have no public half.
func publicKeys(ctx context.Context, source TokenKeySource) ([]tokenring.Key, error) {
	listed, err := source.TokenKeys(ctx)
	if err != nil {
		return nil, err
	}
	if len(listed) > tokenring.Max {
		return nil, fmt.Errorf("%w: %d token keys, at most %d", ErrInvalid, len(listed), tokenring.Max)
	}
	var keys []tokenring.Key
	for _, one := range listed {
		if one.Public == "" {
			continue
		}
		parsed, err := ParsePublicTokenKey(one.Public)
		if err != nil {
			return nil, err
		}
		k := tokenring.Key{ID: parsed.ID, Protocol: paseto.Protocol(parsed.Protocol), ActiveAt: clock.Millis(one.ActiveAt), RetireAt: clock.Millis(one.RetireAt)}
		if k.Opener, err = paseto.ParsePublicKey(k.Protocol, parsed.Public); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// Verify implements Verifier: it returns a *Token, or an error in the two classes
// of Manager.Verify.
func (v *TokenVerifier) Verify(ctx context.Context, presented string) (Credential, error) {
	if !isToken(presented) {
		return nil, errs.ErrTokenFormat
	}
	if len(presented) > paseto.MaxToken {
		return nil, errs.ErrTokenLength
	}
	seen := engine.Digest(sha256.Sum256(bytesOf(presented)))
	at := cache.Key(seen[:len(cache.Key{})])
	now := v.clock.Now()
	v.keys.Renew(ctx, now)
	if e, ok := v.cache.Get(at, now.Mono); ok && e.Seen.Equal(&seen) && v.keys.Good(now) {
		return e.Body.at(now.MS)
	}
	text, err := paseto.Parse(presented)
	if err != nil {
		return nil, errs.OfToken(err)
	}
	if text.Protocol().Local() {
		return nil, errs.ErrTokenProtocol
	}
	ticket := v.cache.Begin()
	key, err := v.keys.Find(ctx, tokenring.KeyID(text.Footer()), now)
	if err != nil {
		return nil, err
	}
	t, err := openWith(key, text, &v.cfg, v.roles)
	if err != nil {
		return nil, err
	}
	e := answer{Seen: seen, Form: formToken, Body: tokenBody(t, &v.cfg)}
	if key.RetireAt != 0 {
		e.Body.to = min(e.Body.to, key.RetireAt)
	}
	v.cache.Put(at, e, ticket, clock.Forever)
	return e.Body.at(now.MS)
}
