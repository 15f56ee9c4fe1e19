// Package tokenring holds the keys that seal and open tokens, and how a store keeps them.
package tokenring

import (
	"fmt"
	"strings"

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

// Max bounds the keys of a ring.
const Max = 32

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
