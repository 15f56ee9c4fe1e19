package fob

import (
	"encoding/binary"
	"reflect"
	"testing"
	"unsafe"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/sealed"
	"github.com/stretchr/testify/require"
)

// DecodeSealed puts body under a sound checksum, reads it as a key's record, and
// returns what the key is written as again.
func DecodeSealed(owner string, body []byte) ([]byte, error) {
	rec := backend.Record{ID: backend.ID{15: 1}, Kind: record.Key, Owner: owner, Created: 1, Version: 1}
	Reseal(&rec, body)
	k, err := new(Manager).decodeKey(&rec)
	if err != nil {
		return nil, err
	}
	again := k.state.Record(0)
	return again.Body[:len(again.Body)-4], nil
}

// Reseal puts body (without a checksum) into rec under a sound one, so that a test can
// make a record whose fields are wrong, and not only one that was damaged.
func Reseal(rec *backend.Record, body []byte) {
	rec.Body = binary.BigEndian.AppendUint32(append([]byte(nil), body...), record.BodySum(rec, body))
}

// BreakTickets makes the cache of keys take what comes in without asking whether it
// changed since it was read. The switch is an unexported field of another package:
// the cache offers nobody a way to break it, so the proof reaches in.
func BreakTickets(m *Manager) {
	field := reflect.ValueOf(m.keys).Elem().FieldByName("broken").FieldByName("ignoreTicket")
	*(*bool)(unsafe.Pointer(field.UnsafeAddr())) = true
}

// BreakNewest makes nobody compare what is read with what is remembered.
func BreakNewest(m *Manager) { m.blind = true }

// The kinds of record.
const (
	RecordKey      = record.Key
	RecordSubject  = record.Subject
	RecordAlias    = record.Alias
	RecordRotation = record.Rotation
	RecordMark     = record.Mark
	RecordRing     = record.Ring
	RecordFamily   = record.Family
	RecordFleet    = record.Fleet
	RecordCheck    = record.Check
)

// MakeOldFamily rewrites the record of a family as one from before secrets had tags.
func MakeOldFamily(t testing.TB, m *Manager, store backend.Store, id ID) {
	rec, err := store.Get(t.Context(), familyRecord(id))
	require.NoError(t, err)
	r, err := record.Open(&rec, record.Family)
	require.NoError(t, err)
	fields := map[byte]string{record.FieldUsed: "12345678"}
	for field, v := range r.Fields {
		fields[field] = v
	}
	fields[record.FieldAnswerUntil] = fields[record.FieldIdleUntil]
	w := record.NewBody()
	for _, field := range []byte{
		record.FieldDigest, record.FieldLifetime, record.FieldTarget, record.FieldIdleUntil,
		record.FieldAnswerUntil, record.FieldUsed, record.FieldClaims,
	} {
		w.Text(field, fields[field])
	}
	w.Finish(&rec)
	_, err = store.Put(t.Context(), rec, backend.IfVersion(rec.Version))
	require.NoError(t, err)
}

// The errors that callers do not branch on: outside they are words of Reason.
var (
	ErrKeyLength        = errs.ErrKeyLength
	ErrKeyPrefix        = errs.ErrKeyPrefix
	ErrKeyVersion       = errs.ErrKeyVersion
	ErrKeyAlphabet      = errs.ErrKeyAlphabet
	ErrKeyChecksum      = errs.ErrKeyChecksum
	ErrTokenFormat      = errs.ErrTokenFormat
	ErrTokenLength      = errs.ErrTokenLength
	ErrTokenProtocol    = errs.ErrTokenProtocol
	ErrTokenKey         = errs.ErrTokenKey
	ErrTokenSeal        = errs.ErrTokenSeal
	ErrClaims           = errs.ErrClaims
	ErrTokenLifetime    = errs.ErrTokenLifetime
	ErrWrongIssuer      = errs.ErrWrongIssuer
	ErrWrongAudience    = errs.ErrWrongAudience
	ErrRetired          = errs.ErrRetired
	ErrWrongEnvironment = errs.ErrWrongEnvironment
	ErrNotYetValid      = errs.ErrNotYetValid
	ErrReplayed         = errs.ErrReplayed
	ErrPepper           = errs.ErrPepper
	ErrSealKey          = errs.ErrSealKey
	ErrSkew             = errs.ErrSkew
)

// The fields of records that tests look at, or write as no Manager would.
const (
	FieldReason    = record.FieldReason
	FieldEpoch     = record.FieldEpoch
	FieldDigest    = record.FieldDigest
	FieldLifetime  = record.FieldLifetime
	FieldTarget    = record.FieldTarget
	FieldSealed    = record.FieldSealed
	FieldIdleUntil = record.FieldIdleUntil
	FieldClaims    = record.FieldClaims
	FieldEnded     = record.FieldEnded
	FieldTagKey    = record.FieldTagKey
	FieldLinks     = record.FieldLinks
	FieldSuccessor = record.FieldSuccessor
)

// FamilyRecord and SubjectRecord are the IDs of the records of a family and of a subject.
func FamilyRecord(id ID) backend.ID { return familyRecord(id) }

func SubjectRecord(kind SubjectKind, subject string) backend.ID {
	return record.SubjectID(Subject{Kind: kind, Name: subject}.owner())
}

// SealedAnswer is a text as a family answers a used secret with it. current is the family's
// current secret, without which nobody can open it.
func SealedAnswer(t testing.TB, id ID, current, text string) string {
	aead, err := sealed.Cipher([]byte(current), id[:], "fob refresh answer")
	require.NoError(t, err)
	return string(aead.Seal(nil, nil, []byte(text), id[:]))
}

// MarkFields is what the record of a mark says; what is zero is left out.
type MarkFields struct {
	Reason              string
	Epoch, Before, Ends uint64
	Unknown             bool // a field besides, of which nobody knows what it means
}

func (f MarkFields) put(t testing.TB, store backend.Store, id backend.ID) {
	rec, cond := backend.Record{ID: id, Kind: record.Mark, Created: 1}, backend.IfAbsent()
	if old, err := store.Get(t.Context(), id); err == nil {
		rec, cond = old, backend.IfVersion(old.Version)
	}
	w := record.NewBody()
	w.Text(record.FieldReason, f.Reason)
	w.Number(record.FieldEpoch, f.Epoch)
	w.Number(record.FieldBefore, f.Before)
	w.Number(record.FieldEnds, f.Ends)
	if f.Unknown {
		w.Number(record.FieldMaxTTL, 1)
	}
	w.Finish(&rec)
	_, err := store.Put(t.Context(), rec, cond)
	require.NoError(t, err)
}

// PutIssuerMark writes the mark of the Manager's issuer, in place of one that is there.
func PutIssuerMark(t testing.TB, m *Manager, store backend.Store, f MarkFields) {
	f.put(t, store, m.issuerMark())
}

// PutTokenMark writes the mark of one token.
func PutTokenMark(t testing.TB, store backend.Store, id ID, f MarkFields) {
	f.put(t, store, markOf("token", id))
}

// HotPartOfBody is how many bytes of the answer about a key a hit looks at.
const HotPartOfBody = unsafe.Offsetof(body{}.use) + 8
