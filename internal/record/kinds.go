package record

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/fobkit/fob/backend"
)

// The kinds of record in a store.
const (
	Key         backend.Kind = 1 + iota // one key; its ID is the key's
	Subject                             // the epoch of one subject
	Alias                               // from the text of an imported key to its record
	Idempotency                         // the sealed answer of one IssueKey
	Rotation                            // a rotated key that may retire early
	Mark                                // what ended a token, a family, or all before an instant
	Ring                                // the token keys, sealed
	Family                              // what Refresh continues
	Fleet                               // how old an answer may be in any process
	Check                               // by which a secret of Config is recognised
)

// KnownSubject reports whether an owner, by which stores list, is a subject: the digit of
// its kind, and its name.
func KnownSubject(owner string) bool {
	return len(owner) > 1 && (owner[0] == '1' || owner[0] == '2')
}

// ID is the ID of a record that is not a credential: its kind, then 15
// bytes of SHA-256 over what it is named by. No credential's ID begins with
// such a byte, so the two never meet.
type ID = backend.ID

// Named is the ID of the record of a kind that has a name, which may have parts.
func Named(kind backend.Kind, name ...string) ID {
	h := sha256.New()
	h.Write([]byte{'f', 'o', 'b', 1, byte(kind)})
	var n [8]byte
	for _, part := range name {
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	id := ID{byte(kind)}
	copy(id[1:], sum[:])
	return id
}
