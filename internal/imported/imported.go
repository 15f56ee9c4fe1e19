// Package imported makes keys of other systems valid here, and finds them by the texts that
// are presented. The ID of such a key cannot be read from its text. So there are aliases:
// records that lead from a property of the text to the record of the key. The package does
// not know the form of such a text: the functions of a Store do.
//
// There is a file for each idea: what is refused (check.go), by which properties a key may
// be found (form.go), the aliases and how two keys with one locator are told apart
// (alias.go), hashes over a part of a key (part.go), how a key is imported (import.go), and
// how it is found (find.go).
package imported

import (
	"fmt"
	"strings"

	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/importedhash"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/pepper"
	"github.com/fobkit/fob/internal/record"
)

// Key is what is known of a key that another system made. Exactly one of Secret, Hash and
// Digest is set. Format hides the secret, but not if the Key is in an unexported field of
// another struct: there fmt prints the fields without calling Format.
type Key struct {
	Secret string // the key itself
	Hash   string // the other system's hash of it, as importedhash reads it
	// HashAfter is what stands in the key before the part over which Hash was made; "" if it
	// was made over the whole key.
	HashAfter string
	Digest    []byte // what Store.Digest returns for it
	Locator   string // what Store.Locate returns for it; "" where it is found by a digest
	// Another says that this key differs from the keys that have its Locator already. It
	// counts only where that cannot be found out.
	Another bool
}

// Format writes nothing of the key, for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("imported.Key")) }

// MarshalText returns what Format writes; JSON uses it too.
func (Key) MarshalText() ([]byte, error) { return []byte("imported.Key"), nil }

// Store imports keys into a store, and finds them there. It is safe for concurrent use if
// Locate and Digest are.
type Store struct {
	keystate.Store
	Peppers *pepper.Keeper
	// Locate returns the public part of a presented text, by which its key is found. ok is
	// false for a text that has none. Locate may be nil: then no text has one.
	Locate func(presented string) (locator string, ok bool)
	// Digest returns the other system's own digest of a presented text, or nothing for a text
	// that has none. Digest may be nil: then no text has one.
	Digest func(presented string) []byte
	// Text fails with errs.ErrInvalid for a text that is never looked up as that of an imported
	// key. Only Check calls it.
	Text    func(text string) error
	Limiter *importedhash.Limiter
}

// ownMark is the prefix of an imported hash that Store.Digest can compute.
const ownMark = "own:"

// ownDigest returns the other system's own digest of a text, or nil.
func (s *Store) ownDigest(text string) []byte {
	if s.Digest == nil {
		return nil
	}
	return s.Digest(strings.Clone(text))
}

// CheckLanes fails with errs.ErrInvalid for a hash that would run on more cores than the
// Limiter allows.
func (s *Store) CheckLanes(h importedhash.Hash) error {
	if h.Lanes() > s.Limiter.Cores() {
		return fmt.Errorf("%w: a hash of %d lanes, and Config.Imported.SlowChecks is %d", errs.ErrInvalid, h.Lanes(), s.Limiter.Cores())
	}
	return nil
}

// Material returns what the digest of an imported key is made over. Its first byte is not
// the version of any text of fob, so the material of an imported key never equals that of
// another key.
func Material(id record.ID, presented string) []byte {
	return append(append([]byte{0}, id[:]...), presented...)
}
