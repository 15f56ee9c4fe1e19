package fob

import (
	"encoding/binary"

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
