package fob_test

import (
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// bodies are the bodies of real records, without their checksum.
func bodies(t testing.TB) [][]byte {
	store := memory.New()
	m := newManager(t, store, fob.Config{Imported: &fob.ImportedKeys{}, Peppers: []fob.Pepper{{ID: "p", Key: make([]byte, 32)}}})
	var out [][]byte
	add := func(k *fob.Key) {
		rec, err := store.Get(t.Context(), idOf(k))
		require.NoError(t, err)
		out = append(out, rec.Body[:len(rec.Body)-4])
	}
	_, k := mustIssue(t, m, fob.KeySpec{})
	add(k)
	_, k = mustIssue(t, m, fob.KeySpec{Name: "n", Scopes: fob.Scopes{"a", "b"}, Tags: []string{"t", "u"}, TTL: time.Hour, NotBefore: time.Now()})
	_, next, err := m.RotateKey(t.Context(), k.ID(), fob.Rotation{Overlap: time.Hour, QuietTime: 10 * time.Minute})
	require.NoError(t, err)
	add(k)
	add(next)
	_, last, err := m.RotateKey(t.Context(), next.ID(), fob.Rotation{})
	require.NoError(t, err)
	add(next)
	_, err = m.Revoke(t.Context(), next.ID(), "why")
	require.NoError(t, err)
	add(next)
	add(last)
	_, k = mustIssue(t, m, fob.KeySpec{IdempotencyKey: requestID})
	add(k)
	k, err = m.ImportKey(t.Context(), fob.KeySpec{Subject: fob.App("a")}, fob.ImportedKey{Secret: importedText})
	require.NoError(t, err)
	add(k)
	return out
}

func TestRecordsAreWrittenAsTheyWereRead(t *testing.T) {
	for _, body := range bodies(t) {
		again, err := fob.DecodeSealed("1app-42", body)
		require.NoError(t, err)
		require.Equal(t, body, again)
	}
}

// The bytes of a record are read by every later version: this one was written by
// the first.
func TestTheFirstFormatStaysReadable(t *testing.T) {
	body := "\x01" + // format
		"\x01\x01\x01" + // active
		"\x02\x04acme" + // prefix
		"\x04\x03a b" + // scopes
		"\x10\x20" + "0123456789abcdef0123456789abcdef" + // digest
		"\x15\x10" + "\x02sssssssssssssss" // subject
	again, err := fob.DecodeSealed("1app-42", []byte(body))
	require.NoError(t, err)
	require.Equal(t, body, string(again))
}

// Under a sound checksum anything at all: what is accepted is written back the
// same, so no two bodies mean the same key and nothing is skipped.
func FuzzDecodeKey(f *testing.F) {
	for _, body := range bodies(f) {
		f.Add("1app-42", body)
	}
	f.Add("", []byte{})
	f.Add("1a", []byte{1, 1, 1, 1, 99, 1, 1})
	f.Fuzz(func(t *testing.T, owner string, body []byte) {
		again, err := fob.DecodeSealed(owner, body)
		if err != nil {
			require.ErrorIs(t, err, fob.ErrCorrupt)
			return
		}
		require.Equal(t, body, again)
	})
}
