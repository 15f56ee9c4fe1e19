package fob

import (
	"context"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/tokenring"
)

// TokenKey describes a key that seals tokens; it does not hold it.
type TokenKey struct {
	// ID is the key's PASERK ID, which the footer of each of its tokens names.
	ID       string
	Protocol Protocol
	// ActiveAt is from when it seals new tokens, until a later key does. RetireAt is
	// when the last of its tokens has expired and it verifies no more; zero as long
	// as no later key is there.
	ActiveAt, RetireAt time.Time
	// Public is the key that verifies, as PASERK ("k4.public.…"); "" for a local
	// protocol, whose key is a secret.
	Public string
}

// ringSkew is by how much the clocks of two processes may differ before tokens are
// refused because their key was retired: it is used for longer by a process that is
// behind, and retires sooner for one that is ahead. It is less than clock.MaxSkew, because what
// is refused is issued anew, and a ring holds few keys.
const ringSkew = 5 * time.Minute

func ringRecord(issuer string) record.ID { return record.Named(record.Ring, issuer) }

// newTokens makes the keeper of the token keys; it asks nothing of the store.
func (m *Manager) newTokens() (*tokenring.Keeper, error) {
	cfg := m.cfg.Tokens
	var seal *tokenring.SealKeys // without one the keys are in memory only
	if cfg.SealKey != nil {
		var err error
		if seal, err = tokenring.NewSealKeys(cfg.SealKey); err != nil {
			return nil, err
		}
	}
	return tokenring.NewKeeper(tokenring.KeeperConfig{
		Store: m.records, Clock: &m.clock, Record: ringRecord(cfg.Issuer), Seal: seal,
		Protocol: paseto.Protocol(cfg.Protocol), Lead: cfg.KeyLead, MaxAge: m.cfg.MaxStaleness,
		Live:    m.engine.Live,
		Problem: func(err error) { m.problem(ringName, err) },
	}), nil
}

// currentRing returns a ring by which a token can be sealed, or the keys be published.
func (m *Manager) currentRing(ctx context.Context) (*tokenring.Ring, error) {
	return m.tokens.Current(ctx, m.engine.Now())
}

// ringChanged is told that the ring has changed, or may have while nobody told of it.
func (m *Manager) ringChanged(ctx context.Context) {
	if m.tokens == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	m.tokens.Changed(ctx)
}

// RotateTokenKey adds a new token key to the ring. It is known at once and used
// after TokenConfig.KeyLead; the key before it goes on verifying until its last
// token has expired, so no token is refused. If a key is waiting to be used
// already, that one is returned and nothing changes: a rotation can be called
// again.
func (m *Manager) RotateTokenKey(ctx context.Context) (TokenKey, error) {
	if err := m.tokensReady(); err != nil {
		return TokenKey{}, err
	}
	newest, made, err := m.tokens.Rotate(ctx, func(ctx context.Context) time.Duration {
		return m.fleet.LongestTTL(ctx) + 2*m.cfg.Tokens.late() + m.cfg.MaxStaleness + ringSkew
	})
	if err != nil {
		return TokenKey{}, err
	}
	if made {
		m.observe(Event{Type: EventTokenKeyRotated})
	}
	return tokenKeyOf(&newest), nil
}

// TokenKeys returns the keys of the ring, oldest first: the one in use, those
// that still verify, and the one that is published for later.
func (m *Manager) TokenKeys(ctx context.Context) ([]TokenKey, error) {
	if err := m.tokensReady(); err != nil {
		return nil, err
	}
	r, err := m.currentRing(ctx)
	if err != nil {
		return nil, err
	}
	var all []TokenKey
	for _, k := range r.Usable(clock.Millis(m.now())) {
		all = append(all, tokenKeyOf(&k))
	}
	return all, nil
}

func tokenKeyOf(k *tokenring.Key) TokenKey {
	d := TokenKey{ID: k.ID, Protocol: Protocol(k.Protocol), ActiveAt: clock.Instant(k.ActiveAt), RetireAt: clock.Instant(k.RetireAt)}
	if public, ok := k.Opener.(paseto.PublicKey); ok {
		d.Public = public.PASERK()
	}
	return d
}
