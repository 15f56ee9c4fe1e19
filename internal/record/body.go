// Package record is the form in which fob writes records into a store: the kinds of record,
// the IDs of records that are not credentials, and the fields of a body. It does not know
// what a field of a key, a family or a mark means: the package of that kind does. It reads
// and writes no store.
//
// A body is the format byte, then fields of (number, uvarint length, bytes) in rising order
// of their numbers, then a CRC-32C over the record's identity and the body. By the checksum
// a record that was damaged, cut short or moved under another ID is told from a sound one.
package record

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
)

// The fields of a record's body. A number never gets a second meaning. A field that the
// reader does not know makes the record unreadable: a reader that skipped such a field
// might skip the reason why a key is refused.
const (
	FieldStatus = 1 + iota
	FieldPrefix
	FieldName
	FieldScopes
	FieldTags
	FieldNotBefore
	FieldExpiresAt
	FieldRetireAt
	FieldRevokedAt
	FieldReason
	FieldSuccessor
	FieldPredecessor
	FieldRotating
	FieldQuiet
	FieldEpoch
	FieldDigest
	FieldPepper
	FieldImported
	FieldImportedHash
	FieldAlias
	FieldSubjectRef
	FieldLifetime
	FieldTarget // ID of the credential that an alias, a rotation, an answer or a family belongs to
	FieldSealed
	FieldRequest // digest of an idempotent request
	FieldBefore
	FieldRing
	FieldRingSum
	FieldIdleUntil
	FieldAnswerUntil // of a family that is older than tags: until when a refresh is answered again
	FieldUsed        // of such a family: the digests of used secrets
	FieldClaims
	FieldEnded
	FieldKeptUntil
	FieldRetired
	FieldPending // of an alias: its import has not finished
	FieldStaleness
	FieldEnds   // of an issuer's mark
	FieldMaxTTL // of the fleet: the longest life that a token is given
	FieldTagKey // of a family: the key of the tags in its secrets
	FieldLinks  // of a family: they lead from secrets used lately to the current one
	FieldUsageInterval
	FieldPrint // of an alias: by which the imported key is recognised
	FieldCheck // the check value of a secret of Config
	FieldState // of a mark: odd while what it is about is disabled
	FieldHeld  // of an issuer's mark: tokens that were issued before are disabled
	FieldAccountRef
	FieldAccountEpoch
	FieldGrants
	FieldMeta
	FieldRoles
	FieldRefreshedAt // of a family
	FieldLabel       // of a family: the text that it is listed with
)

const bodyFormat = 1

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// crcEight lets BodySum process eight bytes in one step: table j holds what a byte does to
// the checksum when j more bytes follow it.
var crcEight = func() (t [8]crc32.Table) {
	t[0] = *crcTable
	for j := 1; j < len(t); j++ {
		for b := range t[j] {
			t[j][b] = crcTable[byte(t[j-1][b])] ^ t[j-1][b]>>8
		}
	}
	return t
}()

// Writer writes a body.
type Writer struct{ b []byte }

// NewBody begins a body. Fields are written in the order of their numbers, each at most
// once.
func NewBody() *Writer { return &Writer{b: append(make([]byte, 0, 256), bodyFormat)} }

// Text writes a field that holds text or bytes. It leaves an empty one out.
func (w *Writer) Text(field byte, s string) {
	if s != "" {
		w.b = append(w.b, field)
		w.b = binary.AppendUvarint(w.b, uint64(len(s)))
		w.b = append(w.b, s...)
	}
}

// Number writes a field that holds a number. It leaves zero out.
func (w *Writer) Number(field byte, n uint64) {
	if n != 0 {
		var buf [8]byte
		binary.BigEndian.PutUint64(buf[:], n)
		w.Text(field, string(buf[:]))
	}
}

// ID writes a field that holds an ID. It leaves the zero ID out.
func (w *Writer) ID(field byte, id [16]byte) {
	if id != ([16]byte{}) {
		w.Text(field, string(id[:]))
	}
}

// Finish ends the body and puts it into rec, followed by the checksum. The checksum is over
// the parts of rec that never change while the record lives, and the body; so rec must have
// its ID, kind and owner by now.
func (w *Writer) Finish(rec *backend.Record) {
	rec.Body = w.b
	rec.Body = binary.BigEndian.AppendUint32(rec.Body, BodySum(rec, w.b))
}

