package fob_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

// listAll walks a query to its end.
func listAll(t *testing.T, m *fob.Manager, q fob.Query) (names []string) {
	t.Helper()
	for {
		page, err := m.List(t.Context(), q)
		require.NoError(t, err)
		for _, c := range page.Items {
			names = append(names, c.Name())
		}
		if page.Next == "" {
			return names
		}
		q.Cursor = page.Next
	}
}

func TestListFilters(t *testing.T) {
	clock := newClock()
	start := clock.Now()
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	byName := map[string]*fob.Key{}
	texts := map[string]string{}
	for i := range 40 {
		spec := fob.KeySpec{Subject: fob.App(fmt.Sprintf("app-%d", i%4)), Name: fmt.Sprintf("k%02d", i)}
		if i%5 == 0 {
			spec.Tags = []string{"ci", "x"}
		}
		if i%10 == 1 {
			spec.ExpiresAt = start.Add(time.Duration(100-i) * time.Hour)
		}
		texts[spec.Name], byName[spec.Name] = mustIssue(t, m, spec)
		clock.Add(time.Millisecond)
	}
	mustIssue(t, m, fob.KeySpec{Subject: fob.User("app-1"), Name: "user"})
	require.NoError(t, m.Disable(t.Context(), byName["k05"].ID(), ""))
	_, err := m.Revoke(t.Context(), byName["k09"].ID(), "")
	require.NoError(t, err)

	require.Equal(t, []string{"k01", "k05", "k09", "k13", "k17", "k21", "k25", "k29", "k33", "k37"}, listAll(t, m, fob.Query{Subject: fob.App("app-1"), Limit: 3}))
	require.Equal(t, []string{"user"}, listAll(t, m, fob.Query{Subject: fob.User("app-1")}))
	require.Equal(t, []string{"k05"}, listAll(t, m, fob.Query{Status: fob.StatusDisabled, Limit: 1}))
	require.Equal(t, []string{"k09"}, listAll(t, m, fob.Query{Subject: fob.App("app-1"), Status: fob.StatusRevoked}))
	require.Equal(t, []string{"k00", "k05", "k10", "k15", "k20", "k25", "k30", "k35"}, listAll(t, m, fob.Query{Tag: "ci", Limit: 2}))
	require.Equal(t, []string{"k31", "k21", "k11"}, listAll(t, m, fob.Query{ExpiringWithin: 90 * time.Hour, Limit: 2}), "soonest first")
	require.Equal(t, []string{"k01", "k21"}, listAll(t, m, fob.Query{Subject: fob.App("app-1"), ExpiringWithin: 1000 * time.Hour}))
	require.Len(t, listAll(t, m, fob.Query{Limit: 1000}), 41)
	require.True(t, slices.IsSorted(listAll(t, m, fob.Query{Limit: 7})))

	clock.Add(time.Hour)
	since := clock.Now()
	mustVerify(t, m, texts["k02"])
	require.NotContains(t, listAll(t, m, fob.Query{UnusedSince: since}), "k02")
	require.Len(t, listAll(t, m, fob.Query{UnusedSince: since}), 40)
	require.Empty(t, listAll(t, m, fob.Query{UnusedSince: start}), "issued since, so not unused since")

	clock.Add(99 * time.Hour)
	require.Len(t, listAll(t, m, fob.Query{Status: fob.StatusExpired}), 4)
	require.Empty(t, listAll(t, m, fob.Query{ExpiringWithin: 90 * time.Hour}), "what has expired is not expiring")

	for _, bad := range []fob.Query{
		{Limit: -1}, {Limit: 1001}, {ExpiringWithin: -1}, {Status: 99}, {Cursor: "nonsense"}, {Subject: fob.App("a\x00")},
	} {
		_, err := m.List(t.Context(), bad)
		require.ErrorIs(t, err, fob.ErrInvalid)
	}
	page, err := m.List(t.Context(), fob.Query{Subject: fob.App("app-1"), Limit: 1})
	require.NoError(t, err)
	_, err = m.List(t.Context(), fob.Query{Subject: fob.App("app-2"), Cursor: page.Next})
	require.ErrorIs(t, err, fob.ErrInvalid, "a cursor of another list")
}

