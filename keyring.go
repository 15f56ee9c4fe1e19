package fob

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/paseto"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/retry"
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

// ringKey is a key with its times, in Unix milliseconds.
type ringKey struct {
	id                 string
	protocol           paseto.Protocol
	sealer             paseto.Sealer // nil where only the public half is known
	opener             paseto.Opener
	activeAt, retireAt int64
}

// ring is the token keys as they were when it was read, oldest first. It is
// immutable. Which key is active follows from the clock, so that all processes
// change over without a word between them.
type ring struct {
	keys    []ringKey
	byID    map[string]*ringKey
	version uint64 // of the record; zero for a ring that is in none
}

func newRing(keys []ringKey, version uint64) *ring {
	r := &ring{keys: keys, byID: make(map[string]*ringKey, len(keys)), version: version}
	for i := range keys {
		r.byID[keys[i].id] = &keys[i]
	}
	return r
}

// active is the key that seals at an instant; nil if there is none yet.
func (r *ring) active(ms int64) *ringKey {
	for i := len(r.keys) - 1; i >= 0; i-- {
		if k := &r.keys[i]; k.activeAt <= ms && k.sealer != nil {
			return k
		}
	}
	return nil
}

// find returns the key to verify with, or nil.
func (r *ring) find(id string, ms int64) *ringKey {
	k := r.byID[id]
	if k == nil || k.retireAt != 0 && ms >= k.retireAt {
		return nil
	}
	return k
}

// ringSkew is by how much the clocks of two processes may differ before tokens are
// refused because their key was retired: it is used for longer by a process that is
// behind, and retires sooner for one that is ahead. It is less than maxSkew, because what
// is refused is issued anew, and a ring holds few keys.
const ringSkew = 5 * time.Minute

// maxRing bounds the keys of a ring.
const maxRing = 32

func drawRingKey(p paseto.Protocol, activeAt int64) (ringKey, error) {
	k := ringKey{protocol: p, activeAt: activeAt}
	if p.Local() {
		sym, err := paseto.NewSymmetricKey(p)
		if err != nil {
			return ringKey{}, fmt.Errorf("fob: draw token key: %w", err)
		}
		k.sealer, k.opener = sym, sym
	} else {
		sec, err := paseto.NewSecretKey(p)
		if err != nil {
			return ringKey{}, fmt.Errorf("fob: draw token key: %w", err)
		}
		k.sealer, k.opener = sec, sec.Public()
	}
	k.id = k.opener.ID()
	return k, nil
}

func ringRecord(issuer string) record.ID { return record.Named(record.Ring, issuer) }

// readRing is for whoever has ringTurn.
func (m *Manager) readRing(ctx context.Context) (*ring, error) {
	t := m.tokens
	if t.seal == nil {
		if r := t.ring.Load(); r != nil {
			return r, nil
		}
		first, err := drawRingKey(paseto.Protocol(m.cfg.Tokens.Protocol), 0)
		if err != nil {
			return nil, err
		}
		r := newRing([]ringKey{first}, 0)
		t.ring.Store(r)
		return r, nil
	}
	var found *ring
	err := retry.Do(ctx, func(bool) error {
		rec, err := m.store.Get(ctx, ringRecord(m.cfg.Tokens.Issuer))
		switch {
		case err == nil:
			if found, err = t.seal.decode(&rec); err != nil {
				return fmt.Errorf("fob: token keys: %w", err)
			}
			return nil
		case !errors.Is(err, backend.ErrNotFound):
			return errs.OfStore("fob: read token keys", err)
		}
		first, err := drawRingKey(paseto.Protocol(m.cfg.Tokens.Protocol), 0)
		if err != nil {
			return err
		}
		err = m.writeRing(ctx, []ringKey{first}, backend.IfAbsent(), clock.Millis(m.now()))
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

func (m *Manager) writeRing(ctx context.Context, keys []ringKey, cond backend.Cond, created int64) error {
	rec := backend.Record{ID: ringRecord(m.cfg.Tokens.Issuer), Kind: record.Ring, Created: created}
	if err := m.tokens.seal.encode(&rec, keys); err != nil {
		return err
	}
	if _, err := m.replace(ctx, rec, cond); err != nil {
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
		newest := &r.keys[len(r.keys)-1]
		if newest.activeAt > now {
			rotated = describe(newest)
			return nil
		}
		next, err := drawRingKey(paseto.Protocol(m.cfg.Tokens.Protocol), now+max(m.cfg.Tokens.KeyLead.Milliseconds(), 1))
		if err != nil {
			return err
		}
		kept := m.longestTTL(ctx) + 2*m.cfg.Tokens.late() + m.cfg.MaxStaleness + ringSkew
		keys := make([]ringKey, 0, len(r.keys)+1)
		for _, k := range r.keys {
			if k.retireAt == 0 {
				k.retireAt = next.activeAt + kept.Milliseconds()
			}
			if now < k.retireAt {
				keys = append(keys, k)
			}
		}
		if len(keys) >= maxRing {
			return fmt.Errorf("%w: %d token keys are in use, at most %d", ErrInvalid, len(keys), maxRing)
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
func (m *Manager) replaceRing(ctx context.Context, old *ring, keys []ringKey) error {
	t := m.tokens
	if t.seal == nil {
		if !t.ring.CompareAndSwap(old, newRing(keys, 0)) {
			return ErrConflict
		}
		return nil
	}
	rec, err := m.store.Get(ctx, ringRecord(m.cfg.Tokens.Issuer))
	if err != nil {
		return errs.OfStore("fob: read token keys", err)
	}
	if rec.Version != old.version {
		return ErrConflict
	}
	if err := m.writeRing(ctx, keys, backend.IfVersion(old.version), rec.Created); err != nil {
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
	for i := range r.keys {
		if k := &r.keys[i]; k.retireAt == 0 || now < k.retireAt {
			all = append(all, describe(k))
		}
	}
	return all, nil
}

func describe(k *ringKey) TokenKey {
	d := TokenKey{ID: k.id, Protocol: Protocol(k.protocol), ActiveAt: clock.Instant(k.activeAt), RetireAt: clock.Instant(k.retireAt)}
	if public, ok := k.opener.(paseto.PublicKey); ok {
		d.Public = public.PASERK()
	}
	return d
}

// The footer of a token is exactly {"kid":"<PASERK ID>"}: it names a key to try,
// and nothing else in it could be trusted before the token was opened.
const (
	footerStart = `{"kid":"`
	footerEnd   = `"}`
)

func footerOf(id string) string { return footerStart + id + footerEnd }

// kid is the key named by a footer, or "".
func kid(footer []byte) string {
	id, ok := strings.CutPrefix(string(footer), footerStart)
	id, ok2 := strings.CutSuffix(id, footerEnd)
	if !ok || !ok2 {
		return ""
	}
	return id
}
