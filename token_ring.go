package fob

import (
	"context"
	"time"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/tokenring"
)

// TokenKey describes a key that seals tokens, without the secret part of the key.
type TokenKey struct {
	// ID is the key's PASERK ID, which the footer of each of its tokens names.
	ID       string
	Protocol Protocol
	// ActiveAt is when it begins to seal new tokens, until a later key does. RetireAt is
	// when the last of its tokens has expired, and it verifies no more; zero while there
	// is no later key.
	ActiveAt, RetireAt time.Time
	// Public is the key that verifies, as PASERK ("k4.public.…"); "" for a local
	// protocol, whose key is a secret.
	Public string
}

// ringSkew is by how much the clocks of two processes may differ before tokens are
// refused because their key was retired: a process whose clock is behind seals with a key
// for longer, and one whose clock is ahead retires it sooner. It is less than
// clock.MaxSkew, because a refused token can be issued anew, and a ring holds few keys.
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

// currentRing returns a ring that is current enough to seal tokens and to publish keys.
func (m *Manager) currentRing(ctx context.Context) (*tokenring.Ring, error) {
	return m.tokens.Current(ctx, m.engine.Now())
}

// ringChanged makes the keeper read the ring again, because it has changed or may have.
func (m *Manager) ringChanged(ctx context.Context) {
	if m.tokens == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, upkeepTimeout)
	defer cancel()
	m.tokens.Changed(ctx)
}

// RotateTokenKey adds a new token key to the ring. It is known at once and used after
// TokenConfig.KeyLead; the key before it goes on verifying until its last token has
// expired, so no token is refused. If a key is already waiting to be used, that one is
// returned and nothing changes, so that a rotation can be called again.
func (m *Manager) RotateTokenKey(ctx context.Context) (TokenKey, error) {
	if err := m.tokensReady(); err != nil {
		return TokenKey{}, err
	}
	newest, made, err := m.tokens.Rotate(ctx, func(ctx context.Context) time.Duration {
		return m.fleet.LongestTTL(ctx) + 2*m.cfg.Tokens.late() + m.cfg.MaxStaleness + ringSkew
	})
	if made || err != nil {
		m.observeOutcome(ctx, Event{Type: EventTokenKeyRotated}, err)
	}
	if err != nil {
		return TokenKey{}, err
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
