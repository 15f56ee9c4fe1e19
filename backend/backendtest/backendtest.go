// Package backendtest proves that a store keeps the contract of package
// backend. A store's own test is five lines:
//
//	func TestContract(t *testing.T) {
//		backendtest.Run(t, func(t *testing.T) backend.Store {
//			return mystore.New()
//		}, backendtest.Options{})
//	}
//
// Each group of the suite is a subtest; each failure is one sentence that names
// the duty and the rule (R1 to R17) of package backend. NewFault wraps a store
// for tests of what is built on one.
package backendtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fobkit/fob/backend"
)

// Options says what is special about a store.
type Options struct {
	// Reopen closes a store that newStore made and opens its data again. Nil
	// means that the store is not durable.
	Reopen func(t *testing.T, s backend.Store) backend.Store
	// Kill, for a durable store, runs KillLoop over a child process. Nil where that
	// is tested elsewhere, or the store is not durable.
	Kill func(t *testing.T)
	// Missing names the optional interfaces that the store does not have
	// ("Watcher", "Lister", "UsageRecorder", "Purger"). One that is missing and not
	// named fails, and so does one that is named and there: a capability cannot
	// get lost unnoticed.
	Missing []string
}

// Groups returns the names of the groups of the suite, in order.
func Groups() []string {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	return names
}

type group struct {
	name string
	run  func(*suite)
}

var groups = []group{
	{"capabilities", (*suite).capabilities},
	{"basics", (*suite).basics},
	{"compare-and-swap", (*suite).compareAndSwap},
	{"memory", (*suite).memory},
	{"time", (*suite).times},
	{"identifiers", (*suite).identifiers},
	{"listing", (*suite).listing},
	{"context", (*suite).contexts},
	{"close", (*suite).closing},
	{"durability", (*suite).durability},
	{"feed", (*suite).feed},
	{"sweep", (*suite).sweep},
	{"usage", (*suite).usage},
	{"model", (*suite).model},
}

// Run runs the whole suite. newStore makes a new, empty store each time; the
// suite closes it.
func Run(t *testing.T, newStore func(t *testing.T) backend.Store, opts Options) {
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			g.run(&suite{T: t, newStore: newStore, opts: opts})
		})
	}
}

type suite struct {
	*testing.T
	newStore func(t *testing.T) backend.Store
	opts     Options
}

// open makes a store that is closed with the test.
func (s *suite) open() backend.Store {
	s.Helper()
	st := s.newStore(s.T)
	s.Cleanup(func() { _ = st.Close() })
	return st
}

// breaks reports a broken duty in one sentence.
func (s *suite) breaks(rule, duty string, seen ...any) {
	s.Helper()
	text := fmt.Sprintf("rule %s of package backend: %s", rule, duty)
	if len(seen) > 0 {
		text += ": " + fmt.Sprintf(seen[0].(string), seen[1:]...)
	}
	s.Fatal(text)
}

// is checks an error against a sentinel.
func (s *suite) is(err, want error, rule, duty string) {
	s.Helper()
	if !errors.Is(err, want) {
		s.breaks(rule, duty, "got %v, want %v", err, want)
	}
}

func (s *suite) must(err error, doing string) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", doing, err)
	}
}

// capability finds an optional interface, and checks it against Options.Missing.
func capability[C any](s *suite, st backend.Store, name string) (C, bool) {
	c, ok := backend.As[C](st)
	missing := slices.Contains(s.opts.Missing, name)
	if ok == missing {
		s.Fatalf("%s: found is %v, but Options.Missing says missing is %v", name, ok, missing)
	}
	return c, ok
}

func (s *suite) capabilities() {
	st := s.open()
	capability[backend.Watcher](s, st, "Watcher")
	capability[backend.Lister](s, st, "Lister")
	capability[backend.UsageRecorder](s, st, "UsageRecorder")
	capability[backend.Purger](s, st, "Purger")
	for _, name := range s.opts.Missing {
		if !slices.Contains([]string{"Watcher", "Lister", "UsageRecorder", "Purger"}, name) {
			s.Fatalf("Options.Missing names %q, which is no capability", name)
		}
	}
}

// id makes an ID from a number; neighbours are far apart.
func id(n int) (id backend.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(id[8:], uint64(n)+1)
	return id
}

const year2026 = 1_770_000_000_000

// sample is a full record.
func sample(n int) backend.Record {
	return backend.Record{
		ID:      id(n),
		Kind:    1,
		Owner:   fmt.Sprintf("owner-%d", n%3),
		Parent:  id(1_000_000 + n%5),
		Created: year2026 + int64(n),
		Expires: year2026 + 1_000_000 + int64(n),
		PurgeAt: year2026 + 2_000_000 + int64(n),
		Body:    fmt.Appendf(nil, "body of %d", n),
	}
}

func (s *suite) put(st backend.Store, rec backend.Record, cond backend.Cond) uint64 {
	s.Helper()
	v, err := st.Put(s.Context(), rec, cond)
	s.must(err, "put")
	if v == 0 {
		s.breaks("R8", "a version is above zero")
	}
	return v
}

func (s *suite) get(st backend.Store, id backend.ID) backend.Record {
	s.Helper()
	rec, err := st.Get(s.Context(), id)
	s.must(err, "get")
	return rec
}

// same compares what was put with what came back.
func (s *suite) same(got, want backend.Record, rule, duty string) {
	s.Helper()
	if !equal(got, want) {
		s.breaks(rule, duty, "got %+v, want %+v", got, want)
	}
}

func equal(a, b backend.Record) bool {
	body := string(a.Body) == string(b.Body)
	a.Body, b.Body = nil, nil
	return body && fmt.Sprintf("%#v", a) == fmt.Sprintf("%#v", b)
}

// eventually waits for a condition that must come true by itself.
func eventually(cond func() bool) bool {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if cond() {
			return true
		}
		time.Sleep(5 * time.Millisecond)
	}
	return cond()
}

// goroutines counts those that are not of the test itself.
func goroutines() int {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	n := 0
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if !strings.Contains(g, "testing.") && !strings.Contains(g, "runtime.goexit0") {
			n++
		}
	}
	return n
}

var background = context.Background()
