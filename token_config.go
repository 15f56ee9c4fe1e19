package fob

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/fobkit/fob/internal/fleet"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/tokenring"
)

// Protocol is a version and purpose of PASETO. It belongs to a token key: a token
// never says how it is to be checked.
type Protocol uint8

// The protocols.
const (
	// V4Local encrypts: what is in a token is hidden, and who can read a token can
	// also make one. For applications that issue and verify themselves.
	V4Local Protocol = Protocol(paseto.V4Local)
	// V4Public signs: others verify with a public key, and anybody can read what is
	// in a token. Checking a signature that is not in the cache takes some 60 µs.
	V4Public Protocol = Protocol(paseto.V4Public)
	// V2Local and V2Public are for fleets that have them already: the specification has
	// deprecated version 2, and v2.local does not commit to its key. A process in FIPS
	// 140-only mode cannot use V2Local: New refuses it, and the check of such a token from
	// elsewhere fails with an error that is no rejection.
	V2Local  Protocol = Protocol(paseto.V2Local)
	V2Public Protocol = Protocol(paseto.V2Public)
)

// String is the protocol as it stands in a token: "v4.local".
func (p Protocol) String() string { return paseto.Protocol(p).String() }

// TokenConfig is the settings of tokens. Each zero field means its documented default.
type TokenConfig struct {
	// Issuer is the claim iss of the tokens issued and the only one accepted, up to 256
	// bytes. Managers on one store that share token keys must have the same Issuer.
	// Default Config.Prefix.
	Issuer string
	// Audiences are the values of the claim aud that Verify accepts. A token whose spec
	// names no audience gets the first. Default: Issuer.
	Audiences []string
	// Protocol is the protocol of new token keys. Default V4Local. Keys of other protocols
	// that are in the ring already go on verifying.
	Protocol Protocol
	// SealKey is 32 bytes from a cryptographic source, held outside the store. Token keys
	// are encrypted under it in the store, so that every process with the same SealKey and
	// Issuer shares them. Without one, token keys are in the memory of this Manager only:
	// its tokens become invalid when it ends, and no other process can check tokens of a
	// local protocol.
	SealKey []byte

	// TTL is how long a token is accepted if its spec does not say. Default 15 min.
	TTL time.Duration
	// MaxTTL is the longest TTL that a spec may ask for; tokens that claim more are
	// refused. Default 1 hour, or TTL if that is more.
	MaxTTL time.Duration
	// Leeway is by how much the clocks of issuer and verifier may differ: a token is
	// accepted from this much before its beginning until this much after its end. Up to 5
	// min. Default: 5 s before the beginning, so that a verifier whose clock is a little
	// behind accepts what was just issued, and none after the end, so that no token lives
	// longer than it says. Negative means none at either end.
	Leeway time.Duration

	// KeyLead is how long a new token key is known before it is used, so that every
	// process and every follower of the public keys has it by then. Default
	// 1 minute. The first key is used at once.
	KeyLead time.Duration

	// RefreshTTL bounds how long tokens can be refreshed in all, counted from when the
	// first begins. RefreshIdle bounds how long a refresh secret may lie unused. Defaults:
	// 30 days and 7 days.
	RefreshTTL, RefreshIdle time.Duration
	// RefreshGrace is how long after its use a refresh secret can be presented again: it
	// gets the newest pair of its family, for a client that lost its answer or has several
	// tabs. That holds for the last 32 secrets that were used. Later the secret is taken
	// for stolen, and the family is revoked. So whoever has copied a secret can use it for
	// this long after its holder did without being found out at once. Default 10 s;
	// negative means none.
	RefreshGrace time.Duration
	// OnRefresh, if set, is asked at each refresh what the next access token is to allow, so
	// that the application can look again at the user. It may take from what the Renewal
	// holds; what it adds beyond the session is left out (a role counts by its name: for a
	// smaller one put its scopes in place of the role), and the next refresh begins from
	// the session's own rights again. If it returns an error that is ErrRevoked, the session
	// is revoked, and the refresh fails with ErrRevoked. Any other error, or a panic, means
	// that this could not be checked: the refresh fails with an error that is no rejection,
	// and the refresh secret can be used again. It is called in the goroutine of Refresh, with
	// its context, before anything is written. A repeat within RefreshGrace gets the newest
	// pair, and is not asked about.
	OnRefresh func(ctx context.Context, r *Renewal) error
}

