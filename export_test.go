package fob

import (
	"encoding/binary"
	"reflect"
	"unsafe"

	"github.com/fobkit/fob/backend"
)

// DecodeSealed puts body under a sound checksum, reads it as a key's record, and
// returns what the key is written as again.
func DecodeSealed(owner string, body []byte) ([]byte, error) {
	rec := backend.Record{ID: backend.ID{15: 1}, Kind: recordKey, Owner: owner, Created: 1, Version: 1}
	rec.Body = binary.BigEndian.AppendUint32(append([]byte(nil), body...), bodySum(&rec, body))
	k, err := decodeKey(&rec)
	if err != nil {
		return nil, err
	}
	again := encodeKey(k, 0)
	return again.Body[:len(again.Body)-4], nil
}

// BreakTickets makes the cache of keys take what comes in without asking whether it
// changed since it was read. The switch is an unexported field of another package:
// the cache offers nobody a way to break it, so the proof reaches in.
func BreakTickets(m *Manager) {
	field := reflect.ValueOf(m.answers.keys).Elem().FieldByName("broken").FieldByName("ignoreTicket")
	*(*bool)(unsafe.Pointer(field.UnsafeAddr())) = true
}

// BreakNewest makes nobody compare what is read with what is remembered.
func BreakNewest(m *Manager) { m.newest.off = true }

// RecordFleet is the kind of the record that says how patient the fleet is.
const RecordFleet = recordFleet
