package badger_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/badger"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// allLabels are as many labels as a record can have, each as long as one can be.
func allLabels(first string) []string {
	list := make([]string, backend.MaxLabels)
	for i := range list {
		list[i] = fmt.Sprintf("%s%02d%s", first, i, strings.Repeat("x", backend.MaxLabel-3))
	}
	return list
}

// counted is how many records a list by this label has.
func counted(t *testing.T, s *badger.Store, label string) int {
	t.Helper()
	n, err := s.Count(t.Context(), backend.Query{Kind: 1, Label: label}, math.MaxInt)
	require.NoError(t, err)
	return n
}

// What the last commit wrote, as the letters of its keys; what it removed is not there.
func lastWritten(s *badger.Store) (letters string) {
	at := s.Written()
	var last uint64
	for _, when := range at {
		last = max(last, when)
	}
	var keys []string
	for key, when := range at {
		if when == last {
			keys = append(keys, key[:1])
		}
	}
	slices.Sort(keys)
	return strings.Join(keys, "")
}

func TestAPutWritesTheKeysOfListsThatChange(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	rec := record(1)
	rec.Expires, rec.PurgeAt = 10, 20
	cond := backend.IfAbsent()
	put := func() {
		t.Helper()
		version, err := s.Put(t.Context(), rec, cond)
		require.NoError(t, err)
		cond = backend.IfVersion(version)
	}
	put()
	require.Equal(t, "cdeklo", lastWritten(s), "the record, the feed, and the lists of its kind, owner, expiry and purge")
	put()
	require.Equal(t, "cl", lastWritten(s), "an update that moves nothing writes the record and the feed alone")
	rec.Expires++
	put()
	require.Equal(t, "cel", lastWritten(s))
	rec.Labels = []string{"a", "b", "c"}
	put()
	require.Equal(t, "clttt", lastWritten(s))
	rec.Labels = []string{"a", "c", "d"}
	put()
	require.Equal(t, "clt", lastWritten(s), "labels that stay are not written again")
	require.Equal(t, []int{1, 0, 1, 1}, []int{counted(t, s, "a"), counted(t, s, "b"), counted(t, s, "c"), counted(t, s, "d")})
	rec.Labels, rec.Expires, rec.PurgeAt = nil, 0, 0
	put()
	require.Equal(t, "cl", lastWritten(s))
	page, err := s.List(t.Context(), backend.Query{Kind: 1, ExpiresBefore: math.MaxInt64})
	require.NoError(t, err)
	require.Empty(t, page.Records)
}

// Labels belong to the store once Put was called, also where its caller is gone before the
// writer comes to it.
func TestLabelsAreNotShared(t *testing.T) {
	a := behindACommit(t, func(s *badger.Store) { _, _ = s.Put(context.Background(), record(1), backend.IfAbsent()) })
	rec := record(2)
	rec.Labels = []string{"a"}
	mine := rec.Labels
	var version uint64
	answer := a.then(t, a.put(rec, backend.IfAbsent(), &version))
	mine[0] = "b"
	close(a.release)
	require.NoError(t, <-answer)
	got, err := a.Get(t.Context(), rec.ID)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, got.Labels)
}

// Many updates that each replace all labels are more than a transaction of BadgerDB takes.
// Nobody knows that before they are evaluated, and none of them fails for it.
func TestMoreLabelsThanATransactionTakes(t *testing.T) {
	const n = 150
	s := open(t, t.TempDir(), badger.Options{})
	recs, versions := make([]backend.Record, n), make([]uint64, n)
	for i := range recs {
		recs[i] = record(uint64(i))
		recs[i].PurgeAt, recs[i].Labels = 1, allLabels("a")
		var err error
		versions[i], err = s.Put(t.Context(), recs[i], backend.IfAbsent())
		require.NoError(t, err)
	}
	commits := s.Stats().Commits

	busy, release := make(chan struct{}, 1), make(chan struct{})
	var evaluated atomic.Int64
	s.OnApplied(func() error { evaluated.Add(1); return nil })
	s.OnCommit(func() {
		select {
		case busy <- struct{}{}:
		default: // a later one
		}
		<-release
	})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = s.Put(context.Background(), record(n), backend.IfAbsent()) })
	<-busy
	errs := make([]error, n)
	for i := range recs {
		recs[i].Labels = nil
		wg.Go(func() { versions[i], errs[i] = s.Put(context.Background(), recs[i], backend.IfVersion(versions[i])) })
	}
	await.Until(t, "all of them are evaluated", func() bool { return evaluated.Load() == n+1 })
	close(release)
	wg.Wait()
	require.Equal(t, make([]error, n), errs)
	require.Greater(t, s.Stats().Commits-commits, uint64(2), "the second batch took several commits")
	require.Zero(t, counted(t, s, allLabels("a")[7]))

	for i := range recs {
		recs[i].Labels = allLabels("b")
		_, err := s.Put(t.Context(), recs[i], backend.IfVersion(versions[i]))
		require.NoError(t, err)
	}
	require.Equal(t, n, counted(t, s, allLabels("b")[63]))
	gone, err := s.Purge(t.Context(), time.UnixMilli(1), backend.MaxLimit)
	require.NoError(t, err)
	require.Equal(t, n, gone, "Purge stops for none of it either")
	require.Zero(t, counted(t, s, allLabels("b")[63]))
}

// Everything about a list by label and its reverse, next to lists whose names begin alike.
func TestListsByLabel(t *testing.T) {
	s := open(t, t.TempDir(), badger.Options{})
	names := []string{"a", "a\x00", "ab", "b", "\xff", strings.Repeat("\xff", backend.MaxLabel)}
	const each = 7
	for i := range uint64(each * len(names)) {
		rec := record(i)
		rec.Labels = names[i%uint64(len(names)):][:1]
		if i < 6 {
			rec.Created = 0
		}
		if i >= each*uint64(len(names))-6 {
			rec.Created = math.MaxInt64
		}
		_, err := s.Put(t.Context(), rec, backend.IfAbsent())
		require.NoError(t, err)
	}
	for _, name := range names {
		require.Equal(t, each, counted(t, s, name))
		for limit := 1; limit <= each+1; limit++ {
			var orders [2][]backend.ID
			for i, newest := range []bool{false, true} {
				q := backend.Query{Kind: 1, Label: name, Newest: newest, Limit: limit}
				for {
					page, err := s.List(t.Context(), q)
					require.NoError(t, err)
					for _, rec := range page.Records {
						require.Equal(t, []string{name}, rec.Labels)
						orders[i] = append(orders[i], rec.ID)
					}
					if q.After = page.Next; q.After == "" {
						break
					}
				}
			}
			require.Len(t, orders[0], each)
			slices.Reverse(orders[1])
			require.Equal(t, orders[0], orders[1])
		}
		n, err := s.Count(t.Context(), backend.Query{Kind: 1, Label: name, Newest: true}, 3)
		require.NoError(t, err)
		require.Equal(t, 3, n, "no more than what is asked for")
	}
	n, err := s.Count(t.Context(), backend.Query{Kind: 1, Label: "c"}, 3)
	require.NoError(t, err)
	require.Zero(t, n)
}
