package keystate_test

import (
	"reflect"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/digest"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/rights"
	"github.com/stretchr/testify/require"
)

// full is a key of which every field is set, but for ImportedHash, which a key with a
// digest has not.
func full() keystate.State {
	owner := record.Owner(2, "acme", "alice")
	return keystate.State{
		ID: record.ID{15: 1}, Version: 7, Owner: owner, SubjectRef: record.SubjectID(owner), Epoch: 3, AccountRef: record.AccountID("acme"), AccountEpoch: 4, Parent: record.ID{15: 9},
		Prefix: "acme_live", Name: "name", Scopes: "a b", Tags: []string{"t", "u"}, Roles: []string{"r", "s"}, Meta: map[string]string{"a": "1", "b": ""},
		Grants:   []rights.Grant{{Type: "t", Actions: []string{"read", "*"}, Identifiers: []string{"7"}}, {Type: "u", Actions: []string{"x"}, Identifiers: []string{"8", "9"}}},
		IssuedAt: 1, NotBefore: 2, ExpiresAt: 9, RetireAt: 8, RevokedAt: 5,
		Status: keystate.Revoked, Imported: true, Retired: true, Reason: "why",
		Successor: record.ID{2}, Predecessor: record.ID{3}, Rotating: 4, Quiet: 6,
		Digest: digest.Of([]byte("secret")), Pepper: "p1", Alias: record.ID{byte(record.Alias), 4},
		Lifetime: 10, KeptUntil: 11,
	}
}

// Every field comes back, also one that somebody adds and forgets to write.
func TestAKeyIsReadAsItWasWritten(t *testing.T) {
	s := full()
	for i, field := range reflect.VisibleFields(reflect.TypeFor[keystate.State]()) {
		require.Equal(t, field.Name == "ImportedHash", reflect.ValueOf(s).Field(i).IsZero(), field.Name)
	}
	hashed := s
	hashed.Digest, hashed.ImportedHash = digest.Digest{}, "hash of another system"
	least := keystate.State{ID: s.ID, Version: 1, Owner: "1a", SubjectRef: s.SubjectRef, IssuedAt: 1, Status: keystate.Active}
	for _, want := range []keystate.State{s, hashed, least} {
		rec := want.Record(99)
		require.Equal(t, []any{want.ID, record.Key, want.Owner, want.IssuedAt, want.EndsAt(), int64(99)},
			[]any{rec.ID, rec.Kind, rec.Owner, rec.Created, rec.Expires, rec.PurgeAt})
		rec.Version = want.Version
		got := keystate.State{Name: "left over"}
		require.NoError(t, keystate.Decode(&rec, &got))
		require.Equal(t, want, got)
		require.True(t, want.Same(&got))
		got.Epoch++
		require.False(t, want.Same(&got))
	}
	kind, account, name := s.Subject()
	require.Equal(t, []any{uint8(2), "acme", "alice"}, []any{kind, account, name})
	var none keystate.State
	kind, account, name = none.Subject()
	require.Equal(t, []any{uint8(0), "", ""}, []any{kind, account, name})
}

// field is one of a record's body.
type field struct {
	number byte
	value  string
}

func recordOf(owner string, fields ...field) *backend.Record {
	rec := &backend.Record{ID: record.ID{15: 1}, Kind: record.Key, Owner: owner, Created: 1, Version: 1}
	w := record.NewBody()
	for _, f := range fields {
		w.Text(f.number, f.value)
	}
	w.Finish(rec)
	return rec
}

