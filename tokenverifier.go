package fob

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/fobkit/fob/cache"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/guard"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/tokenring"
	"golang.org/x/sync/semaphore"
)

// TokenKeySource gives the token keys that there are now; those with a Public
// half count. *Manager is one; httpauth has one that asks the Manager of another
// process.
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
	// CacheEntries bounds the verification cache. Default 100,000.
	CacheEntries int
	// Clock tells the time. Default time.Now.
	Clock func() time.Time
}

// TokenVerifier checks signed tokens by public keys alone, in a process that has
// neither the store nor a secret. It implements Verifier.
//
// It knows nothing of revocations, nor of what became of the key that a token was
// exchanged for: a token that was revoked is accepted here until it expires, one whose
// key was narrowed allows what it was sealed with, and its use does not count for the
// key. Where that is too long, let tokens be short, or ask a Manager. A token that was
// refreshed since holds what the key allowed at that time.
type TokenVerifier struct {
	cfg    TokenConfig
	source TokenKeySource
	clock  clock.Clock
	cache  *cache.Cache[answer]

	ring    atomic.Pointer[publicRing]
	nextTry atomic.Int64        // monotonic: from when on the keys are to be fetched again
	loading *semaphore.Weighted // taken while they are fetched; guards what is below
	fetched int64               // monotonic: when the last fetch ended
	failed  int                 // how many have failed in a row
	err     error               // of the last one
}

// publicRing is the keys and when they were fetched.
type publicRing struct {
	*tokenring.Ring
	at int64 // monotonic
}

// When the keys are fetched, and how long they are good. The first caller who finds
// that they are due fetches them in its own time, and all others go on meanwhile with
// those that are known. A source that fails is left alone for fetchPause, doubled with
// each failure up to fetchPauseMax; while good keys are known, it is waited for no
// longer than fetchWait, doubled likewise.
const (
	refetchAfter   = 15 * time.Second
	keysGoodFor    = time.Hour // without keys that young nothing is accepted
	refetchUnknown = time.Second
	fetchPause     = time.Second
	fetchPauseMax  = time.Minute
	fetchWait      = 250 * time.Millisecond
	fetchWaitMax   = 8 * time.Second
)

var (
	_ Verifier       = (*TokenVerifier)(nil)
	_ TokenKeySource = (*Manager)(nil)
	_ TokenKeySource = PublicTokenKeys(nil)
)

// NewTokenVerifier makes a verifier over source. It asks source when it first
// needs a key, again when that is 15 s old or a token names a key that it does not
// know (once a second at most, also while source fails), and goes on with the keys that
// it has, for up to an hour, while source fails. It starts no goroutine: one caller at
// a time fetches keys that are 15 s old, and waits for them for 250 ms at most (up to
// 8 s where source failed several times, which is asked once a minute then); all others
// go on with the keys that are known. A source that returns no public key counts as one that
// fails. A token that names an unknown key while source fails could not be checked, which
// is no rejection. A config that cannot work is
// ErrInvalid.
func NewTokenVerifier(source TokenKeySource, cfg TokenVerifierConfig) (*TokenVerifier, error) {
	if guard.Missing(source) || cfg.Issuer == "" || len(cfg.Audiences) == 0 {
		return nil, fmt.Errorf("%w: a token verifier needs a source of keys, an issuer and an audience", ErrInvalid)
	}
	resolved, problems := TokenConfig{
		Issuer: cfg.Issuer, Audiences: cfg.Audiences, MaxTTL: cfg.MaxTTL, TTL: min(defaultTokenTTL, max(cfg.MaxTTL, time.Second)),
		Leeway: cfg.Leeway, Protocol: V4Public,
	}.resolved("")
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	entries, err := cache.New(cache.Config[answer]{Entries: cfg.CacheEntries})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	v := &TokenVerifier{cfg: *resolved, source: source, cache: entries, loading: semaphore.NewWeighted(1)}
	v.clock.Start(cfg.Clock, clockStride)
	return v, nil
}

// Verify implements Verifier: it returns a *Token, or an error in the two classes
// of Manager.Verify.
func (v *TokenVerifier) Verify(ctx context.Context, presented string) (Credential, error) {
	if !isToken(presented) {
		return nil, ErrTokenFormat
	}
	if len(presented) > paseto.MaxToken {
		return nil, ErrTokenLength
	}
	seen, at := seenText(unsafe.Slice(unsafe.StringData(presented), len(presented))) // only read
	now := v.clock.Now()
	if r := v.ring.Load(); v.good(r, now) && now.Mono >= v.nextTry.Load() && v.loading.TryAcquire(1) {
		v.refetch(ctx)
	}
	if e, ok := v.cache.Get(at, now.Mono); ok && e.seen.Equal(seen) && v.good(v.ring.Load(), now) {
		return e.at(now.MS)
	}
	text, err := paseto.Parse(presented)
	if err != nil {
		return nil, tokenProblem(err)
	}
	if text.Protocol().Local() {
		return nil, ErrTokenProtocol
	}
	ticket := v.cache.Begin()
	key, err := v.find(ctx, tokenring.KeyID(text.Footer()), now)
	if err != nil {
		return nil, err
	}
	t, err := openWith(key, text, &v.cfg)
	if err != nil {
		return nil, err
	}
	e := newTokenAnswer(seen, t, &v.cfg)
	if key.RetireAt != 0 {
		e.to = min(e.to, key.RetireAt)
	}
	v.cache.Put(at, e, ticket, clock.Forever)
	return e.at(now.MS)
}