// The defaults and limits of TokenConfig.
const (
	defaultLeeway       = 5 * time.Second
	defaultTokenTTL     = 15 * time.Minute
	defaultMaxTTL       = fleet.DefaultTTL
	limitTTL            = fleet.MaxTTL
	defaultKeyLead      = time.Minute
	defaultRefreshTTL   = 30 * 24 * time.Hour
	defaultRefreshIdle  = 7 * 24 * time.Hour
	defaultRefreshGrace = 10 * time.Second
	maxLeeway           = 5 * time.Minute
)

// early and late are how long before its beginning and after its end a token is accepted.
func (c *TokenConfig) early() time.Duration {
	if c.Leeway == 0 {
		return defaultLeeway
	}
	return max(c.Leeway, 0)
}

func (c *TokenConfig) late() time.Duration { return max(c.Leeway, 0) }

// Format shows no key, for every verb.
func (c TokenConfig) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, c.shown())
}

func (c TokenConfig) shown() string { return fmt.Sprintf("token config of issuer %q", c.Issuer) }

// String shows no key.
func (c TokenConfig) String() string { return c.shown() }

// MarshalBinary fails, because it would write the key.
func (c TokenConfig) MarshalBinary() ([]byte, error) { return nil, errNoBinary }

// MarshalText shows no key; JSON, XML and YAML use it too.
func (c TokenConfig) MarshalText() ([]byte, error) { return []byte(c.shown()), nil }

// LogValue shows no key.
func (c TokenConfig) LogValue() slog.Value { return slog.StringValue(c.shown()) }

// resolved returns a copy of c that shares no memory with it and has the defaults filled
// in, and every problem.
func (c TokenConfig) resolved(prefix string) (*TokenConfig, []error) {
	var problems []error
	problem := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w: Tokens."+format, append([]any{ErrInvalid}, args...)...))
	}
	orDefault(&c.Issuer, prefix)
	c.Audiences = slices.Clone(c.Audiences)
	if len(c.Audiences) == 0 {
		c.Audiences = []string{c.Issuer}
	}
	orDefault(&c.Protocol, V4Local)
	orDefault(&c.TTL, defaultTokenTTL)
	orDefault(&c.MaxTTL, max(defaultMaxTTL, c.TTL))
	orDefault(&c.KeyLead, defaultKeyLead)
	orDefault(&c.RefreshTTL, defaultRefreshTTL)
	orDefault(&c.RefreshIdle, min(defaultRefreshIdle, c.RefreshTTL))
	orDefault(&c.RefreshGrace, defaultRefreshGrace)
	c.RefreshGrace = max(c.RefreshGrace, 0)
	c.Leeway = max(c.Leeway, -1)
	if !validAudience(c.Issuer) {
		problem("Issuer of %d bytes, want 1 to %d of UTF-8 without control characters", len(c.Issuer), maxAudience)
	}
	for i, a := range c.Audiences {
		if !validAudience(a) {
			problem("Audiences[%d] of %d bytes, want 1 to %d of UTF-8 without control characters", i, len(a), maxAudience)
		}
	}
	if !paseto.Protocol(c.Protocol).Valid() {
		problem("Protocol %d", c.Protocol)
	} else if err := paseto.Protocol(c.Protocol).Usable(); err != nil {
		problems = append(problems, fmt.Errorf("%w: Tokens.Protocol: %w", ErrInvalid, err))
	}
	if c.SealKey != nil {
		c.SealKey = slices.Clone(c.SealKey)
		k, err := paseto.SymmetricKeyFrom(paseto.V4Local, c.SealKey)
		if err != nil || k.Weak() {
			problem("SealKey of %d bytes, want %d random ones", len(c.SealKey), paseto.SymmetricSize)
		}
	}
	for _, d := range []struct {
		name        string
		value       time.Duration
		least, most time.Duration
	}{
		{"TTL", c.TTL, time.Second, c.MaxTTL},
		{"MaxTTL", c.MaxTTL, time.Second, limitTTL},
		{"Leeway", c.Leeway, -1, maxLeeway},
		{"KeyLead", c.KeyLead, 2 * tokenring.ReloadEvery, limitTTL},
		{"RefreshTTL", c.RefreshTTL, time.Second, limitTTL},
		{"RefreshIdle", c.RefreshIdle, time.Second, c.RefreshTTL},
		{"RefreshGrace", c.RefreshGrace, 0, time.Hour},
	} {
		if d.value < d.least || d.value > d.most {
			problem("%s %v, want %v to %v", d.name, d.value, d.least, d.most)
		}
	}
	return &c, problems
}
