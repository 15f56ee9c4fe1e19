// Package tokenring holds the keys that seal and open tokens, and how a store keeps them.
package tokenring

import (
	"fmt"
	"strings"
	"time"

	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/paseto"
)

// Key is a key with its times, in Unix milliseconds.
type Key struct {
	ID                 string
	Protocol           paseto.Protocol
	Sealer             paseto.Sealer // nil where only the public half is known
	Opener             paseto.Opener
	ActiveAt, RetireAt int64
}

// Ring is the token keys as they were when it was read, oldest first. It is
// immutable. Which key is active follows from the clock, so that all processes
// change over without a word between them.
type Ring struct {
	Keys    []Key
	ByID    map[string]*Key
	Version uint64 // of the record; zero for a ring that is in none
}

// New makes a ring of keys, oldest first, which nobody may change after that. version is
// that of the record in which they are; zero if they are in none.
func New(keys []Key, version uint64) *Ring {
	r := &Ring{Keys: keys, ByID: make(map[string]*Key, len(keys)), Version: version}
	for i := range keys {
		r.ByID[keys[i].ID] = &keys[i]
	}
	return r
}

// Active is the key that seals at an instant; nil if there is none yet.
func (r *Ring) Active(ms int64) *Key {
	for i := len(r.Keys) - 1; i >= 0; i-- {
		if k := &r.Keys[i]; k.ActiveAt <= ms && k.Sealer != nil {
			return k
		}
	}
	return nil
}

// Find returns the key to verify with, or nil.
func (r *Ring) Find(id string, ms int64) *Key {
	k := r.ByID[id]
	if k == nil || k.RetireAt != 0 && ms >= k.RetireAt {
		return nil
	}
	return k
}

// Usable are the keys of the ring that seal or verify at an instant, or will.
func (r *Ring) Usable(ms int64) []Key {
	keys := make([]Key, 0, len(r.Keys)+1) // one more is added by with
	for _, k := range r.Keys {
		if k.RetireAt == 0 || ms < k.RetireAt {
			keys = append(keys, k)
		}
	}
	return keys
}

// with returns the keys that are left of the ring at an instant, and next after them.
// Those that had no end yet retire when next has sealed for as long as kept.
func (r *Ring) with(next Key, ms int64, kept time.Duration) ([]Key, error) {
	keys := r.Usable(ms)
	if len(keys) >= Max {
		return nil, fmt.Errorf("%w: %d token keys are in use, at most %d", errs.ErrInvalid, len(keys), Max)
	}
	for i := range keys {
		if keys[i].RetireAt == 0 {
			keys[i].RetireAt = next.ActiveAt + kept.Milliseconds()
		}
	}
	return append(keys, next), nil
}

// Max bounds the keys of a ring.
const Max = 32

// Draw makes a key that seals from an instant on, in Unix milliseconds; zero is at once.
// It fails where the protocol cannot be used in this process.
func Draw(p paseto.Protocol, activeAt int64) (Key, error) {
	k := Key{Protocol: p, ActiveAt: activeAt}
	if p.Local() {
		sym, err := paseto.NewSymmetricKey(p)
		if err != nil {
			return Key{}, fmt.Errorf("fob: draw token key: %w", err)
		}
		k.Sealer, k.Opener = sym, sym
	} else {
		sec, err := paseto.NewSecretKey(p)
		if err != nil {
			return Key{}, fmt.Errorf("fob: draw token key: %w", err)
		}
		k.Sealer, k.Opener = sec, sec.Public()
	}
	k.ID = k.Opener.ID()
	return k, nil
}

// The footer of a token is exactly {"kid":"<PASERK ID>"}: it names a key to try,
// and nothing else in it could be trusted before the token was opened.
const (
	footerStart = `{"kid":"`
	footerEnd   = `"}`
)

// Footer is the footer of a token that is sealed with the key of an ID.
func Footer(id string) string { return footerStart + id + footerEnd }

// KeyID is the key named by a footer, or "".
func KeyID(footer []byte) string {
	id, ok := strings.CutPrefix(string(footer), footerStart)
	id, ok2 := strings.CutSuffix(id, footerEnd)
	if !ok || !ok2 {
		return ""
	}
	return id
}
