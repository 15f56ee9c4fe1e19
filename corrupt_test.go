package fob_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// numbered is what the fields of these records are, by their numbers, which are stored.
var numbered = map[byte]string{
	1: "status", 9: "ended at", 10: "reason", 15: "epoch", 16: "digest", 21: "subject", 22: "lifetime", 23: "target", 24: "sealed", 26: "before", 29: "idle until", 32: "claims",
	33: "ended", 38: "ends", 40: "tag key", 41: "links", 52: "refreshed at",
}

// A record whose checksum fits and whose fields are not as they were written was made by
// nobody who may: what rests on it could not be checked. It is neither good nor bad.
func TestARecordThatNoRecordCanBe(t *testing.T) {
	user := func(t *testing.T, m *fob.Manager) fob.Issued {
		return mustToken(t, m, fob.TokenSpec{Refreshable: true})
	}
	fresh := func(text string) func(*testing.T, *fob.Manager) error {
		return func(t *testing.T, m *fob.Manager) error { _, err := m.Fresh().Verify(t.Context(), text); return err }
	}
	for name, is := range map[string]struct {
		// prepare makes the record and returns its kind, and what reads it.
		prepare func(t *testing.T, m *fob.Manager) (backend.Kind, func(*testing.T, *fob.Manager) error)
		// free are changes that a record may have: of what is text; of what is not needed
		// for this (an earlier answer); of what records had not in earlier layouts.
		free []string
	}{
		"the epoch of a subject": {func(t *testing.T, m *fob.Manager) (backend.Kind, func(*testing.T, *fob.Manager) error) {
			issued := user(t, m)
			_, err := m.Revoke(t.Context(), fob.User("user-7"), "left")
			require.NoError(t, err)
			return fob.RecordSubject, fresh(issued.Access.Reveal())
		}, []string{"reason, left", "reason, too"}},
		"the mark of a token": {func(t *testing.T, m *fob.Manager) (backend.Kind, func(*testing.T, *fob.Manager) error) {
			issued := user(t, m)
			_, err := m.Revoke(t.Context(), issued.Token.ID(), "leaked")
			require.NoError(t, err)
			return fob.RecordMark, fresh(issued.Access.Reveal())
		}, []string{"reason, left", "reason, too"}},
		"the mark of the issuer": {func(t *testing.T, m *fob.Manager) (backend.Kind, func(*testing.T, *fob.Manager) error) {
			issued := user(t, m)
			_, err := m.Revoke(t.Context(), fob.AllTokens(time.Time{}), "leaked")
			require.NoError(t, err)
			return fob.RecordMark, fresh(issued.Access.Reveal())
		}, []string{"reason, left", "reason, too"}},
		"a family": {func(t *testing.T, m *fob.Manager) (backend.Kind, func(*testing.T, *fob.Manager) error) {
			issued := user(t, m)
			next, err := m.Refresh(t.Context(), issued.Refresh.Reveal())
			require.NoError(t, err)
			return fob.RecordFamily, func(t *testing.T, m *fob.Manager) error {
				_, err := m.Refresh(t.Context(), next.Refresh.Reveal())
				return err
			}
		}, []string{"sealed, left", "sealed, too", "tag key, left", "links, left", "refreshed at, left"}},
		"a family that has ended": {func(t *testing.T, m *fob.Manager) (backend.Kind, func(*testing.T, *fob.Manager) error) {
			issued := user(t, m)
			_, err := m.Revoke(t.Context(), issued.Token.Session(), "left")
			require.NoError(t, err)
			return fob.RecordFamily, func(t *testing.T, m *fob.Manager) error {
				_, err := m.Refresh(t.Context(), issued.Refresh.Reveal())
				return err
			}
		}, []string{"ended at, left", "reason, left", "reason, too", "tag key, left"}},
	} {
		t.Run(name, func(t *testing.T) {
			store := memory.New()
			first := bareManager(t, store, tokenConfig())
			kind, reads := is.prepare(t, first)
			require.NoError(t, first.Close())
			page, err := store.List(t.Context(), backend.Query{Kind: kind, Limit: 10})
			require.NoError(t, err)
			require.Len(t, page.Records, 1)
			rec := page.Records[0]
			fields := fieldsOf(t, rec)
			try := func(how string, fields ...field) {
				t.Helper()
				now, err := store.Get(t.Context(), rec.ID)
				require.NoError(t, err)
				rewrite(t, store, now, fields...)
				m := bareManager(t, store, tokenConfig())
				defer m.Close()
				err = reads(t, m)
				if slices.ContainsFunc(is.free, func(free string) bool { return strings.HasPrefix(how, free) }) {
					require.NotErrorIs(t, err, fob.ErrCorrupt, how)
					return
				}
				require.ErrorIs(t, err, fob.ErrCorrupt, how)
				mustBeUnsure(t, err)
			}
			for i, f := range fields {
				what := numbered[f.n]
				require.NotEmpty(t, what, "field %d", f.n)
				with := func(v string) []field {
					all := slices.Clone(fields)
					all[i].v = v
					return all
				}
				try(what+", left out", slices.Delete(slices.Clone(fields), i, i+1)...)
				try(what+", empty", with("")...)
				try(what+", too short", with(f.v[:len(f.v)-1])...)
				try(what+", too long", with(f.v+"\x01")...)
			}
			try("a field that is not known", append(slices.Clone(fields), field{99, "\x01"})...)
			try("nothing at all")
		})
	}
}
