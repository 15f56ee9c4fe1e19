package etcd

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/internal/labels"
)

// The keys, each after Options.Prefix. Numbers are big-endian, so that they sort; an owner
// and a label are preceded by their length, so that none is the start of another.
//
//	r id                          a record
//	k kind created id             list by kind
//	o kind len owner created id   list by owner
//	p kind parent created id      list by parent
//	l kind len label created id   list by label
//	e kind expires id             list by expiry
//	d purgeAt id                  what is due to be purged
//	u id                          usage: count, last
//	j nonce number                usage that is not yet added to it
//	m                             the marker: format, epoch
const (
	prefixRecord  = 'r'
	prefixKind    = 'k'
	prefixOwner   = 'o'
	prefixParent  = 'p'
	prefixLabel   = 'l'
	prefixExpiry  = 'e'
	prefixDue     = 'd'
	prefixUsage   = 'u'
	prefixJournal = 'j'
	prefixMarker  = 'm'
)

// The numbers of layouts, in the marker and in each record's value. A record of layout 1
// has no labels, and reads the same as one of layout 2 without any. So a store of layout 1
// is brought up by its marker alone, with the first write; see mark.
const (
	layoutFormat = 2 // what is written
	oldestFormat = 1 // the oldest that is read
)

// journalFormat is the number in each value of the journal.
const journalFormat = 1

// errLayout is what a later version has written. It says "not now" and not "damaged": the
// cluster is well, and this process has to be replaced.
var errLayout = fmt.Errorf("a layout that this version of fob does not know: %w", backend.ErrUnavailable)

func unknownLayout(what string, found byte) error {
	return fmt.Errorf("etcd: %s has layout %d, and this version knows layouts %d to %d: %w", what, found, oldestFormat, layoutFormat, errLayout)
}

const idLen = len(backend.ID{})

// keys makes the keys of one store.
type keys struct{ prefix string }

func (k keys) family(letter byte, room int) []byte {
	b := make([]byte, 0, len(k.prefix)+1+room)
	return append(append(b, k.prefix...), letter)
}

func (k keys) record(id backend.ID) string {
	return string(append(k.family(prefixRecord, idLen), id[:]...))
}

func (k keys) all(ids []backend.ID) []string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = k.record(id)
	}
	return names
}

func (k keys) usage(id backend.ID) string {
	return string(append(k.family(prefixUsage, idLen), id[:]...))
}
func (k keys) marker() string  { return string(k.family(prefixMarker, 0)) }
func (k keys) records() string { return string(k.family(prefixRecord, 0)) }
func (k keys) journal() string { return string(k.family(prefixJournal, 0)) }
func (k keys) due() []byte     { return k.family(prefixDue, 8+idLen) }

func (k keys) kindList(kind backend.Kind) []byte {
	return append(k.family(prefixKind, 1+8+idLen), byte(kind))
}

func (k keys) expiryList(kind backend.Kind) []byte {
	return append(k.family(prefixExpiry, 1+8+idLen), byte(kind))
}

func (k keys) ownerList(kind backend.Kind, owner string) []byte {
	return k.namedList(prefixOwner, kind, owner)
}

func (k keys) labelList(kind backend.Kind, label string) []byte {
	return k.namedList(prefixLabel, kind, label)
}

func (k keys) namedList(letter byte, kind backend.Kind, name string) []byte {
	b := append(k.family(letter, 3+len(name)+8+idLen), byte(kind))
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	return append(b, name...)
}

func (k keys) parentList(kind backend.Kind, parent backend.ID) []byte {
	return append(append(k.family(prefixParent, 1+idLen+8+idLen), byte(kind)), parent[:]...)
}

// listKey is the key of one entry of a list.
func listKey(list []byte, at int64, id backend.ID) string {
	b := make([]byte, 0, len(list)+8+idLen)
	b = binary.BigEndian.AppendUint64(append(b, list...), uint64(at))
	return string(append(b, id[:]...))
}

// parseListKey reads what listKey wrote behind the list's own name.
func parseListKey(list []byte, key []byte) (at int64, id backend.ID, err error) {
	if len(key) != len(list)+8+idLen {
		return 0, id, fmt.Errorf("etcd: a key of %d bytes in a list: %w", len(key), backend.ErrCorrupt)
	}
	copy(id[:], key[len(list)+8:])
	return int64(binary.BigEndian.Uint64(key[len(list):])), id, nil
}

// indexes are the keys under which a record is listed: those that never change,
// and those that do.
func (k keys) indexes(r *backend.Record) (fixed, moving []string) {
	fixed = append(fixed, listKey(k.kindList(r.Kind), r.Created, r.ID))
	if r.Owner != "" {
		fixed = append(fixed, listKey(k.ownerList(r.Kind, r.Owner), r.Created, r.ID))
	}
	if r.Parent != (backend.ID{}) {
		fixed = append(fixed, listKey(k.parentList(r.Kind, r.Parent), r.Created, r.ID))
	}
	if r.Expires != 0 {
		moving = append(moving, listKey(k.expiryList(r.Kind), r.Expires, r.ID))
	}
	if r.PurgeAt != 0 {
		moving = append(moving, listKey(k.due(), r.PurgeAt, r.ID))
	}
	for _, label := range r.Labels {
		moving = append(moving, listKey(k.labelList(r.Kind, label), r.Created, r.ID))
	}
	return fixed, moving
}

