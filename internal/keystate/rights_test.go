package keystate_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/internal/errs"
	"github.com/fobkit/fob/internal/keystate"
	"github.com/fobkit/fob/internal/record"
	"github.com/fobkit/fob/internal/rights"
	"github.com/stretchr/testify/require"
)

// granted is a key with all that the new fields can have.
func granted() keystate.State {
	s := keystate.State{
		ID: record.ID{0x80, 1}, IssuedAt: 7, Status: keystate.Active, Roles: []string{"clerk", "viewer"}, Tags: []string{"b", "a"},
		Grants: []rights.Grant{{Type: "project", Actions: []string{"read"}, Identifiers: []string{"7", "8"}}, {Type: "o", Actions: []string{"*"}, Identifiers: []string{"*"}}},
		Meta:   map[string]string{"team": "payments", "note": "", "é": strings.Repeat("m", 300)}, Parent: record.ID{0x80, 2}, Epoch: 3, AccountEpoch: 4,
	}
	s.SetOwner(1, "acme", "ci")
	return s
}

// rewritten is the record of a key in which fields have other values; "" leaves one out.
func rewritten(t *testing.T, fields map[byte]string) backend.Record {
	t.Helper()
	s := granted()
	rec := s.Record(0)
	r, err := record.Open(&rec, record.Key)
	require.NoError(t, err)
	w := record.NewBody()
	for field, v := range r.Fields {
		if other, ok := fields[field]; ok {
			v = other
		}
		w.Text(field, v)
	}
	w.Finish(&rec)
	return rec
}

func TestRightsAreReadAsTheyWereWritten(t *testing.T) {
	want := granted()
	rec := want.Record(0)
	require.Equal(t, []string{
		"T\x04acmea", "T\x04acmeb", "aacme", "rclerk", "rviewer", "ta", "tb",
	}, rec.Labels)
	var got keystate.State
	require.NoError(t, keystate.Decode(&rec, &got))
	require.Equal(t, want, got)
	require.True(t, got.Same(&want))
	kind, account, name := got.Subject()
	require.Equal(t, []any{uint8(1), "acme", "ci"}, []any{kind, account, name})
	require.Equal(t, "", (&keystate.State{Owner: "1ci"}).Beyond())
}

// What may come in several orders is one text, by which two keys are compared; and any
// difference makes another one.
func TestAnyDifferenceOfRightsShows(t *testing.T) {
	one := granted()
	for name, change := range map[string]func(*keystate.State){
		"account":    func(s *keystate.State) { s.SetOwner(1, "acne", "ci") },
		"roles":      func(s *keystate.State) { s.Roles = s.Roles[:1] },
		"grants":     func(s *keystate.State) { s.Grants = s.Grants[:1] },
		"action":     func(s *keystate.State) { s.Grants[0].Actions = []string{"write"} },
		"identifier": func(s *keystate.State) { s.Grants[0].Identifiers = []string{"78"} },
		"meta":       func(s *keystate.State) { s.Meta["team"] = "payment" },
		"no meta":    func(s *keystate.State) { s.Meta = nil },
		"parent":     func(s *keystate.State) { s.Parent = record.ID{} },
	} {
		other := granted()
		require.Equal(t, one.Beyond(), other.Beyond())
		change(&other)
		require.NotEqual(t, one.Beyond(), other.Beyond(), name)
	}
}

func TestRightsInNoFormOfOurs(t *testing.T) {
	text := func(parts ...string) string {
		var b strings.Builder
		for _, p := range parts {
			b.WriteByte(byte(len(p)))
			b.WriteString(p)
		}
		return b.String()
	}
	for name, fields := range map[string]map[byte]string{
		"grants cut off":              {record.FieldGrants: text("project")},
		"no actions":                  {record.FieldGrants: text("project") + "\x00" + "\x01" + text("7")},
		"no identifiers":              {record.FieldGrants: text("project") + "\x01" + text("read") + "\x00"},
		"more actions than there are": {record.FieldGrants: text("project") + "\x05" + text("read") + "\x01" + text("7")},
		"a length beyond the end":     {record.FieldGrants: "\x7fproject"},
		"a length written long":       {record.FieldGrants: "\x87\x00project" + "\x01" + text("read") + "\x01" + text("7")},
		"a length without end":        {record.FieldGrants: "\x80\x80\x80\x80"},
		"a name without a value":      {record.FieldMeta: text("team")},
		"a name twice":                {record.FieldMeta: text("team", "a", "team", "b")},
		"names out of order":          {record.FieldMeta: text("team", "a", "note", "b")},
		"an empty name twice":         {record.FieldMeta: text("", "a", "", "b")},
		"an account without its mark": {record.FieldAccountRef: ""},
		"a mark that is none":         {record.FieldAccountRef: "short"},
	} {
		rec := rewritten(t, fields)
		require.ErrorIs(t, keystate.Decode(&rec, new(keystate.State)), errs.ErrCorrupt, name)
	}
	rec := rewritten(t, nil)
	require.NoError(t, keystate.Decode(&rec, new(keystate.State)))
	rec.Owner = "1ci" // no account, and the mark of one
	w := record.NewBody()
	s := granted()
	body := s.Record(0)
	r, err := record.Open(&body, record.Key)
	require.NoError(t, err)
	for field, v := range r.Fields {
		w.Text(field, v)
	}
	w.Finish(&rec)
	require.ErrorIs(t, keystate.Decode(&rec, new(keystate.State)), errs.ErrCorrupt)
}

// FuzzRights: whatever stands where grants and metadata do is read and written again as it
// was, or is corrupt.
func FuzzRights(f *testing.F) {
	f.Add("\x01t\x01\x01r\x01\x017", "\x01a\x01b")
	f.Fuzz(func(t *testing.T, grants, meta string) {
		if len(grants)+len(meta) > 1<<16 {
			return
		}
		rec := rewritten(t, map[byte]string{record.FieldGrants: grants, record.FieldMeta: meta})
		var s keystate.State
		if err := keystate.Decode(&rec, &s); err != nil {
			require.ErrorIs(t, err, errs.ErrCorrupt)
			return
		}
		again := s.Record(0)
		require.Equal(t, rec.Body, again.Body)
	})
}

// Grants and metadata of any sizes come back.
func TestRightsOfAnySizeComeBack(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 13))
	word := func() string { return strings.Repeat(string(rune('a'+r.IntN(26))), 1+r.IntN(200)) }
	for range 200 {
		s := granted()
		s.Grants, s.Meta = nil, nil
		for range r.IntN(5) {
			g := rights.Grant{Type: word(), Actions: []string{word()}, Identifiers: []string{word()}}
			for range r.IntN(64) {
				g.Identifiers = append(g.Identifiers, word())
			}
			s.Grants = append(s.Grants, g)
		}
		for range r.IntN(5) {
			if s.Meta == nil {
				s.Meta = map[string]string{}
			}
			s.Meta[word()] = word()
		}
		rec := s.Record(0)
		var got keystate.State
		require.NoError(t, keystate.Decode(&rec, &got))
		require.Equal(t, s, got)
	}
}
