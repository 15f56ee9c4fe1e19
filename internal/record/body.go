// Package record is how what fob keeps is written into the records of a store: the kinds
// of record, what they are found by, and the fields of a body. A body is the format byte,
// fields of (number, uvarint length, bytes) in rising order, and a CRC-32C over the
// record's identity and the body: a record that was damaged, cut or moved under another ID
// is told from a sound one.
package record

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
)

// The fields of a record's body. A number is never given a second meaning. An
// unknown field makes the record unreadable: to skip one could be to skip the
// reason why a key is refused.
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
	FieldTarget // the credential an alias or a rotation is about
	FieldSealed
	FieldRequest // digest of an idempotent request
	FieldBefore
	FieldRing
	FieldRingSum
	FieldIdleUntil
	FieldAnswerUntil // of families from before there were tags: until when a refresh is answered again
	FieldUsed        // of the same: the digests of used secrets
	FieldClaims
	FieldEnded
	FieldKeptUntil
	FieldRetired
	FieldPending // of an alias: its import has not finished
	FieldStaleness
	FieldEnds   // of an issuer's mark
	FieldMaxTTL // of the fleet: the longest life that a token is given
	FieldTagKey // of a family: by which it knows its own secrets
	FieldLinks  // of a family: from the secrets used lately to the current one
	FieldUsageInterval
	FieldPrint // of what was imported
	FieldCheck // of a secret of Config
)

const bodyFormat = 1

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// crcEight takes in eight bytes at once: table j says what a byte does to the sum when
// j more bytes follow it.
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

// Text writes a field that is text or bytes. An empty one is left out.
func (w *Writer) Text(field byte, s string) {
	if s != "" {
		w.b = append(w.b, field)
		w.b = binary.AppendUvarint(w.b, uint64(len(s)))
		w.b = append(w.b, s...)
	}
}

// Number writes a field that is a number. Zero is left out.
func (w *Writer) Number(field byte, n uint64) {
	if n != 0 {
		var buf [8]byte
		binary.BigEndian.PutUint64(buf[:], n)
		w.Text(field, string(buf[:]))
	}
}

// ID writes a field that is an ID. The zero ID is left out.
func (w *Writer) ID(field byte, id [16]byte) {
	if id != ([16]byte{}) {
		w.Text(field, string(id[:]))
	}
}

// Finish ends the body and puts it into rec, with a checksum over all of rec that does not
// change as long as the record lives.
func (w *Writer) Finish(rec *backend.Record) {
	rec.Body = w.b
	rec.Body = binary.BigEndian.AppendUint32(rec.Body, BodySum(rec, w.b))
}

// BodySum is the checksum of a record with a body: a CRC-32 over its ID, kind, owner and
// body. It finds damage, and what was put under another ID; it proves nothing to anybody.
func BodySum(rec *backend.Record, body []byte) uint32 {
	// By our own hand: what crc32.Update is given moves to the heap.
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

// Reader yields the fields of a body. Texts are parts of it.
type Reader struct {
	Rest string // what was not read yet
	last byte
	Bad  bool // something was not as a Writer writes it
}

// Open checks the sum and the format of a record of the kind wanted.
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
	// The texts of what is read are parts of the body, which nobody else has: a
	// store shares no memory with its caller (rule R6 of package backend).
	return Reader{Rest: unsafe.String(&rec.Body[1], n-1)}, nil
}

// Corrupt is the error of a record that cannot be read: errs.ErrCorrupt, with its kind and
// what is wrong with it.
func Corrupt(rec *backend.Record, what string) error {
	return fmt.Errorf("%w: kind %d: %s", errs.ErrCorrupt, rec.Kind, what)
}

// Fields yields the fields in their order, until the end or bad input.
func (r *Reader) Fields(yield func(field byte, value string) bool) {
	for {
		field, value, ok := r.Next()
		if !ok || !yield(field, value) {
			return
		}
	}
}

// Next returns the next field; ok is false at the end and on bad input.
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

// Number reads a value that was written by Number. What is none sets Bad, as zero does.
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

// Millis reads a value that was written by Number and is a time or a duration, in
// milliseconds.
func (r *Reader) Millis(value string) int64 {
	n := int64(r.Number(value))
	r.Bad = r.Bad || n <= 0
	return n
}

// ID reads a value that was written by ID. What is none sets Bad.
func (r *Reader) ID(value string) (id [16]byte) {
	r.Bad = r.Bad || copy(id[:], value) != len(value) || len(value) != len(id) || id == ([16]byte{})
	return id
}

// uvarint is binary.Uvarint over a string of at most three bytes of length,
// in its shortest form only.
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
