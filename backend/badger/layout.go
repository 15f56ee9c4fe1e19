package badger

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/labels"
)

// The keys. Numbers are big-endian, so that they sort; an owner and a label are preceded
// by their length, so that none is the start of another.
//
//	c id                       a record
//	k kind created id          list by kind
//	o kind len owner created id   list by owner
//	p kind parent created id   list by parent
//	t kind len label created id   list by label
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
	prefixLabel  = 't'
	prefixExpiry = 'e'
	prefixDue    = 'd'
	prefixLog    = 'l'
	prefixUsage  = 'u'
	prefixMeta   = 'm'
)

// The layouts. A record of layout 1 has no labels, and reads the same as one of layout 2
// without any. So a store of layout 1 is brought up by its marker alone: Open writes the
// new number there, and with that a version that knows layout 1 only refuses the store.
const (
	layoutFormat = 2 // what is written
	oldestFormat = 1 // the oldest that is read
)

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

func ownerList(k backend.Kind, owner string) []byte { return namedList(prefixOwner, k, owner) }
func labelList(k backend.Kind, label string) []byte { return namedList(prefixLabel, k, label) }

func namedList(prefix byte, k backend.Kind, name string) []byte {
	b := make([]byte, 0, 4+len(name)+8+idLen)
	b = append(b, prefix, byte(k))
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	return append(b, name...)
}

func parentList(k backend.Kind, parent backend.ID) []byte {
	return append([]byte{prefixParent, byte(k)}, parent[:]...)
}

// listed are all the keys under which a record is listed.
func listed(r *backend.Record) [][]byte {
	_, keys := moved(&backend.Record{}, r)
	keys = append(keys, listKey(kindList(r.Kind), r.Created, r.ID))
	if r.Owner != "" {
		keys = append(keys, listKey(ownerList(r.Kind, r.Owner), r.Created, r.ID))
	}
	if r.Parent != (backend.ID{}) {
		keys = append(keys, listKey(parentList(r.Kind, r.Parent), r.Created, r.ID))
	}
	return keys
}

// moved are the keys under which an update no longer lists a record, and those under which
// it does from then on.
func moved(old, now *backend.Record) (gone, added [][]byte) {
	if old.Expires != now.Expires {
		if old.Expires != 0 {
			gone = append(gone, listKey(expiryList(old.Kind), old.Expires, old.ID))
		}
		if now.Expires != 0 {
			added = append(added, listKey(expiryList(now.Kind), now.Expires, now.ID))
		}
	}
	if old.PurgeAt != now.PurgeAt {
		if old.PurgeAt != 0 {
			gone = append(gone, listKey([]byte{prefixDue}, old.PurgeAt, old.ID))
		}
		if now.PurgeAt != 0 {
			added = append(added, listKey([]byte{prefixDue}, now.PurgeAt, now.ID))
		}
	}
	without, with := labels.Changed(old.Labels, now.Labels)
	for _, label := range without {
		gone = append(gone, listKey(labelList(old.Kind, label), old.Created, old.ID))
	}
	for _, label := range with {
		added = append(added, listKey(labelList(now.Kind, label), now.Created, now.ID))
	}
	return gone, added
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const fixedLen = 1 + 1 + 8 + 8 + 8 + 8 + 16 + 2

// encodeRecord is the value of a record: fixed fields, owner, labels (from layout 2 on),
// body, and a checksum that also covers the ID, so that a damaged or misplaced value is
// told from a sound one.
func encodeRecord(r *backend.Record) []byte {
	b := make([]byte, 0, fixedLen+len(r.Owner)+labels.Room(r.Labels)+len(r.Body)+4)
	b = append(b, layoutFormat, byte(r.Kind))
	b = binary.BigEndian.AppendUint64(b, r.Version)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Created))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Expires))
	b = binary.BigEndian.AppendUint64(b, uint64(r.PurgeAt))
	b = append(b, r.Parent[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Owner)))
	b = append(b, r.Owner...)
	b = labels.Append(b, r.Labels)
	b = append(b, r.Body...)
	return binary.BigEndian.AppendUint32(b, checksum(r.ID, b))
}

func checksum(id backend.ID, b []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, id[:]), castagnoli, b)
}

// kindOf is the kind of the record with this value; zero if it is damaged.
func kindOf(id backend.ID, b []byte) backend.Kind {
	n := len(b) - 4
	if n < fixedLen || b[0] < oldestFormat || b[0] > layoutFormat || binary.BigEndian.Uint32(b[n:]) != checksum(id, b[:n]) {
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
	layout, b := b[0], b[:len(b)-4]
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
	sound := end <= len(b)
	if sound {
		r.Owner, b = string(b[fixedLen:end]), b[end:]
	}
	if sound && layout > 1 {
		r.Labels, b, sound = labels.Cut(b)
	}
	if !sound {
		return backend.Record{}, fmt.Errorf("badger: %w", backend.ErrCorrupt)
	}
	r.Body = append([]byte(nil), b...)
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