// BodySum is the checksum of a record with a body: a CRC-32C over the record's ID, kind and
// owner, and the body. It finds damage, and a record that was put under another ID. It is
// no proof against an attacker, since anybody can compute it.
func BodySum(rec *backend.Record, body []byte) uint32 {
	// The ID is summed by this loop, and not by crc32.Update, because a slice that is
	// passed to crc32.Update escapes to the heap.
	sum := ^uint32(0)
	for i := 0; i < len(rec.ID); i += 8 {
		w := binary.LittleEndian.Uint64(rec.ID[i:]) ^ uint64(sum)
		sum = 0
		for j := range crcEight {
			sum ^= crcEight[j][byte(w>>(56-8*j))]
		}
	}
	sum = ^(crcTable[byte(sum)^byte(rec.Kind)] ^ sum>>8)
	sum = crc32.Update(sum, crcTable, unsafe.Slice(unsafe.StringData(rec.Owner), len(rec.Owner)))
	return crc32.Update(sum, crcTable, body)
}

// Reader reads the fields of a body. The texts that it returns are parts of the body.
type Reader struct {
	Rest string // what is not read yet
	last byte
	Bad  bool // something was not in the form that a Writer writes
}

// Open checks the kind, the checksum and the format of a record, and returns a Reader of
// its fields. A record that fails a check is errs.ErrCorrupt.
func Open(rec *backend.Record, kind backend.Kind) (Reader, error) {
	n := len(rec.Body) - 4
	switch {
	case rec.Kind != kind:
		return Reader{}, Corrupt(rec, "kind")
	case n < 2:
		return Reader{}, Corrupt(rec, "length")
	case binary.BigEndian.Uint32(rec.Body[n:]) != BodySum(rec, rec.Body[:n]):
		return Reader{}, Corrupt(rec, "checksum")
	case rec.Body[0] != bodyFormat:
		return Reader{}, Corrupt(rec, "format")
	}
	// The texts that the Reader returns are parts of the body. Nobody else can change the
	// body, because a store shares no memory with its caller (rule R6 of package backend).
	return Reader{Rest: unsafe.String(&rec.Body[1], n-1)}, nil
}

// Corrupt returns the error of a record that cannot be read: errs.ErrCorrupt, with the kind
// of the record and what is wrong with it.
func Corrupt(rec *backend.Record, what string) error {
	return fmt.Errorf("%w: kind %d: %s", errs.ErrCorrupt, rec.Kind, what)
}

// Fields yields the fields in their order. It stops at the end of the body, or at the first
// field that is malformed, which sets Bad.
func (r *Reader) Fields(yield func(field byte, value string) bool) {
	for {
		field, value, ok := r.Next()
		if !ok || !yield(field, value) {
			return
		}
	}
}

// Next returns the next field. ok is false at the end of the body and on malformed input,
// which sets Bad.
func (r *Reader) Next() (field byte, value string, ok bool) {
	if r.Rest == "" || r.Bad {
		return 0, "", false
	}
	field = r.Rest[0]
	n, used := uvarint(r.Rest[1:])
	if used <= 0 || n == 0 || field <= r.last || n > uint64(len(r.Rest)-1-used) {
		r.Bad = true
		return 0, "", false
	}
	start := 1 + used
	value, r.Rest, r.last = r.Rest[start:start+int(n)], r.Rest[start+int(n):], field
	return field, value, true
}

// Number reads a value that Writer.Number wrote. A value that Writer.Number cannot have
// written sets Bad; zero is such a value.
func (r *Reader) Number(value string) uint64 {
	if len(value) != 8 {
		r.Bad = true
		return 0
	}
	var n uint64
	for i := range 8 {
		n = n<<8 | uint64(value[i])
	}
	r.Bad = r.Bad || n == 0 // zero is written by leaving the field out
	return n
}

// Millis reads a value that Writer.Number wrote for a time or a duration, in milliseconds.
// A value that is not positive sets Bad.
func (r *Reader) Millis(value string) int64 {
	n := int64(r.Number(value))
	r.Bad = r.Bad || n <= 0
	return n
}

// ID reads a value that Writer.ID wrote. A value that Writer.ID cannot have written sets
// Bad.
func (r *Reader) ID(value string) (id [16]byte) {
	r.Bad = r.Bad || copy(id[:], value) != len(value) || len(value) != len(id) || id == ([16]byte{})
	return id
}

// uvarint is binary.Uvarint over a string, for a length of at most three bytes. It accepts
// only the shortest form of a number; used is negative for anything else.
func uvarint(s string) (n uint64, used int) {
	for i := 0; i < len(s) && i < 3; i++ {
		n |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			if i > 0 && s[i] == 0 {
				return 0, -1
			}
			return n, i + 1
		}
	}
	return 0, -1
}
