package record_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/record"
	"github.com/stretchr/testify/require"
)

var target = record.Named(record.Key, "target")

// written returns a record with a field of each sort.
func written() backend.Record {
	rec := backend.Record{ID: record.Named(record.Alias, "a"), Kind: record.Alias, Owner: "1owner", Created: 7}
	w := record.NewBody()
	w.Text(record.FieldStatus, "") // empty fields are left out
	w.Text(record.FieldName, strings.Repeat("n", 300))
	w.Number(record.FieldNotBefore, 0)
	w.Number(record.FieldExpiresAt, 1<<40+5)
	w.ID(record.FieldSuccessor, record.ID{})
	w.ID(record.FieldTarget, target)
	w.Finish(&rec)
	return rec
}

// signed returns a record whose body is raw fields with a right checksum.
func signed(fields ...byte) backend.Record {
	rec := backend.Record{ID: record.Named(record.Alias, "a"), Kind: record.Alias}
	rec.Body = append([]byte{1}, fields...)
	rec.Body = binary.BigEndian.AppendUint32(rec.Body, record.BodySum(&rec, rec.Body))
	return rec
}

func TestABodyIsReadAsItWasWritten(t *testing.T) {
	rec := written()
	r, err := record.Open(&rec, record.Alias)
	require.NoError(t, err)
	var fields []byte
	for field, v := range r.Fields {
		fields = append(fields, field)
		switch field {
		case record.FieldName:
			require.Equal(t, strings.Repeat("n", 300), v)
		case record.FieldExpiresAt:
			require.Equal(t, uint64(1<<40+5), r.Number(v))
			require.Equal(t, int64(1<<40+5), r.Millis(v))
		case record.FieldTarget:
			require.Equal(t, target, record.ID(r.ID(v)))
		}
	}
	require.Equal(t, []byte{record.FieldName, record.FieldExpiresAt, record.FieldTarget}, fields)
	require.False(t, r.Bad)
	require.Empty(t, r.Rest)
}

// Whatever bit of a record is damaged, and wherever its body is cut, it cannot be read.
func TestADamagedRecordIsCorrupt(t *testing.T) {
	corrupt := func(what string, damage func(*backend.Record)) {
		rec := written()
		damage(&rec)
		_, err := record.Open(&rec, record.Alias)
		require.ErrorIs(t, err, errs.ErrCorrupt, what)
	}
	for i := range written().Body {
		for bit := range 8 {
			corrupt("a bit of the body", func(rec *backend.Record) { rec.Body[i] ^= 1 << bit })
		}
		corrupt("cut", func(rec *backend.Record) { rec.Body = rec.Body[:i] })
	}
	for i := range (record.ID{}) {
		for bit := range 8 {
			corrupt("a bit of the ID", func(rec *backend.Record) { rec.ID[i] ^= 1 << bit })
		}
	}
	corrupt("another owner", func(rec *backend.Record) { rec.Owner = "1other" })
	corrupt("more bytes", func(rec *backend.Record) { rec.Body = append(rec.Body, 0) })
	corrupt("another kind", func(rec *backend.Record) { rec.Kind = record.Key })
	corrupt("another format", func(rec *backend.Record) {
		rec.Body = slices.Clone(rec.Body[:len(rec.Body)-4])
		rec.Body[0] = 2
		rec.Body = binary.BigEndian.AppendUint32(rec.Body, record.BodySum(rec, rec.Body))
	})
}

// A sound record of one kind is not taken for one of another.
func TestARecordIsOpenedAsItsKindOnly(t *testing.T) {
	rec := written()
	_, err := record.Open(&rec, record.Key)
	require.ErrorIs(t, err, errs.ErrCorrupt)
}

// A right checksum makes no sound body: the fields themselves are checked too.
func TestFieldsThatNoWriterWritesAreBad(t *testing.T) {
	for name, fields := range map[string][]byte{
		"a field twice":           {2, 1, 'a', 2, 1, 'b'},
		"falling numbers":         {3, 1, 'a', 2, 1, 'b'},
		"field zero":              {0, 1, 'a'},
		"an empty field":          {2, 0},
		"no length":               {2, 1, 'a', 3},
		"longer than the body":    {2, 9, 'a'},
		"a length in a long form": {2, 0x81, 0x00, 'a'},
		"a length of four bytes":  {2, 0x80, 0x80, 0x80, 0x01, 'a'},
	} {
		t.Run(name, func(t *testing.T) {
			rec := signed(fields...)
			r, err := record.Open(&rec, record.Alias)
			require.NoError(t, err)
			for range r.Fields {
			}
			require.True(t, r.Bad)
			_, _, ok := r.Next()
			require.False(t, ok, "nothing is read after that")
		})
	}
}

func TestValuesThatNoWriterWritesAreBad(t *testing.T) {
	number := func(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }
	for name, read := range map[string]func(r *record.Reader){
		"a short number":  func(r *record.Reader) { r.Number("1234567") },
		"zero":            func(r *record.Reader) { r.Number(number(0)) },
		"a negative time": func(r *record.Reader) { r.Millis(number(1 << 63)) },
		"a short ID":      func(r *record.Reader) { r.ID("123456789012345") },
		"a long ID":       func(r *record.Reader) { r.ID("12345678901234567") },
		"the zero ID":     func(r *record.Reader) { r.ID(string(make([]byte, 16))) },
	} {
		r := new(record.Reader)
		read(r)
		require.True(t, r.Bad, name)
	}
	sound := new(record.Reader)
	sound.Number(number(1 << 63))
	sound.Millis(number(1))
	sound.ID("1234567890123456")
	require.False(t, sound.Bad)
}

func TestNamesAreKeptApart(t *testing.T) {
	seen := make(map[record.ID]bool)
	for _, id := range []record.ID{
		record.Named(record.Mark, "ab"), record.Named(record.Mark, "a", "b"), record.Named(record.Mark, "", "ab"),
		record.Named(record.Mark, "ab", ""), record.Named(record.Subject, "ab"),
	} {
		require.False(t, seen[id])
		seen[id] = true
	}
	require.Equal(t, record.Named(record.Mark, "a", "b"), record.Named(record.Mark, "a", "b"))
	require.Equal(t, byte(record.Mark), record.Named(record.Mark, "ab")[0])
}

func TestASubjectIsAKindAndAName(t *testing.T) {
	require.True(t, record.KnownSubject("1a"))
	require.True(t, record.KnownSubject("2a"))
	for _, owner := range []string{"", "1", "0a", "3a", "a1"} {
		require.False(t, record.KnownSubject(owner), owner)
	}
}
