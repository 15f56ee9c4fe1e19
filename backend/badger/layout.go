package badger

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/fobkit/fob/backend"
)

// The keys. Numbers are big-endian, so that they sort; an owner is preceded by
// its length, so that none is the start of another.
//
//	c id                       a record
//	k kind created id          list by kind
//	o kind len owner created id   list by owner
//	p kind parent created id   list by parent
//	e kind expires id          list by expiry
//	d purgeAt id               what is due to be purged
//	l seq                      the feed: id, and seq is the version
//	u id                       usage: count, last
//	m name                     format, epoch
const (
	prefixRecord = 'c'
	prefixKind   = 'k'
	prefixOwner  = 'o'
	prefixParent = 'p'
	prefixExpiry = 'e'
	prefixDue    = 'd'
	prefixLog    = 'l'
	prefixUsage  = 'u'
	prefixMeta   = 'm'
)

const layoutFormat = 1

var (
	keyFormat = []byte{prefixMeta, 'f'}
	keyEpoch  = []byte{prefixMeta, 'e'}
)

const idLen = len(backend.ID{})

func recordKey(id backend.ID) []byte { return append([]byte{prefixRecord}, id[:]...) }
func usageKey(id backend.ID) []byte  { return append([]byte{prefixUsage}, id[:]...) }
func logKey(seq uint64) []byte       { return binary.BigEndian.AppendUint64([]byte{prefixLog}, seq) }

func listKey(list []byte, at int64, id backend.ID) []byte {
	return append(binary.BigEndian.AppendUint64(list, uint64(at)), id[:]...)
}

func kindList(k backend.Kind) []byte { return []byte{prefixKind, byte(k)} }
func expiryList(k backend.Kind) []byte {
	return []byte{prefixExpiry, byte(k)}
}

func ownerList(k backend.Kind, owner string) []byte {
	b := make([]byte, 0, 4+len(owner)+8+idLen)
	b = append(b, prefixOwner, byte(k))
	b = binary.BigEndian.AppendUint16(b, uint16(len(owner)))
	return append(b, owner...)
}

func parentList(k backend.Kind, parent backend.ID) []byte {
	return append([]byte{prefixParent, byte(k)}, parent[:]...)
}

// indexKeys yields the keys under which a record is listed: those that never
// change first.
func indexKeys(r *backend.Record) (fixed, moving [][]byte) {
	fixed = append(fixed, listKey(kindList(r.Kind), r.Created, r.ID))
	if r.Owner != "" {
		fixed = append(fixed, listKey(ownerList(r.Kind, r.Owner), r.Created, r.ID))
	}
	if r.Parent != (backend.ID{}) {
		fixed = append(fixed, listKey(parentList(r.Kind, r.Parent), r.Created, r.ID))
	}
	if r.Expires != 0 {
		moving = append(moving, listKey(expiryList(r.Kind), r.Expires, r.ID))
	}
	if r.PurgeAt != 0 {
		moving = append(moving, listKey([]byte{prefixDue}, r.PurgeAt, r.ID))
	}
	return fixed, moving
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const fixedLen = 1 + 1 + 8 + 8 + 8 + 8 + 16 + 2

// encodeRecord is the value of a record: fixed fields, owner, body, and a checksum
// that also covers the ID, so that a damaged or misplaced value is told from a
// sound one.
func encodeRecord(r *backend.Record) []byte {
	b := make([]byte, 0, fixedLen+len(r.Owner)+len(r.Body)+4)
	b = append(b, layoutFormat, byte(r.Kind))
	b = binary.BigEndian.AppendUint64(b, r.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Created))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Expires))
	b = binary.BigEndian.AppendUint64(b, uint64(r.PurgeAt))
	b = append(b, r.Parent[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Owner)))
	b = append(b, r.Owner...)
	b = append(b, r.Body...)
	return binary.BigEndian.AppendUint32(b, checksum(r.ID, b))
}

func checksum(id backend.ID, b []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, id[:]), castagnoli, b)
}

// kindOf is the kind of the record with this value; zero if it is damaged.
func kindOf(id backend.ID, b []byte) backend.Kind {
	n := len(b) - 4
	if n < fixedLen || b[0] != layoutFormat || binary.BigEndian.Uint32(b[n:]) != checksum(id, b[:n]) {
		return 0
	}
	return backend.Kind(b[1])
}

// decodeRecord reads a value into memory of its own, or fails with ErrCorrupt.
func decodeRecord(id backend.ID, b []byte) (backend.Record, error) {
	kind := kindOf(id, b)
	if kind == 0 {
		return backend.Record{}, fmt.Errorf("badger: %w", backend.ErrCorrupt)
	}
	n := len(b) - 4
	r := backend.Record{
		ID:      id,
		Kind:    kind,
		Version: binary.BigEndian.Uint64(b[2:]),
		Created: int64(binary.BigEndian.Uint64(b[10:])),
		Expires: int64(binary.BigEndian.Uint64(b[18:])),
		PurgeAt: int64(binary.BigEndian.Uint64(b[26:])),
		Parent:  backend.ID(b[34:50]),
	}
	end := fixedLen + int(binary.BigEndian.Uint16(b[50:]))
	if end > n {
		return backend.Record{}, fmt.Errorf("badger: %w", backend.ErrCorrupt)
	}
	r.Owner = string(b[fixedLen:end])
	r.Body = append([]byte(nil), b[end:n]...)
	return r, nil
}

func encodeUsage(u backend.Usage) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), u.N)
	return binary.BigEndian.AppendUint64(b, uint64(u.Last))
}

func decodeUsage(id backend.ID, b []byte) (backend.Usage, error) {
	if len(b) != 16 {
		return backend.Usage{}, fmt.Errorf("badger: usage: %w", backend.ErrCorrupt)
	}
	return backend.Usage{ID: id, N: binary.BigEndian.Uint64(b), Last: int64(binary.BigEndian.Uint64(b[8:]))}, nil
}
