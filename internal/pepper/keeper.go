// Package pepper holds the secrets of a configuration under which digests are made, and
// knows whether they are the ones that all who share a store use.
//
// keeper.go has the peppers and the digests under them; checkvalue.go has the check values
// by which a wrong secret is told from a wrong credential.
package pepper

import (
	"context"
	"fmt"
	"sync"

	"github.com/fobkit/fob/internal/clock"
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/recordstore"
)

// KeeperConfig is what a Keeper works with. It holds no pepper.
type KeeperConfig struct {
	Store recordstore.Store
	Clock *clock.Clock
	// Imported is the digest of another system, from which keys were imported; nil where
	// there is none. It has a check value as a pepper has, because with another one no
	// imported key is found. The Keeper calls it once, for a fixed text.
	Imported func(presented string) []byte
	// Problem is told why a secret is not the one in use, and with nil that nothing is
	// wrong with it. name tells one secret from another and shows none of it. It is not
	// told that the store does not answer.
	Problem func(name string, err error)
}

// Keeper holds the peppers of a configuration, and what is known of them and of the
// foreign digest. It is safe for concurrent use after the last call of Add.
type Keeper struct {
	cfg KeeperConfig
	ids []string // of the peppers, in the order of the configuration
	// keys returns the keys of the peppers by ID. Of a struct in an unexported field fmt
	// prints the fields itself, without calling any method, and for a verb like %s that
	// does not fit a pointer it follows one. Nobody looks into a function.
	keys func() map[string][]byte

	mu     sync.Mutex // guards proofs
	proofs map[record.ID]proof

	once    sync.Once // guards what follows: what Imported makes of the fixed text
	foreign checkValue
	tells   bool
}

// NewKeeper makes a Keeper without peppers: its digests are plain SHA-256. It asks nothing
// of the store.
func NewKeeper(cfg KeeperConfig) *Keeper {
	keys := make(map[string][]byte)
	return &Keeper{cfg: cfg, keys: func() map[string][]byte { return keys }, proofs: make(map[record.ID]proof)}
}

// Add adds a pepper. The first one is that of new digests. id is not empty and no other
// pepper has it. The Keeper keeps key, which nobody may change any more. All of them are
// added before anything else is asked of the Keeper.
func (k *Keeper) Add(id string, key []byte) {
	k.ids = append(k.ids, id)
	k.keys()[id] = key
}

// Active returns the ID of the pepper that new digests are made under; "" where there is
// none.
func (k *Keeper) Active() string {
	if len(k.ids) == 0 {
		return ""
	}
	return k.ids[0]
}

// Digest returns the digest of a secret for the store, and the ID of the pepper that it is
// under: the active one.
func (k *Keeper) Digest(secret []byte) (made digest.Digest, id string) {
	id = k.Active()
	made, _ = k.Under(id, secret) // the active pepper is here, or there is none
	return made, id
}

// Under returns the digest of a secret under the pepper with an ID; "" is no pepper. A
// pepper that is not here is errs.ErrPepper.
func (k *Keeper) Under(id string, secret []byte) (digest.Digest, error) {
	if id == "" {
		return digest.Of(secret), nil
	}
	key, ok := k.keys()[id]
	if !ok {
		return digest.Digest{}, fmt.Errorf("%w: %q", errs.ErrPepper, id)
	}
	return digest.Keyed(key, secret), nil
}

// Matches reports whether the digest of what was presented, made under a pepper, is the
// one that is kept in the store. A match proves the pepper. Where it fails to match and
// the pepper may be the reason, the answer is an error, as Doubt has it.
func (k *Keeper) Matches(ctx context.Context, id string, made, kept digest.Digest) (bool, error) {
	if made.Equal(&kept) {
		k.noteMatch(id)
		return true, nil
	}
	return false, k.Doubt(ctx, id)
}
