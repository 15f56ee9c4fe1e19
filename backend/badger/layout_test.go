package badger_test

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/stretchr/testify/require"
)

// layout1 is a backup of a store that the last version with layout 1 has made (commit
// f2c0e6f), sealed under layout1Key: the records of old, the last of them changed once, and
// a usage of the first.
//
//go:embed testdata/layout1.backup
var layout1 []byte

var layout1Key = badger.BackupKey(bytes.Repeat([]byte{9}, 32))

// old is the record with this number in layout1.
func old(n int) backend.Record {
	rec := backend.Record{ID: backend.ID{1, 15: byte(n)}, Kind: backend.Kind(1 + n%2), Owner: "an owner", Created: 1_764_000_000_000 + int64(n), Body: fmt.Appendf(nil, "body %d", n), Version: uint64(1 + n)}
	if n >= 3 {
		rec.Owner, rec.Parent = "", backend.ID{9}
		rec.Expires, rec.PurgeAt = rec.Created+1000, rec.Created+2000
	}
	if n == 5 {
		rec.Body, rec.Version = []byte("changed"), 7
	}
	return rec
}

// hasOld fails unless s has what layout1 has, in every list.
func hasOld(t *testing.T, s *badger.Store) {
	t.Helper()
	for n := range 6 {
		got, err := s.Get(t.Context(), old(n).ID)
		require.NoError(t, err)
		require.Equal(t, old(n), got)
	}
	for _, c := range []struct {
		q    backend.Query
		want []int
	}{
		{backend.Query{Kind: 1}, []int{0, 2, 4}},
		{backend.Query{Kind: 2, Newest: true}, []int{5, 3, 1}},
		{backend.Query{Kind: 1, Owner: "an owner"}, []int{0, 2}},
		{backend.Query{Kind: 2, Parent: backend.ID{9}, Newest: true}, []int{5, 3}},
		{backend.Query{Kind: 2, ExpiresBefore: old(5).Expires}, []int{3}},
		{backend.Query{Kind: 1, Label: "a"}, nil},
	} {
		page, err := s.List(t.Context(), c.q)
		require.NoError(t, err)
		var want []backend.Record
		for _, n := range c.want {
			want = append(want, old(n))
		}
		require.Equal(t, want, page.Records)
		n, err := s.Count(t.Context(), c.q, 100)
		require.NoError(t, err)
		require.Equal(t, len(want), n)
	}
	usage, err := s.Usage(t.Context(), []backend.ID{old(0).ID})
	require.NoError(t, err)
	require.Equal(t, []backend.Usage{{ID: old(0).ID, N: 7, Last: 1_764_000_000_999}}, usage)
}

func TestAStoreOfLayout1IsBroughtUp(t *testing.T) {
	for name, opts := range map[string]badger.Options{"plain": {}, "encrypted": {EncryptionKey: bytes.Repeat([]byte{5}, 32)}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			require.NoError(t, badger.Restore(t.Context(), dir, layout1Key, opts, bytes.NewReader(layout1)))
			s := open(t, dir, opts)
			require.EqualValues(t, 2, s.Layout(), "a version that knows layout 1 alone refuses the store from here on")
			hasOld(t, s)

			// Those who followed it follow on, over the next restart too.
			var token backend.Token
			stop := errors.New("stop")
			require.ErrorIs(t, s.Watch(t.Context(), nil, func(b backend.Batch) error { token = b.Token; return stop }), stop)
			require.NoError(t, s.Close())
			s = open(t, dir, opts)
			hasOld(t, s)
			rec := old(2)
			rec.Labels = []string{"a"}
			version, err := s.Put(t.Context(), rec, backend.IfVersion(rec.Version))
			require.NoError(t, err)
			require.ErrorIs(t, s.Watch(t.Context(), token, func(b backend.Batch) error {
				require.False(t, b.Reset)
				require.Equal(t, []backend.Change{{ID: rec.ID, Version: version}}, b.Changes)
				return stop
			}), stop)
			require.Equal(t, 1, counted(t, s, "a"))

			// A backup of it has the labels, and its lists.
			var full bytes.Buffer
			require.NoError(t, s.Backup(t.Context(), &full, layout1Key))
			again := filepath.Join(t.TempDir(), "again")
			require.NoError(t, badger.Restore(t.Context(), again, layout1Key, opts, &full))
			r := open(t, again, opts)
			require.EqualValues(t, 2, r.Layout())
			page, err := r.List(t.Context(), backend.Query{Kind: 1, Label: "a"})
			require.NoError(t, err)
			rec.Version = version
			require.Equal(t, []backend.Record{rec}, page.Records)
		})
	}
}

func TestALaterLayoutIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, badger.Options{})
	require.NoError(t, s.SetLayout(3))
	require.NoError(t, s.Close())
	for range 2 {
		_, err := badger.Open(dir, badger.Options{})
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.ErrorContains(t, err, "the store has layout 3, and this version of fob knows layouts 1 to 2")
	}
}
