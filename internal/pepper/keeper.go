// Package pepper holds the secrets of a configuration under which digests are made, and
// finds out whether they are the same in all processes on a store. It does not know what
// the digests are of.
//
// keeper.go has the peppers and the digests under them. checkvalue.go has the check values,
// by which a wrong secret in the configuration is told from a wrong credential.
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
	// Imported computes the digest of another system from which keys were imported; nil if
	// there is none. It has a check value as a pepper has, because no imported key is found
	// if the function is not the same as before. The Keeper calls it once, for a fixed
	// text.
	Imported func(presented string) []byte
	// Problem is told why a secret is not the one in use; a nil error says that nothing is
	// wrong with the secret. name tells one secret from another and shows nothing of it.
	// Problem is not told that the store does not answer.
	Problem func(name string, err error)
}

// Keeper holds the peppers of a configuration, and what is known of them and of
// KeeperConfig.Imported. It is safe for concurrent use after the last call of Add.
type Keeper struct {
	cfg KeeperConfig
	ids []string // of the peppers, in the order of the configuration
	// keys returns the keys of the peppers by ID. It is a function because fmt prints
	// nothing from inside a function. fmt prints the fields of a struct in an unexported
	// field without calling any method, and follows a pointer for a verb like %s that does
	// not fit it.
	keys func() map[string][]byte

	mu     sync.Mutex // guards proofs
	proofs map[record.ID]proof

	once    sync.Once // guards the fields below, which are made from what Imported returns for the fixed text
	foreign checkValue
	tells   bool // Imported returns a digest for the fixed text
}

// NewKeeper makes a Keeper without peppers: its digests are plain SHA-256. It does not ask
// the store.
func NewKeeper(cfg KeeperConfig) *Keeper {
	keys := make(map[string][]byte)
	return &Keeper{cfg: cfg, keys: func() map[string][]byte { return keys }, proofs: make(map[record.ID]proof)}
}

// Add adds a pepper. The first pepper is the one for new digests. id must not be empty, and
// no other pepper may have it. The Keeper keeps key, which must not be changed any more.
// All peppers must be added before the Keeper is used for anything else.
func (k *Keeper) Add(id string, key []byte) {
	k.ids = append(k.ids, id)
	k.keys()[id] = key
}

// Active returns the ID of the pepper for new digests; "" if there is none.
func (k *Keeper) Active() string {
	if len(k.ids) == 0 {
		return ""
	}
	return k.ids[0]
}

// Digest returns the digest of a secret under the active pepper, and the ID of that pepper.
func (k *Keeper) Digest(secret []byte) (made digest.Digest, id string) {
	id = k.Active()
	made, _ = k.Under(id, secret) // never fails: the active pepper is configured, or there is none
	return made, id
}

// Under returns the digest of a secret under the pepper that has an ID; "" is no pepper. It
// fails with errs.ErrPepper if there is no such pepper in the configuration.
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

// Matches reports whether made, the digest of what was presented under a pepper, is the
// digest kept in the store. A match proves that the pepper is the right one. If the digests
// differ and the pepper may be the reason, Matches returns the error of Doubt.
func (k *Keeper) Matches(ctx context.Context, id string, made, kept digest.Digest) (bool, error) {
	if made.Equal(&kept) {
		k.noteMatch(id)
		return true, nil
	}
	return false, k.Doubt(ctx, id)
}
