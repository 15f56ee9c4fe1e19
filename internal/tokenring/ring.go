// Package tokenring holds the keys that seal and open tokens: as a ring of keys with times
// (ring.go), kept in the store of an issuer (keeper.go) in encrypted form (seal.go), or
// fetched from another process that publishes them (fetcher.go). It does not know what is
// in a token.
package tokenring

import (
	"bytes"
	"fmt"
	"time"

	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/paseto"
)

// Key is a token key with its times, in Unix milliseconds.
type Key struct {
	ID                 string
	Protocol           paseto.Protocol
	Sealer             paseto.Sealer // nil where only the public half is known
	Opener             paseto.Opener
	ActiveAt, RetireAt int64 // seals from ActiveAt on; verifies until RetireAt, zero for always
}

// Ring is the list of token keys at the time when it was read, the oldest key first. It is
// immutable. Which key is active follows from the clock, so that all processes change to a
// new key without a message between them.
type Ring struct {
	Keys    []Key
	ByID    map[string]*Key
	Version uint64 // of the record; zero for a ring that is not in a record
}

// New makes a ring of keys, the oldest first, which must not be changed after that. version
// is the version of the record that has the keys; zero if there is none.
func New(keys []Key, version uint64) *Ring {
	r := &Ring{Keys: keys, ByID: make(map[string]*Key, len(keys)), Version: version}
	for i := range keys {
		r.ByID[keys[i].ID] = &keys[i]
	}
	return r
}

// Active returns the key that seals at an instant; nil if there is none yet.
func (r *Ring) Active(ms int64) *Key {
	for i := len(r.Keys) - 1; i >= 0; i-- {
		if k := &r.Keys[i]; k.ActiveAt <= ms && k.Sealer != nil {
			return k
		}
	}
	return nil
}

// Find returns the key that has an ID and verifies at an instant, or nil.
func (r *Ring) Find(id string, ms int64) *Key {
	k := r.ByID[id]
	if k == nil || k.RetireAt != 0 && ms >= k.RetireAt {
		return nil
	}
	return k
}

// Usable returns the keys of the ring that seal or verify at an instant, or will do so
// later.
func (r *Ring) Usable(ms int64) []Key {
	keys := make([]Key, 0, len(r.Keys)+1) // with appends one more
	for _, k := range r.Keys {
		if k.RetireAt == 0 || ms < k.RetireAt {
			keys = append(keys, k)
		}
	}
	return keys
}

// with returns the keys of the ring that are usable at an instant, and next after them.
// Keys that had no end yet retire when next has sealed for as long as kept.
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

// Max is how many keys a ring can have.
const Max = 32

// Draw makes a key that seals from an instant on, in Unix milliseconds; zero means at once.
// It fails if this process cannot use the protocol.
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

// The footer of a token is exactly {"kid":"<PASERK ID>"}. It names the key to try. It has
// nothing else in it, because nothing in it can be trusted before the token was opened.
const (
	footerStart = `{"kid":"`
	footerEnd   = `"}`
)

// Footer returns the footer of a token that is sealed with the key that has an ID.
func Footer(id string) string { return footerStart + id + footerEnd }

// KeyID returns the ID of the key that a footer names, or "".
func KeyID(footer []byte) string {
	id, ok := bytes.CutPrefix(footer, []byte(footerStart))
	id, ok2 := bytes.CutSuffix(id, []byte(footerEnd))
	if !ok || !ok2 {
		return ""
	}
	return string(id)
}
