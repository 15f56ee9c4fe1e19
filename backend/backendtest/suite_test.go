package backendtest_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/stretchr/testify/require"
)

func TestEachFlawFailsItsGroups(t *testing.T) {
	covered := make(map[string]bool)
	for _, flaw := range flaws() {
		t.Run(flaw.name, func(t *testing.T) {
			failures := backendtest.Failures(t, func(t *testing.T) backend.Store {
				f := &flawed{Store: memory.New()}
				t.Cleanup(func() { _ = f.Store.Close() }) // whatever the flawed Close does
				flaw.make(t, f)
				return f
			}, backendtest.Options{})
			checkFailures(t, failures, flaw.groups)
		})
		covered[flaw.groups[0]] = true
	}
	for _, flaw := range []struct {
		name   string
		flaws  journalFlaws
		groups []string
	}{
		{"deletes are not kept", journalFlaws{NoDeletes: true}, []string{"durability", "model"}},
		{"usage is not kept", journalFlaws{NoUsage: true}, []string{"durability", "model"}},
		{"the last line is lost at open", journalFlaws{LoseLast: true}, []string{"durability", "model"}},
	} {
		t.Run(flaw.name, func(t *testing.T) {
			newStore, opts := journals(flaw.flaws)
			checkFailures(t, backendtest.Failures(t, newStore, opts), flaw.groups)
		})
		covered["durability"] = true
	}
	for _, group := range backendtest.GroupNames() {
		require.True(t, covered[group], "no flaw is there for the group %s", group)
	}
}

// checkFailures holds the groups that failed against those that must, and every
// failure against the form it must have.
func checkFailures(t *testing.T, failures map[string][]string, want []string) {
	t.Helper()
	got := slices.Sorted(maps.Keys(failures))
	require.Equal(t, slices.Sorted(slices.Values(want)), got, "%v", failures)
	for _, list := range failures {
		for _, f := range list {
			require.Regexp(t, `^R\d+ .+: rule R\d+ of package backend: .+: .+`, f)
			require.NotContains(t, f, "\n", "one sentence")
		}
	}
}

func TestEveryRuleHasAChecks(t *testing.T) {
	n := backendtest.RuleChecks()
	for rule := 1; rule <= 18; rule++ {
		require.NotZero(t, n[rule], "no check names rule R%d", rule)
	}
}

func TestCapabilities(t *testing.T) {
	bare := func(*testing.T) backend.Store { return struct{ backend.Store }{memory.New()} }
	all := []backendtest.Capability{backendtest.Watcher, backendtest.Lister, backendtest.UsageRecorder, backendtest.Purger}
	require.Empty(t, backendtest.Failures(t, bare, backendtest.Options{Missing: all}))
	for _, capability := range all {
		unlisted := slices.DeleteFunc(slices.Clone(all), func(c backendtest.Capability) bool { return c == capability })
		failures := backendtest.Failures(t, bare, backendtest.Options{Missing: unlisted})
		require.NotEmpty(t, failures)
		for _, list := range failures {
			for _, f := range list {
				require.Contains(t, f, "the store lacks the capability "+string(capability))
			}
		}
		failures = backendtest.Failures(t, func(*testing.T) backend.Store { return memory.New() },
			backendtest.Options{Missing: []backendtest.Capability{capability}})
		require.NotEmpty(t, failures)
		for _, list := range failures {
			for _, f := range list {
				require.Contains(t, f, "the store has the capability "+string(capability))
			}
		}
	}
}

func TestLinearizable(t *testing.T) {
	w, r := backendtest.Write, backendtest.Read
	for _, test := range []struct {
		name    string
		history []backendtest.Event
		wrong   string // part of the error, or ""
	}{
		{"one after the other", []backendtest.Event{w(1, 2, 5, 0), r(3, 4, 5), w(5, 6, 7, 5), r(7, 8, 7)}, ""},
		{"a read beside a write sees either", []backendtest.Event{w(1, 2, 5, 0), w(3, 8, 7, 5), r(4, 5, 5), r(6, 7, 7)}, ""},
		{"a read from before", []backendtest.Event{w(1, 2, 5, 0), w(3, 4, 7, 5), r(5, 6, 5)}, "returned the older version 5"},
		{"two reads in the wrong order", []backendtest.Event{w(1, 2, 5, 0), w(3, 8, 7, 5), r(4, 5, 7), r(6, 7, 5)}, "returned the older version 5"},
		{"a read from the future", []backendtest.Event{w(1, 2, 5, 0), r(3, 4, 7), w(5, 6, 7, 5)}, "before the write of version 7 began"},
		{"a lost update", []backendtest.Event{w(1, 2, 5, 0), w(3, 4, 6, 5), w(3, 4, 7, 5)}, "both replaced version 5"},
		{"one version twice", []backendtest.Event{w(1, 2, 5, 0), w(3, 4, 5, 5)}, "two writes returned version 5"},
		{"a write from nowhere", []backendtest.Event{w(1, 2, 5, 0), w(3, 4, 9, 8)}, "only 1 follow"},
		{"a read of nothing written", []backendtest.Event{w(1, 2, 5, 0), r(3, 4, 9)}, "no write had returned"},
		{"writes against the clock", []backendtest.Event{w(1, 2, 5, 0), w(5, 6, 6, 5), w(3, 4, 7, 6)}, "before the write of version 6 began"},
		{"refused rightly", []backendtest.Event{w(1, 2, 5, 0), w(3, 6, 7, 5), backendtest.Refused(4, 5, 5)}, ""},
		{"refused wrongly", []backendtest.Event{w(1, 2, 5, 0), backendtest.Refused(3, 4, 5), w(5, 6, 7, 5)}, "was refused while that version was current"},
	} {
		err := backendtest.Linearizable(test.history...)
		if test.wrong == "" {
			require.NoError(t, err, test.name)
			continue
		}
		require.ErrorContains(t, err, test.wrong, test.name)
	}
}

// lateUsage adds, and answers as if it had not.
func lateUsage(_ *testing.T, f *flawed) {
	f.addUsage = func(ctx context.Context, batch []backend.Usage) error {
		err := f.Store.AddUsage(ctx, batch)
		if _, bounded := ctx.Deadline(); bounded && err == nil {
			<-ctx.Done()
			return ctx.Err()
		}
		return err
	}
}

// refusesUrgent takes the hint for a reason to refuse.
func refusesUrgent(_ *testing.T, f *flawed) {
	f.put = func(ctx context.Context, rec backend.Record, cond backend.Cond) (uint64, error) {
		if backend.IsUrgent(ctx) {
			return 0, backend.ErrUnavailable
		}
		return f.Store.Put(ctx, rec, cond)
	}
}
