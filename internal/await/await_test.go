package await_test

import (
	"testing"
	"time"

	"github.com/fobkit/fob/internal/await"
	"github.com/stretchr/testify/require"
)

// limited is a test whose binary has little time left.
type limited struct {
	testing.TB
	end    time.Time
	failed string
}

func (l *limited) Deadline() (time.Time, bool) { return l.end, true }
func (l *limited) Helper()                     {}
func (l *limited) Fatalf(format string, args ...any) {
	l.failed = format
	panic(l)
}

func TestUntilEndsWithTheBinary(t *testing.T) {
	n := 0
	await.Until(t, "three looks", func() bool { n++; return n == 3 })
	require.Equal(t, 3, n)
	few := &limited{TB: t, end: time.Now().Add(time.Millisecond)}
	require.PanicsWithValue(t, few, func() { await.Until(few, "what never comes", func() bool { return false }) })
	require.Contains(t, few.failed, "did not come")
}

func TestQuickMakesAttemptsUntilOneIs(t *testing.T) {
	n := 0
	await.Quick(t, "an attempt", time.Minute, func() { n++ })
	require.Equal(t, 1, n)
	few := &limited{TB: t, end: time.Now().Add(time.Millisecond)}
	require.PanicsWithValue(t, few, func() { await.Quick(few, "an attempt in no time", 0, func() { n++ }) })
	require.Greater(t, n, 2, "it tries again")
}
