package backend

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// NewCursor returns the cursor for what comes after a record at (at, id) in the
// list that q asks for; at is its Expires in a list by expiry, its Created
// elsewhere. Stores need not use it; it saves them an encoding.
func NewCursor(q Query, at int64, id ID) Cursor {
	b := listIdentity(q)
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = append(b, id[:]...)
	return Cursor(base64.RawURLEncoding.EncodeToString(b))
}

// Place reads the place that NewCursor wrote: (0, zero) for the start. A cursor of another
// list is ErrInvalid.
func (c Cursor) Place(q Query) (at int64, id ID, err error) {
	if c == "" {
		return 0, ID{}, nil
	}
	identity := listIdentity(q)
	if len(c) != base64.RawURLEncoding.EncodedLen(len(identity)+8+len(id)) {
		return 0, ID{}, fmt.Errorf("%w: cursor of another list", ErrInvalid)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(c))
	if err != nil || len(b) != len(identity)+8+len(id) || string(b[:len(identity)]) != string(identity) {
		return 0, ID{}, fmt.Errorf("%w: cursor of another list", ErrInvalid)
	}
	b = b[len(identity):]
	at = int64(binary.BigEndian.Uint64(b))
	copy(id[:], b[8:])
	if at < 0 || id == (ID{}) {
		return 0, ID{}, fmt.Errorf("%w: cursor", ErrInvalid)
	}
	return at, id, nil
}

// listIdentity is the same for all pages of one list. ExpiresBefore moves with
// the clock from page to page, so only its use is part of it.
func listIdentity(q Query) []byte {
	head := []byte{1, byte(q.Kind), 0}
	switch {
	case q.ExpiresBefore != 0:
		head[2] = 1
	case q.Newest:
		head[2] = 2
	}
	if q.Label != "" {
		head[2] |= 4
	}
	h := sha256.New()
	h.Write(head)
	h.Write(q.Parent[:])
	h.Write([]byte(q.Owner))
	h.Write([]byte(q.Label)) // a query has an owner or a label, not both
	return h.Sum(nil)[:8]
}
