package fob_test

import (
	"slices"
	"sync/atomic"

	"github.com/fobkit/fob"
	"github.com/fobkit/fob/backend"
	"github.com/fobkit/fob/backend/backendtest"
)

// isKind reports whether a record is of a kind, by its ID. That of a key begins with a
// character of its text, which no kind has for its number.
func isKind(id backend.ID, kind backend.Kind) bool {
	if kind == fob.RecordKey {
		return id[0] > byte(fob.RecordCheck)
	}
	return id[0] == byte(kind)
}

// callsOf matches the calls of an operation (of any one, if it is "") that are about
// records of these kinds (of any, if none is given).
func callsOf(op backendtest.Op, kinds ...backend.Kind) func(backendtest.Call) bool {
	return func(c backendtest.Call) bool {
		return (op == "" || c.Op == op) && (len(kinds) == 0 || slices.ContainsFunc(kinds, func(k backend.Kind) bool { return isKind(c.ID, k) }))
	}
}

// callsAbout matches the calls of an operation that are about one record.
func callsAbout(op backendtest.Op, id backend.ID) func(backendtest.Call) bool {
	return func(c backendtest.Call) bool { return c.Op == op && c.ID == id }
}

// onSome does inject to those of the calls that match whose number is chosen, the first
// being 1, and nothing to all others. What it returns is how many have matched so far.
func onSome(fault *backendtest.Fault, matches func(backendtest.Call) bool, chosen func(n int) bool, inject backendtest.Injection) (matched func() int) {
	n := new(atomic.Int64)
	fault.Inject(func(c backendtest.Call) backendtest.Injection {
		if matches(c) && chosen(int(n.Add(1))) {
			return inject
		}
		return backendtest.Injection{}
	})
	return func() int { return int(n.Load()) }
}

// onEach does inject to every call that matches.
func onEach(fault *backendtest.Fault, matches func(backendtest.Call) bool, inject backendtest.Injection) (matched func() int) {
	return onSome(fault, matches, func(int) bool { return true }, inject)
}

// onFirst does inject to the first so many calls that match.
func onFirst(fault *backendtest.Fault, many int, matches func(backendtest.Call) bool, inject backendtest.Injection) {
	onSome(fault, matches, func(n int) bool { return n <= many }, inject)
}

// onNth does inject to call number n of those that match.
func onNth(fault *backendtest.Fault, n int, matches func(backendtest.Call) bool, inject backendtest.Injection) (matched func() int) {
	return onSome(fault, matches, func(i int) bool { return i == n }, inject)
}

// once does inject to the first call that matches: what a test wants to happen in the
// middle of something.
func once(fault *backendtest.Fault, matches func(backendtest.Call) bool, inject backendtest.Injection) {
	onFirst(fault, 1, matches, inject)
}

// readOrWrite matches the calls by which a Manager looks at records and changes them.
func readOrWrite(c backendtest.Call) bool {
	return c.Op == backendtest.OpGet || c.Op == backendtest.OpPut
}
