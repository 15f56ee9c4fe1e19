package fob

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"unsafe"

	"github.com/fobkit/fob/backend"
)

// The fields of a record's body. A number is never given a second meaning. An
// unknown field makes the record unreadable: to skip one could be to skip the
// reason why a key is refused.
const (
	fieldStatus = 1 + iota
	fieldPrefix
	fieldName
	fieldScopes
	fieldTags
	fieldNotBefore
	fieldExpiresAt
	fieldRetireAt
	fieldRevokedAt
	fieldReason
	fieldSuccessor
	fieldPredecessor
	fieldRotating
	fieldQuiet
	fieldEpoch
	fieldDigest
	fieldPepper
	fieldForeign
	fieldLegacy
	fieldAlias
	fieldSubjectRef
	fieldLifetime
	fieldTarget // the credential an alias or a rotation is about
	fieldSealed
	fieldRequest // digest of an idempotent request
	fieldBefore
	fieldRing
	fieldRingSum
	fieldIdleUntil
	fieldAnswerUntil // of families from before there were tags: until when a refresh is answered again
	fieldUsed        // of the same: the digests of used secrets
	fieldClaims
	fieldEnded
	fieldKeptUntil
	fieldRetired
	fieldPending // of an alias: its import has not finished
	fieldStaleness
	fieldEnds   // of an issuer's mark
	fieldMaxTTL // of the fleet: the longest life that a token is given
	fieldTagKey // of a family: by which it knows its own secrets
	fieldLinks  // of a family: from the secrets used lately to the current one
	fieldUsageInterval
	fieldPrint // of what was imported
	fieldCheck // of a secret of Config
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

// A body is the format byte, fields of (number, uvarint length, bytes) in
// rising order, and a CRC-32C over the record's identity and the body: a record
// that was damaged, cut or moved under another ID is told from a sound one.
type bodyWriter struct{ b []byte }

func newBody() *bodyWriter { return &bodyWriter{b: append(make([]byte, 0, 256), bodyFormat)} }

func (w *bodyWriter) text(field byte, s string) {
	if s != "" {
		w.b = append(w.b, field)
		w.b = binary.AppendUvarint(w.b, uint64(len(s)))
		w.b = append(w.b, s...)
	}
}

func (w *bodyWriter) number(field byte, n uint64) {
	if n != 0 {
		var buf [8]byte
		binary.BigEndian.PutUint64(buf[:], n)
		w.text(field, string(buf[:]))
	}
}

func (w *bodyWriter) id(field byte, id [16]byte) {
	if id != ([16]byte{}) {
		w.text(field, string(id[:]))
	}
}

func (w *bodyWriter) seal(rec *backend.Record) {
	rec.Body = w.b
	rec.Body = binary.BigEndian.AppendUint32(rec.Body, bodySum(rec, w.b))
}

func bodySum(rec *backend.Record, body []byte) uint32 {
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

// bodyReader yields the fields of a body. Texts are parts of it.
type bodyReader struct {
	rest string
	last byte
	bad  bool
}

// openBody checks the sum and the format of a record of the kind wanted.
func openBody(rec *backend.Record, kind backend.Kind) (bodyReader, error) {
	n := len(rec.Body) - 4
	switch {
	case rec.Kind != kind:
		return bodyReader{}, corrupt(rec, "kind")
	case n < 2:
		return bodyReader{}, corrupt(rec, "length")
	case binary.BigEndian.Uint32(rec.Body[n:]) != bodySum(rec, rec.Body[:n]):
		return bodyReader{}, corrupt(rec, "checksum")
	case rec.Body[0] != bodyFormat:
		return bodyReader{}, corrupt(rec, "format")
	}
	// The texts of what is read are parts of the body, which nobody else has: a
	// store shares no memory with its caller (rule R6 of package backend).
	return bodyReader{rest: unsafe.String(&rec.Body[1], n-1)}, nil
}

func corrupt(rec *backend.Record, what string) error {
	return fmt.Errorf("%w: kind %d: %s", ErrCorrupt, rec.Kind, what)
}

// next returns the next field; ok is false at the end and on bad input.
func (r *bodyReader) next() (field byte, value string, ok bool) {
	if r.rest == "" || r.bad {
		return 0, "", false
	}
	field = r.rest[0]
	n, used := uvarint(r.rest[1:])
	if used <= 0 || n == 0 || field <= r.last || n > uint64(len(r.rest)-1-used) {
		r.bad = true
		return 0, "", false
	}
	start := 1 + used
	value, r.rest, r.last = r.rest[start:start+int(n)], r.rest[start+int(n):], field
	return field, value, true
}

func (r *bodyReader) number(value string) uint64 {
	if len(value) != 8 {
		r.bad = true
		return 0
	}
	var n uint64
	for i := range 8 {
		n = n<<8 | uint64(value[i])
	}
	r.bad = r.bad || n == 0 // zero is written by leaving the field out
	return n
}

func (r *bodyReader) millis(value string) int64 {
	n := int64(r.number(value))
	r.bad = r.bad || n <= 0
	return n
}

func (r *bodyReader) id(value string) (id [16]byte) {
	r.bad = r.bad || copy(id[:], value) != len(value) || len(value) != len(id) || id == ([16]byte{})
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
