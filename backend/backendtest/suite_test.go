package backendtest_test

import (
	"context"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
	"github.com/fobkit/fob/backend/memory"
	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// all makes the tests below try every flaw with the whole suite. By default each meets
// the groups that must notice it, up to the first failure, and a quarter of the others.
var all = os.Getenv("FOB_LONG") != ""

// few makes the longest list short, for stores that are made many times.
const few = 300

// little is how long the suite waits for what a flawed store never does. It is too
// short for a busy machine, where a check may fail without the flaw: only those groups
// have so little time that must fail anyway.
const little = 1500 * time.Millisecond

// flawFails runs the suite over a flawed store and returns what fails. A flaw that only
// shows in some orders of events shows sooner or later.
func flawFails(t *testing.T, number int, want []string, newStore func(t *testing.T) backend.Store, opts backendtest.Options) map[string][]string {
	t.Helper()
	opts.Records = few
	patience := func(group string) backendtest.Options {
		if slices.Contains(want, group) {
			opts := opts
			opts.Patience = little
			return opts
		}
		return opts
	}
	names := backendtest.GroupNames()
	failures := backendtest.Failures(t, newStore, patience, all, func(group string, _ []backendtest.Capability) bool {
		return all || slices.Contains(want, group) || (slices.Index(names, group)+number)%4 == 0
	})
	for _, late := range want {
		await.Until(t, "a failure of the group "+late, func() bool {
			if len(failures[late]) == 0 {
				maps.Copy(failures, backendtest.Failures(t, newStore, patience, all, func(group string, _ []backendtest.Capability) bool { return group == late }))
			}
			return len(failures[late]) > 0
		})
	}
	return failures
}

func TestEachFlawFailsItsGroups(t *testing.T) {
	covered := make(map[string]bool)
	number := 0
	for _, flaw := range slices.Concat(flaws(), labelFlaws()) {
		number++
		t.Run(flaw.name, func(t *testing.T) {
			failures := flawFails(t, number, flaw.groups, func(t *testing.T) backend.Store {
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
		{"labels are not kept", journalFlaws{NoLabels: true}, []string{"durability", "model"}},
		{"the last line is lost at open", journalFlaws{LoseLast: true}, []string{"durability", "model"}},
	} {
		number++
		t.Run(flaw.name, func(t *testing.T) {
			newStore, opts := journals(flaw.flaws)
			checkFailures(t, flawFails(t, number, flaw.groups, newStore, opts), flaw.groups)
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

func TestGroupsAreChosenByName(t *testing.T) {
	got, failure := backendtest.Chosen()
	require.Empty(t, failure)
	require.Equal(t, backendtest.GroupNames(), got)
	got, failure = backendtest.Chosen("feed", "cas")
	require.Empty(t, failure)
	require.Equal(t, []string{"cas", "feed"}, got)
	got, failure = backendtest.Chosen("feed", "sweeps")
	require.Contains(t, failure, `"sweeps"`)
	require.Empty(t, got)
}

func TestEveryRuleHasAChecks(t *testing.T) {
	n := backendtest.RuleChecks()
	for rule := 1; rule <= 22; rule++ {
		require.NotZero(t, n[rule], "no check names rule R%d", rule)
	}
}

func TestCapabilities(t *testing.T) {
	bare := func(*testing.T) backend.Store { return struct{ backend.Store }{memory.New()} }
	capabilities := []backendtest.Capability{backendtest.Watcher, backendtest.Lister, backendtest.UsageRecorder, backendtest.Purger, backendtest.BulkReader, backendtest.Scanner, backendtest.Counter}
	// Without a list of those that are missing, only the checks that need one of them.
	fails := func(newStore func(*testing.T) backend.Store, missing []backendtest.Capability, whole bool) map[string][]string {
		opts := backendtest.Options{Missing: missing, Records: few}
		return backendtest.Failures(t, newStore, func(string) backendtest.Options { return opts }, true,
			func(_ string, needs []backendtest.Capability) bool { return all || whole || len(needs) > 0 })
	}
	require.Empty(t, fails(bare, capabilities, true))
	for _, capability := range capabilities {
		unlisted := slices.DeleteFunc(slices.Clone(capabilities), func(c backendtest.Capability) bool { return c == capability })
		failures := fails(bare, unlisted, false)
		require.NotEmpty(t, failures)
		for _, list := range failures {
			for _, f := range list {
				require.Contains(t, f, "the store lacks the capability "+string(capability))
			}
		}
		failures = fails(func(*testing.T) backend.Store { return memory.New() }, []backendtest.Capability{capability}, false)
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
