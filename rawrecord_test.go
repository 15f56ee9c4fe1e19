package fob_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/stretchr/testify/require"
)

// recordNamed is the ID of a record that is named by parts: as it is in every store that there
// is, so it is spelt out here once more.
func recordNamed(kind byte, parts ...string) backend.ID {
	h := sha256.New()
	h.Write([]byte{'f', 'o', 'b', 1, kind})
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	id := backend.ID{kind}
	copy(id[1:], h.Sum(nil))
	return id
}

// under is SHA-256 of a text, keyed if there is a pepper.
func under(pepper []byte, text string) string {
	if pepper == nil {
		sum := sha256.Sum256([]byte(text))
		return string(sum[:])
	}
	mac := hmac.New(sha256.New, pepper)
	mac.Write([]byte(text))
	return string(mac.Sum(nil))
}

// field is one field of the body of a record.
type field struct {
	n byte
	v string
}

// fieldsOf takes the body of a record apart.
func fieldsOf(t testing.TB, rec backend.Record) (all []field) {
	t.Helper()
	b := rec.Body[1 : len(rec.Body)-4]
	for len(b) > 0 {
		n, used := binary.Uvarint(b[1:])
		require.Positive(t, used)
		all = append(all, field{b[0], string(b[1+used : 1+used+int(n)])})
		b = b[1+used+int(n):]
	}
	return all
}

// rewrite writes a record with other fields, under a checksum that fits.
func rewrite(t testing.TB, store backend.Store, rec backend.Record, fields ...field) {
	t.Helper()
	body := []byte{1}
	for _, f := range fields {
		body = append(body, f.n)
		body = binary.AppendUvarint(body, uint64(len(f.v)))
		body = append(body, f.v...)
	}
	fob.Reseal(&rec, body)
	_, err := store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	require.NoError(t, err)
}
