package backendtest

import (
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"github.com/fobkit/fob/backend"
)

// recorder is a reporter that a check may fail without failing the test.
type recorder struct{ failure string }

func (r *recorder) Helper()             {}
func (r *recorder) Logf(string, ...any) {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// watchFail runs do and returns its failure, or "".
func watchFail(do func(r reporter)) string {
	r := new(recorder)
	var wg sync.WaitGroup
	wg.Go(func() { do(r) })
	wg.Wait()
	return r.failure
}

// Failures runs the checks of the suite that are asked for and returns the failures by
// group. A group ends with its first failure, unless all are wanted.
func Failures(t *testing.T, newStore func(t *testing.T) backend.Store, opts func(group string) Options, all bool, asked func(group string, needs []Capability) bool) map[string][]string {
	failures := make(map[string][]string)
	for _, g := range groups() {
		for _, c := range g.checks {
			if !asked(g.name, c.needs) || !all && len(failures[g.name]) > 0 {
				continue
			}
			if f := watchFail(func(r reporter) { c.do(r, t, newStore, opts(g.name).withDefaults()) }); f != "" {
				failures[g.name] = append(failures[g.name], c.String()+": "+f)
			}
		}
	}
	return failures
}

// KillFailure is KillLoop where it may fail.
func KillFailure(rounds int, child func(round int) *exec.Cmd, open func() backend.Store) string {
	return watchFail(func(r reporter) { killLoop(r, rounds, child, open) })
}

// GroupNames are the groups, and RuleChecks says how many checks each rule has.
func GroupNames() (names []string) {
	for _, g := range groups() {
		names = append(names, g.name)
	}
	return names
}

func RuleChecks() map[int]int {
	n := make(map[int]int)
	for _, g := range groups() {
		for _, c := range g.checks {
			n[c.rule]++
		}
	}
	return n
}

// Event and Linearizable are the check of histories, by itself.
type Event = event

func Read(start, end int64, version uint64) Event {
	return event{start: start, end: end, version: version}
}

func Write(start, end int64, version, over uint64) Event {
	return event{start: start, end: end, version: version, over: over, write: true}
}

func Refused(start, end int64, over uint64) Event {
	return event{start: start, end: end, over: over, refused: true}
}

func Linearizable(history ...Event) error { return linearizable(history) }

// Chosen are the groups that Options.Groups chooses, or the failure.
func Chosen(names ...string) (got []string, failure string) {
	failure = watchFail(func(r reporter) {
		for _, g := range chosen(r, names) {
			got = append(got, g.name)
		}
	})
	return got, failure
}
