package fob

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
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

// readRing is for whoever has ringTurn.
func (m *Manager) readRing(ctx context.Context) (*tokenring.Ring, error) {
	t := m.tokens
	if t.seal == nil {
		if r := t.ring.Load(); r != nil {
			return r, nil
		}
		first, err := tokenring.Draw(paseto.Protocol(m.cfg.Tokens.Protocol), 0)
		if err != nil {
			return nil, err
		}
		r := tokenring.New([]tokenring.Key{first}, 0)
		t.ring.Store(r)
		return r, nil
	}
	var found *tokenring.Ring
	err := retry.Do(ctx, func(bool) error {
		rec, err := m.store.Get(ctx, ringRecord(m.cfg.Tokens.Issuer))
		switch {
		case err == nil:
			if found, err = t.seal.Decode(&rec); err != nil {
				return fmt.Errorf("fob: token keys: %w", err)
			}
			return nil
		case !errors.Is(err, backend.ErrNotFound):
			return errs.OfStore("fob: read token keys", err)
		}
		first, err := tokenring.Draw(paseto.Protocol(m.cfg.Tokens.Protocol), 0)
		if err != nil {
			return err
		}
		err = m.writeRing(ctx, []tokenring.Key{first}, backend.IfAbsent(), clock.Millis(m.now()))
		if err != nil {
			return retry.Raced(err)
		}
		return retry.Again(errReadBack)
	})
	if err != nil {
		return nil, err
	}
	t.ring.Store(found)
	return found, nil
}

// errReadBack is why something that was just written is read: it counts as it stands
// in the store.
var errReadBack = errors.New("fob: read back what was written")

func (m *Manager) writeRing(ctx context.Context, keys []tokenring.Key, cond backend.Cond, created int64) error {
	rec := backend.Record{ID: ringRecord(m.cfg.Tokens.Issuer), Kind: record.Ring, Created: created}
	if err := m.tokens.seal.Encode(&rec, keys); err != nil {
		return err
	}
	if _, err := m.records.Replace(ctx, rec, cond); err != nil {
		return fmt.Errorf("fob: write token keys: %w", err)
	}
	return nil
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
	var rotated TokenKey
	err := retry.Do(ctx, func(bool) error {
		r, err := m.loadRing(ctx)
		if err != nil {
			return err
		}
		now := clock.Millis(m.now())
		newest := &r.Keys[len(r.Keys)-1]
		if newest.ActiveAt > now {
			rotated = describe(newest)
			return nil
		}
		next, err := tokenring.Draw(paseto.Protocol(m.cfg.Tokens.Protocol), now+max(m.cfg.Tokens.KeyLead.Milliseconds(), 1))
		if err != nil {
			return err
		}
		kept := m.fleet.LongestTTL(ctx) + 2*m.cfg.Tokens.late() + m.cfg.MaxStaleness + ringSkew
		keys := make([]tokenring.Key, 0, len(r.Keys)+1)
		for _, k := range r.Keys {
			if k.RetireAt == 0 {
				k.RetireAt = next.ActiveAt + kept.Milliseconds()
			}
			if now < k.RetireAt {
				keys = append(keys, k)
			}
		}
		if len(keys) >= tokenring.Max {
			return fmt.Errorf("%w: %d token keys are in use, at most %d", ErrInvalid, len(keys), tokenring.Max)
		}
		keys = append(keys, next)
		if err := m.replaceRing(ctx, r, keys); err != nil {
			return retry.Raced(err)
		}
		m.observe(Event{Type: EventTokenKeyRotated})
		rotated = describe(&next)
		return nil
	})
	return rotated, err
}

// replaceRing writes keys over the ring old.
func (m *Manager) replaceRing(ctx context.Context, old *tokenring.Ring, keys []tokenring.Key) error {
	t := m.tokens
	if t.seal == nil {
		if !t.ring.CompareAndSwap(old, tokenring.New(keys, 0)) {
			return ErrConflict
		}
		return nil
	}
	rec, err := m.store.Get(ctx, ringRecord(m.cfg.Tokens.Issuer))
	if err != nil {
		return errs.OfStore("fob: read token keys", err)
	}
	if rec.Version != old.Version {
		return ErrConflict
	}
	if err := m.writeRing(ctx, keys, backend.IfVersion(old.Version), rec.Created); err != nil {
		return err
	}
	_, _ = m.loadRing(ctx) // it is written; whoever cannot read it now does so before it is used
	return nil
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
	now := clock.Millis(m.now())
	var all []TokenKey
	for i := range r.Keys {
		if k := &r.Keys[i]; k.RetireAt == 0 || now < k.RetireAt {
			all = append(all, describe(k))
		}
	}
	return all, nil
}

func describe(k *tokenring.Key) TokenKey {
	d := TokenKey{ID: k.ID, Protocol: Protocol(k.Protocol), ActiveAt: clock.Instant(k.ActiveAt), RetireAt: clock.Instant(k.RetireAt)}
	if public, ok := k.Opener.(paseto.PublicKey); ok {
		d.Public = public.PASERK()
	}
	return d
}
