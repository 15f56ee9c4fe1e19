package record

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/fobkit/fob/backend"
)

// The kinds of record in a store.
const (
	Key         backend.Kind = 1 + iota // one key; the ID of the record is the ID of the key
	Subject                             // what was said about one subject
	Alias                               // leads from the text of an imported key to its record
	Idempotency                         // the sealed answer of one IssueKey
	Rotation                            // a rotated key that may retire early
	Mark                                // revokes a token, a family, or all that was issued before an instant
	Ring                                // the token keys, sealed
	Family                              // one chain of refresh secrets
	Fleet                               // a bound that holds for every process on the store
	Check                               // a check value, by which a secret of Config is recognised
	Account                             // what was said about one account
)

// ID is the ID of a record. The ID of a record that is not a credential is the record's
// kind and 15 bytes of SHA-256 over its name (see Named). The ID of a credential never
// begins with the byte of a kind, so an ID of the one sort never equals one of the other.
type ID = backend.ID

// Named returns the ID of the record that has a kind and a name. The name may have several
// parts.
func Named(kind backend.Kind, name ...string) ID {
	var room [128]byte
	text := append(room[:0], 'f', 'o', 'b', 1, byte(kind))
	for _, part := range name {
		text = binary.BigEndian.AppendUint64(text, uint64(len(part)))
		text = append(text, part...)
	}
	sum := sha256.Sum256(text)
	id := ID{byte(kind)}
	copy(id[1:], sum[:])
	return id
}
