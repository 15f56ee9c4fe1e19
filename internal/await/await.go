// Package await waits in tests for what must come, without a time limit of its own:
// how long something takes says more about what else the machine does than about
// what is tested. Whatever hangs runs into the time that go test gives the whole
// test binary (-timeout, 10 minutes by default), a little before its end, so that
// the failure says what was waited for.
package await

import (
	"context"
	"flag"
	"strconv"
	"testing"
	"time"
)

// reserve is the part of the binary's time, one in so many, that is left to the
// failure of a test and to its cleanups.
const reserve = 20

// Until polls until a condition holds. The condition is called in this goroutine,
// so it may end the test.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	late := deadline(t)
	for pause := 100 * time.Microsecond; !holds(); pause = min(2*pause, 10*time.Millisecond) {
		if late() {
			t.Fatalf("it did not come, in all the time that this test binary has: %s", what)
		}
		time.Sleep(pause)
	}
}

// Quick makes attempts until one takes less than d. It is for bounds that the code
// under test keeps and a busy machine does not: that makes some attempts late, and
// code that breaks its bound makes all of them late.
func Quick(t testing.TB, what string, d time.Duration, attempt func()) {
	t.Helper()
	Until(t, what+" within "+d.String(), func() bool {
		began := time.Now()
		attempt()
		return time.Since(began) < d
	})
}

// SideBySide lets n of the tests that call t.Parallel run at a time, instead of as many
// as there are processors: for those that mostly wait. A -parallel in the command wins.
// It is called in TestMain.
func SideBySide(n int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(n)) // it is there, and takes a number
	}
}

// Context returns a context that ends when the time of the test binary is nearly over, or
// with the test: for those who wait for something that may never come.
func Context(t testing.TB) context.Context {
	end, ok := end(t)
	if !ok {
		return t.Context()
	}
	ctx, cancel := context.WithDeadline(t.Context(), end)
	t.Cleanup(cancel)
	return ctx
}

// deadline returns a function that reports whether the time of the test binary is
// nearly over. It never is where go test has no -timeout, and in a benchmark.
func deadline(t testing.TB) (late func() bool) {
	if end, ok := end(t); ok {
		return func() bool { return time.Now().After(end) }
	}
	return func() bool { return false }
}

// end is when the time of the test binary is nearly over; not ok: it never is.
func end(t testing.TB) (at time.Time, ok bool) {
	limited, ok := t.(interface{ Deadline() (time.Time, bool) })
	if !ok {
		return time.Time{}, false
	}
	at, ok = limited.Deadline()
	return at.Add(-time.Until(at) / reserve), ok
}
