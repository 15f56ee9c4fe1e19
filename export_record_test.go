package fob

import (
	"encoding/binary"

	"github.com/fobkit/fob/backend"
)

// Reseal puts body (without a checksum) into rec under a sound one, so that a test can
// make a record whose fields are wrong, and not only one that was damaged.
func Reseal(rec *backend.Record, body []byte) {
	rec.Body = binary.BigEndian.AppendUint32(append([]byte(nil), body...), bodySum(rec, body))
}