// good reports whether keys may still be used.
func (v *TokenVerifier) good(r *publicRing, now clock.Moment) bool {
	return r != nil && now.Age(r.at) < int64(keysGoodFor)
}

// find returns the key of an ID.
func (v *TokenVerifier) find(ctx context.Context, id string, now clock.Moment) (*tokenring.Key, error) {
	if id == "" {
		return nil, ErrTokenKey
	}
	if r := v.ring.Load(); v.good(r, now) {
		if k := r.Find(id, now.MS); k != nil {
			return k, nil
		}
	}
	// It has to be fetched, be it that the key is new, or that none is known.
	if err := v.loading.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("fob: fetch token keys: %w", err)
	}
	defer v.loading.Release(1)
	now = v.clock.Now()
	r := v.ring.Load()
	good := v.good(r, now)
	if good {
		if k := r.Find(id, now.MS); k != nil {
			return k, nil
		}
	}
	// Anybody can name a key that does not exist: that costs the source no more than a
	// call a second, whatever it answers.
	asked := now.Age(v.fetched) < int64(refetchUnknown)
	never := !good && v.err == nil // no keys, and no failure: it was not asked yet, or long ago
	if !asked || never {
		was := v.fetched
		if v.fetchFor(ctx) {
			if !good {
				v.fetched, v.err = was, nil // the next one has more time perhaps
			}
			return nil, fmt.Errorf("fob: fetch token keys: %w", context.DeadlineExceeded)
		}
		if err := ctx.Err(); err != nil && v.err != nil {
			return nil, fmt.Errorf("fob: fetch token keys: %w", err)
		}
	}
	if v.err != nil {
		return nil, fmt.Errorf("fob: fetch token keys: %w", v.err)
	}
	if r = v.ring.Load(); r != nil {
		if k := r.Find(id, now.MS); k != nil {
			return k, nil
		}
	}
	return nil, ErrTokenKey
}

// errSlowSource is what others are told of a fetch that ended with the time of its
// caller.
var errSlowSource = errors.New("the source gave no answer in time")

// refetch fetches keys while there are some that can be used. Its caller has taken
// loading.
func (v *TokenVerifier) refetch(ctx context.Context) {
	defer v.loading.Release(1)
	if v.clock.Now().Mono < v.nextTry.Load() {
		return // somebody was faster
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(fetchWait<<min(v.failed, 8), fetchWaitMax))
	defer cancel()
	v.fetch(ctx)
}

// errCallersTime is the cause of a fetch's end where it is its caller's deadline. Which
// clock fires first, the fetch's or the caller's own, is chance.
var errCallersTime = errors.New("the caller's deadline")

// fetchFor is fetch within the caller's deadline, and reports whether that ended it. That
// the caller hangs up ends nothing: whoever could end a fetch by that could keep new keys
// from everybody.
func (v *TokenVerifier) fetchFor(ctx context.Context) (outOfTime bool) {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchWaitMax)
	defer cancel()
	if deadline, ok := ctx.Deadline(); ok {
		var end context.CancelFunc
		within, end = context.WithDeadlineCause(within, deadline, errCallersTime)
		defer end()
	}
	v.fetch(within)
	return v.err != nil && errors.Is(context.Cause(within), errCallersTime)
}

// fetch fetches the keys, and notes what came of it, for whoever has loading.
func (v *TokenVerifier) fetch(ctx context.Context) {
	began := v.clock.Now().Mono
	r, err := v.ask(ctx, began)
	ended := v.clock.Now().Mono
	v.fetched = ended
	if err != nil {
		if ctx.Err() != nil {
			err = errSlowSource
		}
		v.err = err
		v.nextTry.Store(ended + int64(min(fetchPause<<min(v.failed, 8), fetchPauseMax)))
		v.failed++
		return
	}
	v.failed, v.err = 0, nil
	v.nextTry.Store(began + int64(refetchAfter))
	if old := v.ring.Load(); old != nil && !slices.EqualFunc(old.Keys, r.Keys, func(a, b tokenring.Key) bool { return a.ID == b.ID && a.RetireAt == b.RetireAt }) {
		v.cache.Clear() // a key that is gone takes its tokens along
	}
	v.ring.Store(r)
}

// ask calls the source.
func (v *TokenVerifier) ask(ctx context.Context, began int64) (*publicRing, error) {
	listed, err := v.source.TokenKeys(ctx)
	if err != nil {
		return nil, errs.Unclassified(err)
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
	if len(keys) == 0 {
		// Of an issuer whose keys are secrets, or of a source that is not what it is taken
		// for. What is known goes on; nothing is a reason to refuse a token for good.
		return nil, errNoKeys
	}
	return &publicRing{Ring: tokenring.New(keys, 0), at: began}, nil
}

// errNoKeys is the failure of a source that has no public key.
var errNoKeys = errors.New("the source has no public key")

// openWith opens a token and checks what does not change with time.
func openWith(key *tokenring.Key, text paseto.Token, cfg *TokenConfig) (*Token, error) {
	payload, err := key.Opener.Open(text, "")
	if err != nil {
		return nil, tokenProblem(err)
	}
	t, err := decodeToken(payload, key.ID)
	if err != nil {
		return nil, err
	}
	if err := cfg.accepts(t); err != nil {
		return nil, err
	}
	return t, nil
}

func newTokenAnswer(seen Digest, t *Token, cfg *TokenConfig) answer {
	return answer{
		seen: seen, form: tokenForm, token: t, claims: t,
		from: max(t.notBefore, t.issuedAt) - cfg.early().Milliseconds(), to: t.expiresAt + cfg.late().Milliseconds(),
	}
}
