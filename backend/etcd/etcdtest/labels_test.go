package etcdtest_test

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/etcd/etcdtest"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// labelled are as many labels as a record can have, each as long as one can be.
func labelled(first string) []string {
	list := make([]string, backend.MaxLabels)
	for i := range list {
		list[i] = fmt.Sprintf("%s%02d%s", first, i, strings.Repeat("x", backend.MaxLabel-3))
	}
	return list
}

// written is how many keys have their value from the write that gave this version.
func written(t *testing.T, bare *clientv3.Client, version uint64) int {
	t.Helper()
	all, err := bare.Get(t.Context(), "fob/", clientv3.WithPrefix(), clientv3.WithMinModRev(int64(version)), clientv3.WithMaxModRev(int64(version)))
	require.NoError(t, err)
	return len(all.Kvs)
}

// at is how many records a list by this label has.
func at(t *testing.T, s backend.Counter, label string) int {
	t.Helper()
	n, err := s.Count(t.Context(), backend.Query{Kind: 1, Label: label}, math.MaxInt)
	require.NoError(t, err)
	return n
}

func TestAPutWritesTheKeysOfListsThatChange(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	bare := client(t, c.Config())
	s := open(t, bare, patient)
	rec := create(t, s, 1)
	require.Equal(t, 3, written(t, bare, rec.Version), "the record, and the lists of its kind and owner")
	rec.Version = mustPut(t, s, rec)
	require.Equal(t, 1, written(t, bare, rec.Version), "an update that moves nothing writes the record alone")
	rec.Labels = []string{"a", "b", "c"}
	rec.Version = mustPut(t, s, rec)
	require.Equal(t, 4, written(t, bare, rec.Version))
	rec.Labels = []string{"a", "c", "d"}
	rec.Version = mustPut(t, s, rec)
	require.Equal(t, 2, written(t, bare, rec.Version), "labels that stay are not written again")
	require.Equal(t, []int{1, 0, 1, 1}, []int{at(t, s, "a"), at(t, s, "b"), at(t, s, "c"), at(t, s, "d")})
}

// A server allows 128 operations in a transaction; these are 133.
func TestAllLabelsAreReplacedAtOnce(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	bare := client(t, c.Config())
	s := open(t, bare, patient)
	rec := record(1)
	rec.Parent, rec.Expires, rec.PurgeAt, rec.Labels = backend.ID{9}, 10, 20, labelled("a")
	rec.Body = make([]byte, backend.MaxBody)
	rec.Version = made(t, s, rec, backend.IfAbsent())
	before := rec.Labels
	rec.Expires, rec.PurgeAt, rec.Labels = 11, 21, labelled("b")
	rec.Version = mustPut(t, s, rec)
	for i := range before {
		require.Equal(t, []int{0, 1}, []int{at(t, s, before[i]), at(t, s, rec.Labels[i])})
	}
	got, err := s.Get(t.Context(), rec.ID)
	require.NoError(t, err)
	require.Equal(t, rec, got)
	require.Equal(t, backend.MaxLabels+3, written(t, bare, rec.Version), "in one write, with the record and its two other places")

	for n := range 5 {
		more := record(2 + n)
		more.PurgeAt, more.Labels = 22, labelled("c")
		made(t, s, more, backend.IfAbsent())
	}
	n, err := s.Purge(t.Context(), time.UnixMilli(100), 10)
	require.NoError(t, err)
	require.Equal(t, 6, n)
	left, err := bare.Get(t.Context(), "fob/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	require.Len(t, left.Kvs, 1, "nothing but the marker")
}

// What the store hands out and is handed is not what it remembers.
func TestLabelsAreNotShared(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	s := open(t, client(t, c.Config()), patient)
	rec := record(1)
	rec.Labels = []string{"a", "b"}
	rec.Version = made(t, s, rec, backend.IfAbsent())
	rec.Labels[0], rec.Labels[1] = "x", "y"
	rec.Version = mustPut(t, s, rec)
	got, err := s.Get(t.Context(), rec.ID)
	require.NoError(t, err)
	got.Labels[0], got.Labels[1] = "p", "q"
	mustPut(t, s, got)
	require.Equal(t, []int{0, 0, 0, 0, 1, 1}, []int{at(t, s, "a"), at(t, s, "b"), at(t, s, "x"), at(t, s, "y"), at(t, s, "p"), at(t, s, "q")})
}

// The end of a list is found whatever the times of its records are.
func TestTheNewestFirst(t *testing.T) {
	t.Parallel()
	c := cluster(t, 1, etcdtest.Options{NoSync: true})
	s := open(t, client(t, c.Config()), patient)
	now := time.Now().UnixMilli()
	for name, created := range map[string]func(n int) int64{
		"one instant":        func(int) int64 { return 1_764_000_000_000 },
		"one instant at 0":   func(int) int64 { return 0 },
		"the last instant":   func(int) int64 { return math.MaxInt64 },
		"one in a second":    func(n int) int64 { return now - int64(n)*1000 },
		"the years":          func(n int) int64 { return now - int64(n)*10_000_000_000 },
		"all times":          func(n int) int64 { return 1<<(n%63) - 1 },
		"in the future":      func(n int) int64 { return now + 1<<(n%40) },
		"a burst, long ago":  func(n int) int64 { return int64(max(0, n-3)) },
		"a burst, and later": func(n int) int64 { return max(1_000_000, now-int64(n)*1<<33) },
	} {
		t.Run(name, func(t *testing.T) {
			const n = 45
			label := "of " + name
			var recs []backend.Record
			for i := range n {
				rec := backend.Record{ID: backend.ID{1 + byte(len(name)), byte(name[0]), byte(i % 7), 15: byte(i)}, Kind: 1, Created: created(i), Labels: []string{label}}
				rec.Version = made(t, s, rec, backend.IfAbsent())
				recs = append(recs, rec)
			}
			slices.SortFunc(recs, func(a, b backend.Record) int {
				return cmp.Or(cmp.Compare(b.Created, a.Created), bytes.Compare(b.ID[:], a.ID[:]))
			})
			for _, limit := range []int{1, 2, 5, n - 1, n, n + 1} {
				q := backend.Query{Kind: 1, Label: label, Newest: true, Limit: limit}
				var got []backend.Record
				for {
					page, err := s.List(t.Context(), q)
					require.NoError(t, err)
					require.LessOrEqual(t, len(page.Records), limit)
					got = append(got, page.Records...)
					if q.After = page.Next; q.After == "" {
						break
					}
					require.Len(t, page.Records, limit)
				}
				require.Equal(t, recs, got, "by pages of %d", limit)
			}
			require.Equal(t, n, at(t, s, label))
		})
	}
}