func TestWhatIsNoKeyIsCorrupt(t *testing.T) {
	const imported, importedHash = 18, 19 // the numbers of fields are stored
	var (
		active  = field{record.FieldStatus, "\x01"}
		digest  = field{record.FieldDigest, "0123456789abcdef0123456789abcdef"}
		hash    = field{importedHash, "hash"}
		subject = field{record.FieldSubjectRef, "\x02123456789abcdef"}
	)
	var s keystate.State
	require.NoError(t, keystate.Decode(recordOf("1a", active, digest, subject), &s))
	require.NoError(t, keystate.Decode(recordOf("2a", active, hash, subject), &s))
	alias := recordOf("1a", active, digest, subject)
	alias.Kind = record.Alias
	damaged := recordOf("1a", active, digest, subject)
	damaged.Body[3] ^= 1
	for name, rec := range map[string]*backend.Record{
		"another kind of record":        alias,
		"damaged":                       damaged,
		"no subject":                    recordOf("1", active, digest, subject),
		"an unknown kind of subject":    recordOf("3a", active, digest, subject),
		"no record of the subject":      recordOf("1a", active, digest),
		"no status":                     recordOf("1a", digest, subject),
		"a status that is not stored":   recordOf("1a", field{record.FieldStatus, "\x02"}, digest, subject),
		"an unknown status":             recordOf("1a", field{record.FieldStatus, "\x06"}, digest, subject),
		"a status of two bytes":         recordOf("1a", field{record.FieldStatus, "\x01\x01"}, digest, subject),
		"neither digest nor hash":       recordOf("1a", active, subject),
		"digest and hash":               recordOf("1a", active, digest, hash, subject),
		"a digest that is too short":    recordOf("1a", active, field{record.FieldDigest, "short"}, subject),
		"a time of too few bytes":       recordOf("1a", active, field{record.FieldExpiresAt, "1"}, digest, subject),
		"an ID that is too long":        recordOf("1a", active, field{record.FieldSuccessor, "0123456789abcdef0"}, digest, subject),
		"a mark of import that is none": recordOf("1a", active, digest, field{imported, "\x02"}, subject),
		"a mark of rotation, likewise":  recordOf("1a", active, digest, subject, field{record.FieldRetired, "\x00"}),
		"a field of another kind":       recordOf("1a", active, digest, subject, field{record.FieldCheck, "x"}),
	} {
		require.ErrorIs(t, keystate.Decode(rec, &s), errs.ErrCorrupt, name)
	}
}

// What a key is, why it is refused, and when it is accepted say the same.
func TestAKeyIsAcceptedWithinItsSpan(t *testing.T) {
	const forever = 1000
	active := keystate.State{Status: keystate.Active}
	with := func(change func(*keystate.State)) keystate.State {
		s := active
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		state    keystate.State
		from, to int64 // accepted from <= now < to
		before   error
		after    error
	}{
		"always":        {active, 0, forever, nil, nil},
		"not yet":       {with(func(s *keystate.State) { s.NotBefore = 10 }), 10, forever, errs.ErrNotYetValid, nil},
		"until":         {with(func(s *keystate.State) { s.ExpiresAt = 20 }), 0, 20, nil, errs.ErrExpired},
		"between":       {with(func(s *keystate.State) { s.NotBefore, s.ExpiresAt = 10, 20 }), 10, 20, errs.ErrNotYetValid, errs.ErrExpired},
		"overlap":       {with(func(s *keystate.State) { s.RetireAt, s.ExpiresAt = 15, 20 }), 0, 15, nil, errs.ErrRetired},
		"overlap alone": {with(func(s *keystate.State) { s.RetireAt = 15 }), 0, 15, nil, errs.ErrRetired},
		"long overlap":  {with(func(s *keystate.State) { s.RetireAt, s.ExpiresAt = 25, 20 }), 0, 20, nil, errs.ErrExpired},
		"rotated out":   {with(func(s *keystate.State) { s.RetireAt, s.Retired, s.NotBefore = 15, true, 10 }), 0, 0, nil, errs.ErrRetired},
		"disabled":      {with(func(s *keystate.State) { s.Status, s.ExpiresAt = keystate.Disabled, 20 }), 0, 0, nil, errs.ErrDisabled},
		"revoked":       {with(func(s *keystate.State) { s.Status, s.NotBefore = keystate.Revoked, 10 }), 0, 0, nil, errs.ErrRevoked},
		"no status":     {keystate.State{}, 0, 0, nil, errs.ErrRevoked},
	} {
		from, to, refused := c.state.Span(forever)
		require.Equal(t, []int64{c.from, c.to}, []int64{from, to}, name)
		require.Equal(t, c.from == c.to, refused != nil, name)
		for ms := range int64(forever) {
			want := error(nil)
			switch {
			case ms < c.from:
				want = c.before
			case ms >= c.to:
				want = c.after
			}
			require.Equal(t, want, c.state.Refusal(ms), "%s at %d", name, ms)
			require.Equal(t, want == nil, c.state.At(ms) == keystate.Active, "%s at %d", name, ms)
			if refused != nil {
				require.Equal(t, want, refused, name)
			}
		}
	}
}
