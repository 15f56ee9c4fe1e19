// Package backendtest proves that a store keeps the contract of package
// backend, and breaks stores on purpose. It imports the standard library and
// fob's own stores only.
//
// The author of a store writes one test:
//
//	func TestContract(t *testing.T) {
//		backendtest.Run(t, func(t *testing.T) backend.Store {
//			store, err := mystore.Open(t.TempDir())
//			if err != nil {
//				t.Fatal(err)
//			}
//			return store
//		}, backendtest.Options{})
//	}
//
// Each failure is one sentence that names the duty and its rule (R1 to R22) in
// package backend. A durable store fills in Options.Reopen and Options.Kill as
// well: without them nothing shows that what was acknowledged is kept.
//
// NewFault wraps a store for the tests of code that uses one: errors before and
// after the fact, delays, hangs, lost acknowledgements, crashes.
package backendtest

import (
	"slices"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
)

// Capability names an optional interface of package backend.
type Capability string

// The capabilities that a store has, or lists in Options.Missing. Maintainer is
// not one of them: only its author knows whether an engine needs upkeep. A store
// that has it is tested for it.
const (
	Watcher       Capability = "Watcher"
	Lister        Capability = "Lister"
	Counter       Capability = "Counter"
	UsageRecorder Capability = "UsageRecorder"
	Purger        Capability = "Purger"
	BulkReader    Capability = "BulkReader"
	Scanner       Capability = "Scanner"
)

// Options says what the suite cannot see from outside. The zero value is right
// for a store that has every capability and keeps nothing.
type Options struct {
	// Missing lists the capabilities that the store is known to lack. One that is
	// missing and not listed fails, and so does one that is listed and there: a
	// capability cannot get lost unnoticed.
	Missing []Capability

	// Reopen closes a store that newStore made, if it is open, and opens its data
	// again. Nil means that the store is not durable: rule R9 is not tested.
	Reopen func(t *testing.T, store backend.Store) backend.Store

	// Kill runs KillLoop over a child process. Nil leaves that part of R9 out:
	// right for a store that is not durable, or whose engine is a server.
	Kill func(t *testing.T)

	// Cut makes the engine of store unreachable until heal is called. Nil leaves
	// that out: right where the engine is in the process.
	Cut func(t *testing.T, store backend.Store) (heal func())

	// Scarce makes the store's space run low, as far as the store can see. Nil means
	// that it keeps nothing back for what is urgent: of rule R18 it is then tested only
	// that what is urgent is written like everything else.
	Scarce func(t *testing.T, store backend.Store)

	// Batches lets the suite into the store's batches. Nil leaves that part of R10 out:
	// right for a store that makes one transaction for each operation.
	Batches func(t *testing.T, store backend.Store) Batches

	// Patience is how long the suite waits for what must come before it calls
	// that a failure. No right store makes it wait so long, on however busy a machine:
	// it is for what hangs. 0 means 5 minutes.
	Patience time.Duration

	// Seed is where the random operation lists begin; a failure prints it. 0 means
	// 1: the same lists in every run.
	Seed uint64

	// Records is how many records the longest list has. 0 means 10,000.
	Records int

	// Groups are the groups of checks to run, by the names of their subtests ("cas",
	// "feed"). None means all, and that alone proves a store: some are for one that is
	// tested whole in another configuration.
	Groups []string
}

func (o Options) withDefaults() Options {
	if o.Patience == 0 {
		o.Patience = 5 * time.Minute
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Records == 0 {
		o.Records = 10_000
	}
	o.Missing = slices.Clone(o.Missing)
	return o
}

// Run tests the stores that newStore makes. Each must be empty, and nobody else
// may write to it; the suite closes it. There is a subtest for each group and
// check, none of them parallel: one looks for goroutines that were left behind,
// so Run itself is best not called beside parallel tests.
func Run(t *testing.T, newStore func(t *testing.T) backend.Store, opts Options) {
	t.Helper()
	opts = opts.withDefaults()
	for _, g := range chosen(t, opts.Groups) {
		t.Run(g.name, func(t *testing.T) {
			for _, c := range g.checks {
				t.Run(c.String(), func(t *testing.T) {
					t.Helper()
					c.do(t, t, newStore, opts)
				})
			}
		})
	}
}

// chosen are the groups of these names, or all.
func chosen(r reporter, names []string) []group {
	r.Helper()
	all := groups()
	if len(names) == 0 {
		return all
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(g group) bool { return g.name == name }) {
			r.Fatalf("backendtest: there is no group %q", name)
		}
	}
	return slices.DeleteFunc(all, func(g group) bool { return !slices.Contains(names, g.name) })
}

// group is one line of the table of groups.
type group struct {
	name   string
	checks []check
}

func groups() []group {
	return []group{
		{"get-put-delete", recordChecks()},
		{"cas", casChecks()},
		{"memory", memoryChecks()},
		{"time", timeChecks()},
		{"identifiers", identifierChecks()},
		{"listing", listChecks()},
		{"labels", labelChecks()},
		{"count", countChecks()},
		{"bulk", bulkChecks()},
		{"context", contextChecks()},
		{"close", closeChecks()},
		{"durability", durabilityChecks()},
		{"feed", slices.Concat(feedChecks(), proofChecks())},
		{"sweep", sweepChecks()},
		{"usage", usageChecks()},
		{"model", modelChecks()},
	}
}