func TestOneListCallLooksAtABoundedNumberOfRecords(t *testing.T) {
	fault := backendtest.NewFault(memory.New())
	m := newManager(t, fault, fob.Config{})
	for i := range 5000 {
		mustIssue(t, m, fob.KeySpec{Subject: fob.App("a"), Name: fmt.Sprint(i)})
	}
	mustIssue(t, m, fob.KeySpec{Subject: fob.App("a"), Name: "last", Tags: []string{"rare"}})
	page, err := m.List(t.Context(), fob.Query{Subject: fob.App("a"), Tag: "rare", Limit: 1000})
	require.NoError(t, err)
	require.Empty(t, page.Items)
	require.NotEmpty(t, page.Next, "short, and not the last")
	require.Equal(t, []string{"last"}, listAll(t, m, fob.Query{Subject: fob.App("a"), Tag: "rare", Limit: 1000}))
}

// TestAListAsksTwentyTimesAtMost, however few keys it is to return: a page may be short.
func TestAListAsksTwentyTimesAtMost(t *testing.T) {
	for _, limit := range []int{1, 2, 100, 1000} {
		fault := backendtest.NewFault(memory.New())
		m := newManager(t, fault, fob.Config{})
		const n = 300
		for i := range n {
			var tags []string
			if i == n-1 {
				tags = []string{"last"}
			}
			mustIssue(t, m, fob.KeySpec{Tags: tags})
		}
		var found []*fob.Key
		for q := (fob.Query{Tag: "last", Limit: limit}); ; {
			before := fault.Calls(backendtest.OpList)
			page, err := m.List(t.Context(), q)
			require.NoError(t, err)
			require.LessOrEqual(t, fault.Calls(backendtest.OpList)-before, 20)
			found = append(found, page.Items...)
			if q.Cursor = page.Next; page.Next == "" {
				break
			}
		}
		require.Len(t, found, 1)
	}
}

func TestSweepPurgesWhatIsLongOver(t *testing.T) {
	clock := newClock()
	store := memory.New()
	m := newManager(t, store, fob.Config{Clock: clock.Now, Retention: 24 * time.Hour})
	gone, expired := mustIssue(t, m, fob.KeySpec{TTL: time.Hour})
	_, revoked := mustIssue(t, m, fob.KeySpec{})
	kept, keptKey := mustIssue(t, m, fob.KeySpec{})
	_, disabled := mustIssue(t, m, fob.KeySpec{})
	_, err := m.Revoke(t.Context(), revoked.ID(), "")
	require.NoError(t, err)
	require.NoError(t, m.Disable(t.Context(), disabled.ID(), ""))
	swept := func() int { s, err := m.Sweep(t.Context()); require.NoError(t, err); return s.Purged }

	clock.Add(24*time.Hour - time.Millisecond)
	require.Zero(t, swept())
	clock.Add(time.Millisecond)
	require.Equal(t, 1, swept(), "the revoked one")
	mustReject(t, m, gone, fob.ErrExpired)
	clock.Add(time.Hour)
	require.Equal(t, 1, swept(), "the expired one")
	clock.Add(10 * 365 * 24 * time.Hour)
	require.Zero(t, swept(), "what has no end is kept, disabled or not")
	mustVerify(t, m, kept)
	for id, want := range map[fob.ID]bool{expired.ID(): false, revoked.ID(): false, keptKey.ID(): true, disabled.ID(): true} {
		_, err := store.Get(t.Context(), backend.ID(id))
		require.Equal(t, want, err == nil)
	}
	mustReject(t, m, gone, fob.ErrUnknown)
}

func TestSweepIsBounded(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now, Retention: time.Hour})
	for range 1500 {
		mustIssue(t, m, fob.KeySpec{TTL: time.Minute})
	}
	clock.Add(26 * time.Hour) // a day longer than one minute, for clocks that are late
	first, err := m.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, fob.Swept{Purged: 1000, More: true}, first)
	second, err := m.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, fob.Swept{Purged: 500}, second)
}

// The boundary of a list does not depend on the index that it is read by.
func TestWhatExpiresAtTheVeryInstantIsListed(t *testing.T) {
	clock := newClock()
	m := newManager(t, nil, fob.Config{Clock: clock.Now})
	mustIssue(t, m, fob.KeySpec{Subject: fob.App("a"), Name: "k", TTL: time.Hour})
	mustIssue(t, m, fob.KeySpec{Subject: fob.App("a"), Name: "later", TTL: time.Hour + time.Millisecond})
	for _, subject := range []fob.Subject{{}, fob.App("a")} {
		require.Equal(t, []string{"k"}, listAll(t, m, fob.Query{Subject: subject, ExpiringWithin: time.Hour}))
		require.Empty(t, listAll(t, m, fob.Query{Subject: subject, ExpiringWithin: time.Hour - time.Millisecond}))
	}
}