// keyAfter is the smallest key above all that begin with list.
func keyAfter(list []byte) string {
	end := append([]byte(nil), list...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return string(end[:i+1])
		}
	}
	return "\x00" // to the end of everything, as etcd writes it
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// nonce tells one write from every other: where an answer was lost, a second attempt
// meets the first, and where it says that there is no space, a read finds it or not.
type nonce [8]byte

func newNonce() (n nonce) {
	_, _ = rand.Read(n[:]) // never returns an error
	return n
}

const fixedLen = 1 + 1 + len(nonce{}) + 8 + 8 + 8 + 16 + 2

// encodeRecord is the value of a record: fixed fields, owner, labels (from layout 2 on),
// body, and a checksum that also covers the ID, so that a damaged or misplaced value is
// told from a sound one. The version is not in it: it is the key's own revision.
func encodeRecord(r *backend.Record, n nonce) string {
	b := make([]byte, 0, fixedLen+len(r.Owner)+labels.Room(r.Labels)+len(r.Body)+4)
	b = append(b, layoutFormat, byte(r.Kind))
	b = append(b, n[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Created))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Expires))
	b = binary.BigEndian.AppendUint64(b, uint64(r.PurgeAt))
	b = append(b, r.Parent[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Owner)))
	b = append(b, r.Owner...)
	b = labels.Append(b, r.Labels)
	b = append(b, r.Body...)
	return string(binary.BigEndian.AppendUint32(b, checksum(r.ID, b)))
}

func checksum(id backend.ID, b []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli, id[:]), castagnoli, b)
}

// decodeRecord reads a value, whose memory the record takes over. What is damaged is
// ErrCorrupt; what a later version wrote is not, and is refused.
func decodeRecord(id backend.ID, b []byte, revision int64) (backend.Record, error) {
	n := len(b) - 4
	sound := n >= fixedLen && b[0] >= oldestFormat && binary.BigEndian.Uint32(b[n:]) == checksum(id, b[:n])
	if sound && b[0] > layoutFormat {
		return backend.Record{}, unknownLayout(fmt.Sprintf("record %x", id), b[0])
	}
	r := backend.Record{ID: id, Version: uint64(revision)}
	if sound {
		r.Kind = backend.Kind(b[1])
		r.Created = int64(binary.BigEndian.Uint64(b[10:]))
		r.Expires = int64(binary.BigEndian.Uint64(b[18:]))
		r.PurgeAt = int64(binary.BigEndian.Uint64(b[26:]))
		r.Parent = backend.ID(b[34:50])
		sound = readNames(&r, b[0], b[50:n:n])
	}
	if !sound {
		return backend.Record{}, fmt.Errorf("etcd: record %x: %w", id, backend.ErrCorrupt)
	}
	return r, nil
}

// readNames reads what has no fixed place: owner, labels and body. It reports false for
// what is none of that.
func readNames(r *backend.Record, layout byte, b []byte) bool {
	end := 2 + int(binary.BigEndian.Uint16(b))
	if end > len(b) {
		return false
	}
	r.Owner = string(b[2:end])
	rest, ok := b[end:], true
	if layout > 1 {
		r.Labels, rest, ok = labels.Cut(rest)
	}
	if len(rest) > 0 {
		r.Body = rest
	}
	return ok
}

// hasNonce reports whether a value was written with this nonce.
func hasNonce(b []byte, n nonce) bool {
	return len(b) >= fixedLen && b[0] == layoutFormat && nonce(b[2:10]) == n
}

func encodeUsage(u backend.Usage) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 16), u.N)
	return string(binary.BigEndian.AppendUint64(b, uint64(u.Last)))
}

func decodeUsage(id backend.ID, b []byte) (backend.Usage, error) {
	if len(b) != 16 {
		return backend.Usage{}, fmt.Errorf("etcd: usage of %x: %w", id, backend.ErrCorrupt)
	}
	return backend.Usage{ID: id, N: binary.BigEndian.Uint64(b), Last: int64(binary.BigEndian.Uint64(b[8:]))}, nil
}

const entryLen = idLen + 16

// encodeEntries is the value of one key of the journal.
func encodeEntries(batch []backend.Usage) string {
	b := make([]byte, 0, 1+len(batch)*entryLen)
	b = append(b, journalFormat)
	for _, u := range batch {
		b = append(b, u.ID[:]...)
		b = binary.BigEndian.AppendUint64(b, u.N)
		b = binary.BigEndian.AppendUint64(b, uint64(u.Last))
	}
	return string(b)
}

// decodeEntries reads one; ok is false for what is none.
func decodeEntries(b []byte) (batch []backend.Usage, ok bool) {
	if len(b) < 1 || b[0] != journalFormat || (len(b)-1)%entryLen != 0 {
		return nil, false
	}
	for b = b[1:]; len(b) > 0; b = b[entryLen:] {
		batch = append(batch, backend.Usage{
			ID: backend.ID(b[:idLen]), N: binary.BigEndian.Uint64(b[idLen:]), Last: int64(binary.BigEndian.Uint64(b[idLen+8:])),
		})
	}
	return batch, true
}
