package fob

import (
	"encoding/binary"
	"maps"
	"reflect"
	"slices"
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

// The fields of records that tests look at, or write as no Manager would.
const (
	FieldReason    = fieldReason
	FieldEpoch     = fieldEpoch
	FieldDigest    = fieldDigest
	FieldLifetime  = fieldLifetime
	FieldTarget    = fieldTarget
	FieldSealed    = fieldSealed
	FieldIdleUntil = fieldIdleUntil
	FieldClaims    = fieldClaims
	FieldEnded     = fieldEnded
	FieldTagKey    = fieldTagKey
	FieldLinks     = fieldLinks
	FieldSuccessor = fieldSuccessor
)

// FamilyRecord and SubjectRecord are the IDs of the records of a family and of a subject.
func FamilyRecord(id ID) backend.ID { return familyRecord(id) }

func SubjectRecord(kind SubjectKind, subject string) backend.ID { return subjectRecord(kind, subject) }

// Fields are the fields of a record's body, by their numbers.
func Fields(t testing.TB, rec *backend.Record) map[byte]string {
	r, err := openBody(rec, rec.Kind)
	require.NoError(t, err)
	fields := make(map[byte]string)
	for {
		field, v, ok := r.next()
		if !ok {
			require.False(t, r.bad)
			return fields
		}
		fields[field] = v
	}
}

// RewriteRecord lets change alter a record, and puts it back under a sound checksum.
func RewriteRecord(t testing.TB, store backend.Store, id backend.ID, change func(rec *backend.Record, fields map[byte]string)) {
	rec, err := store.Get(t.Context(), id)
	require.NoError(t, err)
	fields, owner, cond := Fields(t, &rec), rec.Owner, backend.IfVersion(rec.Version)
	change(&rec, fields)
	w := newBody()
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		w.text(field, fields[field])
	}
	w.seal(&rec)
	if rec.Owner != owner { // which never changes: so it is another record
		require.NoError(t, store.Delete(t.Context(), id, rec.Version))
		cond = backend.IfAbsent()
	}
	_, err = store.Put(t.Context(), rec, cond)
	require.NoError(t, err)
}

// SealAnswer makes a text the access token that a family answers a used secret with.
// current is the family's current secret, without which nobody can.
func SealAnswer(t testing.TB, store backend.Store, id ID, current, text string) {
	sealed, err := sealRefresh(current, id, "fob refresh answer", text)
	require.NoError(t, err)
	RewriteRecord(t, store, familyRecord(id), func(_ *backend.Record, fields map[byte]string) { fields[fieldSealed] = sealed })
}
