package fob

import (
	"encoding/binary"
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/stretchr/testify/require"
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

// Reseal puts body (without a checksum) into rec under a sound one, so that a test can
// make a record whose fields are wrong, and not only one that was damaged.
func Reseal(rec *backend.Record, body []byte) {
	rec.Body = binary.BigEndian.AppendUint32(append([]byte(nil), body...), bodySum(rec, body))
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

// PutOldIssuerMark writes the mark of the Manager's issuer as it was before there were
// epochs of issuers.
func PutOldIssuerMark(t testing.TB, m *Manager, store backend.Store, before time.Time) {
	rec := backend.Record{ID: m.issuerMark(), Kind: recordMark, Created: millis(before)}
	w := newBody()
	w.number(fieldBefore, uint64(millis(before)))
	w.seal(&rec)
	_, err := store.Put(t.Context(), rec, backend.IfAbsent())
	require.NoError(t, err)
}

// MakeOldFamily rewrites the record of a family as one from before secrets had tags.
func MakeOldFamily(t testing.TB, m *Manager, store backend.Store, id ID) {
	rec, err := store.Get(t.Context(), familyRecord(id))
	require.NoError(t, err)
	f, err := m.decodeFamily(&rec)
	require.NoError(t, err)
	payload, err := f.spec.payload()
	require.NoError(t, err)
	w := newBody()
	w.text(fieldDigest, string(f.current.sum[:]))
	w.number(fieldLifetime, uint64(f.ttl))
	w.id(fieldTarget, f.id)
	w.number(fieldIdleUntil, uint64(f.idleUntil))
	w.number(fieldAnswerUntil, uint64(f.idleUntil))
	w.text(fieldUsed, "12345678")
	w.text(fieldClaims, string(payload))
	w.seal(&rec)
	_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	require.NoError(t, err)
}
