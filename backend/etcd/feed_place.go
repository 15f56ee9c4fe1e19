package etcd

import (
	"encoding/binary"

	"github.com/fobkit/fob/backend"
)

// position is a place in the history of one store.
type position struct {
	epoch    [16]byte // of the marker; zero before anything was written
	cluster  uint64   // etcd's ID of it
	term     uint64   // of its elections, which never goes back
	revision int64    // every change up to it is behind
}

const (
	tokenFormat = 1
	tokenLen    = 1 + 16 + 8 + 8 + 8
)

func (p position) token() backend.Token {
	b := append(make(backend.Token, 0, tokenLen), tokenFormat)
	b = append(b, p.epoch[:]...)
	b = binary.BigEndian.AppendUint64(b, p.cluster)
	b = binary.BigEndian.AppendUint64(b, p.term)
	return binary.BigEndian.AppendUint64(b, uint64(p.revision))
}

func parseToken(t backend.Token) (position, bool) {
	if len(t) != tokenLen || t[0] != tokenFormat {
		return position{}, false
	}
	return position{
		epoch:    [16]byte(t[1:17]),
		cluster:  binary.BigEndian.Uint64(t[17:]),
		term:     binary.BigEndian.Uint64(t[25:]),
		revision: int64(binary.BigEndian.Uint64(t[33:])),
	}, true
}

// proof is what one linearizable read has shown: the state of the store at some
// moment after asked.
type proof struct {
	position
	markedAt int64 // the revision at which the marker was made
}

// continues reports whether the history that p was read from is that of old, and
// goes on from there. A cluster that was restored from a snapshot can have the
// same ID and a lower revision, or a higher one with another past; its terms begin
// again.
func (p proof) continues(old position) bool {
	if p.cluster != old.cluster || p.term < old.term || p.revision < old.revision {
		return false
	}
	// Before the marker was made there was no change to miss.
	return p.epoch == old.epoch || old.epoch == [16]byte{} && p.markedAt > old.revision
}
