package etcdtest_test

import (
	"bytes"
	_ "embed"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// layout1 is all keys of a store that the last version with layout 1 has written (commit
// f2c0e6f), each line a key and its value: the records of old, a counter of usage, and usage
// in the journal.
//
//go:embed testdata/layout1.txt
var layout1 string

// old is the record with this number in layout1.
func old(n int) backend.Record {
	rec := backend.Record{ID: backend.ID{1, 15: byte(n)}, Kind: backend.Kind(1 + n%2), Owner: "an owner", Created: 1_764_000_000_000 + int64(n), Body: fmt.Appendf(nil, "body %d", n)}
	if n >= 3 {
		rec.Owner, rec.Parent = "", backend.ID{9}
		rec.Expires, rec.PurgeAt = rec.Created+1000, rec.Created+2000
	}
	return rec
}

// ofLayout1 puts a store of layout 1 into a cluster.
func ofLayout1(t *testing.T, bare *clientv3.Client) {
	t.Helper()
	for line := range strings.Lines(layout1) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		k, err := hex.DecodeString(key)
		require.NoError(t, err)
		v, err := hex.DecodeString(value)
		require.NoError(t, err)
		_, err = bare.Put(t.Context(), string(k), string(v))
		require.NoError(t, err)
	}
}

func marker(t *testing.T, bare *clientv3.Client) []byte {
	t.Helper()
	resp, err := bare.Get(t.Context(), "fob/m")
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1)
	return resp.Kvs[0].Value
}

func TestAStoreOfLayout1IsBroughtUp(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	bare := client(t, c.Config())
	ofLayout1(t, bare)
	before := marker(t, bare)
	require.EqualValues(t, 1, before[0])

	s, other := open(t, bare, patient), open(t, bare, patient)
	f := watch(t, s, nil)
	f.begun(t)
	var recs []backend.Record
	for n := range 6 {
		got, err := s.Get(t.Context(), old(n).ID)
		require.NoError(t, err)
		want := old(n)
		want.Version = got.Version
		require.Equal(t, want, got)
		recs = append(recs, got)
	}
	for _, c := range []struct {
		q    backend.Query
		want []backend.Record
	}{
		{backend.Query{Kind: 1}, []backend.Record{recs[0], recs[2], recs[4]}},
		{backend.Query{Kind: 2, Newest: true}, []backend.Record{recs[5], recs[3], recs[1]}},
		{backend.Query{Kind: 1, Owner: "an owner"}, []backend.Record{recs[0], recs[2]}},
		{backend.Query{Kind: 2, Parent: backend.ID{9}, Newest: true}, []backend.Record{recs[5], recs[3]}},
		{backend.Query{Kind: 2, ExpiresBefore: recs[5].Expires}, []backend.Record{recs[3]}},
		{backend.Query{Kind: 1, Label: "a"}, []backend.Record{}},
	} {
		page, err := s.List(t.Context(), c.q)
		require.NoError(t, err)
		require.Equal(t, c.want, page.Records)
		n, err := s.Count(t.Context(), c.q, 100)
		require.NoError(t, err)
		require.Equal(t, len(c.want), n)
	}
	used(t, s, backend.Usage{ID: recs[0].ID, N: 10, Last: 1_764_000_001_000})
	require.Equal(t, before, marker(t, bare), "reading changes nothing")

	// The first write brings it up, whoever makes it: it is the same store, and its feeds
	// go on.
	recs[0].Labels = []string{"a"}
	recs[0].Version = mustPut(t, s, recs[0])
	f.sees(t, recs[0])
	f.proves(t)
	f.lossless(t)
	after := marker(t, bare)
	require.EqualValues(t, 2, after[0])
	require.True(t, bytes.Equal(before[1:], after[1:]), "its epoch is the same")
	recs[3].Labels = []string{"a"}
	recs[3].Version = mustPut(t, other, recs[3])
	require.Equal(t, after, marker(t, bare))
	require.Equal(t, 1, at(t, s, "a"), "of kind 1")
	require.NoError(t, other.Delete(t.Context(), recs[1].ID, recs[1].Version))
	require.NoError(t, s.AddUsage(t.Context(), []backend.Usage{{ID: recs[0].ID, N: 1}}))
	used(t, other, backend.Usage{ID: recs[0].ID, N: 11, Last: 1_764_000_001_000})

	// What a process does that has seen layout 1 alone: each of its writes has that marker
	// among its conditions.
	resp, err := bare.Txn(t.Context()).If(clientv3.Compare(clientv3.Value("fob/m"), "=", string(before))).Then(clientv3.OpPut("fob/x", "")).Commit()
	require.NoError(t, err)
	require.False(t, resp.Succeeded)
}
