package fob_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
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

// textsOf are the fields of a record by their numbers.
func textsOf(t testing.TB, rec backend.Record) map[byte]string {
	t.Helper()
	texts := make(map[byte]string)
	for _, f := range fieldsOf(t, rec) {
		texts[f.n] = f.v
	}
	return texts
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
	cond := backend.IfVersion(rec.Version)
	if old, err := store.Get(t.Context(), rec.ID); err == nil && old.Owner != rec.Owner {
		// That never changes: so it is another record.
		require.NoError(t, store.Delete(t.Context(), rec.ID, rec.Version))
		cond = backend.IfAbsent()
	}
	_, err := store.Put(t.Context(), rec, cond)
	require.NoError(t, err)
}

// alter lets change make another record of one, and another text of each field; a field
// without text is left out.
func alter(t testing.TB, store backend.Store, id backend.ID, change func(rec *backend.Record, texts map[byte]string)) {
	t.Helper()
	rec, err := store.Get(t.Context(), id)
	require.NoError(t, err)
	texts := textsOf(t, rec)
	change(&rec, texts)
	var fields []field
	for _, n := range slices.Sorted(maps.Keys(texts)) {
		if texts[n] != "" {
			fields = append(fields, field{n, texts[n]})
		}
	}
	rewrite(t, store, rec, fields...)
}
